"""The decoder against a loop over every span."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from qa_edge_runtime import decoder
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import InputError

# Few distinct values, so that ties are the rule.
TIED = st.integers(1, 25).flatmap(
    lambda tokens: st_numpy.arrays(np.float32, (2, tokens), elements=st.sampled_from([-2.0, 0.0, 0.5, 3.0]))
)
WIDE = st.integers(1, 25).flatmap(
    lambda tokens: st_numpy.arrays(np.float32, (2, tokens), elements=st.floats(-1e4, 1e4, width=32))
)


def every_span(start, end, max_tokens):
    """(logit, start, end, probability) of all valid spans in the promised order, by two loops and math.fsum."""
    spans = [
        (float(start[i]) + float(end[j]), i, j)
        for i in range(len(start))
        for j in range(i, min(len(start), i + max_tokens))
    ]
    best = max(logit for logit, _, _ in spans)
    total = math.fsum(math.exp(logit - best) for logit, _, _ in spans)
    spans.sort(key=lambda span: (-span[0], span[1], span[2]))
    return [(logit, i, j, math.exp(logit - best) / total) for logit, i, j in spans]


def assert_same(spans, expected):
    assert [(span.logit, span.start, span.end) for span in spans] == [span[:3] for span in expected]
    assert [span.probability for span in spans] == pytest.approx([span[3] for span in expected], rel=1e-9, abs=1e-300)


@settings(deadline=None)
@given(st.one_of(TIED, WIDE), st.integers(1, 30), st.integers(1, 400))
def test_as_brute_force(logits, max_tokens, top_k):
    expected = every_span(*logits, max_tokens)
    assert_same(decode_spans(*logits, max_tokens=max_tokens, top_k=top_k), expected[:top_k])


@settings(deadline=None)
@given(st.one_of(TIED, WIDE), st.integers(1, 30), st.integers(1, 12), st.integers(1, 40))
def test_as_brute_force_in_blocks(logits, max_tokens, top_k, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "_BLOCK_SPANS", block)
        spans = decode_spans(*logits, max_tokens=max_tokens, top_k=top_k)
    assert_same(spans, every_span(*logits, max_tokens)[:top_k])


@given(TIED)
def test_probabilities_of_all_spans_sum_to_one(logits):
    spans = decode_spans(*logits, max_tokens=4, top_k=1000)
    assert math.fsum(span.probability for span in spans) == pytest.approx(1.0, abs=1e-9)
    assert all(0 <= span.end - span.start < 4 for span in spans)


@given(TIED, st.floats(-100, 100), st.floats(-100, 100))
def test_probability_does_not_depend_on_the_level_of_the_logits(logits, start_level, end_level):
    plain = decode_spans(*logits)[0]
    moved = decode_spans(logits[0] + np.float64(round(start_level)), logits[1] + np.float64(round(end_level)))[0]
    assert (plain.start, plain.end) == (moved.start, moved.end)
    assert plain.probability == pytest.approx(moved.probability)


def test_huge_logits_do_not_overflow():
    spans = decode_spans([1e30, 1e30, -1e30], [1e30, 1e30, -1e30], top_k=2)
    assert [(span.start, span.end) for span in spans] == [(0, 0), (0, 1)]
    assert [span.probability for span in spans] == pytest.approx([1 / 3, 1 / 3])


def test_ties_go_to_the_smallest_start_then_end():
    spans = decode_spans(np.zeros(4), np.zeros(4), max_tokens=2, top_k=5)
    assert [(span.start, span.end) for span in spans] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]


def test_end_before_start_is_never_chosen():
    (span,) = decode_spans([0, 0, 9], [9, 0, 0])
    assert (span.start, span.end, span.logit) == (0, 0, 9.0)


def test_length_limit():
    start, end = [9, 0, 0, 0], [0, 0, 0, 9]
    assert [(span.start, span.end) for span in decode_spans(start, end, max_tokens=4)] == [(0, 3)]
    assert [(span.start, span.end) for span in decode_spans(start, end, max_tokens=3)] == [(0, 0)]


def test_long_context_needs_little_memory():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 100_000)).astype(np.float32)
    start[70_000] = end[70_020] = 50
    tracemalloc.start()
    (span,) = decode_spans(start, end)
    narrow = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    decode_spans(start, end, max_tokens=200, top_k=3)
    wide = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (span.start, span.end) == (70_000, 70_020)
    assert span.probability == pytest.approx(1.0)
    assert narrow < 80e6
    assert wide < 80e6


@pytest.mark.parametrize(
    ("start", "end", "limits", "message"),
    [
        ([], [], {}, "no logits"),
        ([1.0], [1.0, 2.0], {}, "one per token"),
        ([[1.0]], [[1.0]], {}, "one per token"),
        ([1.0, math.nan], [1.0, 2.0], {}, "NaN or infinity"),
        ([1.0, 2.0], [-math.inf, 2.0], {}, "NaN or infinity"),
        ([1.0], [1.0], {"max_tokens": 0}, "at least 1"),
        ([1.0], [1.0], {"top_k": 0}, "at least 1"),
    ],
)
def test_bad_input_is_refused(start, end, limits, message):
    with pytest.raises(InputError, match=message):
        decode_spans(start, end, **limits)
