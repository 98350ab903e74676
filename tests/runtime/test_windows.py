from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge_runtime.errors import InputError
from qa_edge_runtime.windows import Windows, merge_logits, runs


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Windows, int]:
    tokens = draw(st.integers(2, 60))
    return Windows(tokens=tokens, overlap=draw(st.integers(0, tokens // 2))), draw(st.integers(1, 500))


@given(cuts())
def test_windows_cover_the_text_and_each_token_counts_once(cut: tuple[Windows, int]) -> None:
    windows, tokens = cut
    found = windows.cut(tokens)
    assert np.concatenate([np.arange(w.kept_start, w.kept_stop) for w in found]).tolist() == list(range(tokens))
    for window in found:
        assert window.start <= window.kept_start < window.kept_stop <= window.stop
        assert window.stop - window.start == min(windows.tokens, tokens)
    for left, right in itertools.pairwise(found):
        assert left.stop - right.start >= windows.overlap
    assert runs(found) == [(0, tokens)]


@given(cuts())
def test_a_token_has_as_much_context_as_any_window_gives_it(cut: tuple[Windows, int]) -> None:
    windows, tokens = cut
    found = windows.cut(tokens)
    for window in found:
        for token in range(window.kept_start, window.kept_stop):
            poorer = [min(token - w.start, w.stop - 1 - token) for w in found if w.start <= token < w.stop]
            own = min(token - window.start, window.stop - 1 - token)
            # At the text's own ends there is no more context to be had on that side.
            if token - window.start != token and window.stop - 1 - token != tokens - 1 - token:
                assert own >= max(poorer) - 1


@given(cuts(), st.data())
def test_some_windows_keep_all_that_no_other_reads(cut: tuple[Windows, int], data: st.DataObject) -> None:
    windows, tokens = cut
    count = len(windows.starts(tokens))
    chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    found = windows.cut(tokens, chosen)
    covered = sorted({token for window in found for token in range(window.start, window.stop)})
    assert np.concatenate([np.arange(w.kept_start, w.kept_stop) for w in found]).tolist() == covered
    assert [token for first, last in runs(found) for token in range(first, last)] == covered
    # Logits that name their token come back in its place.
    parts = [np.stack([np.arange(w.start, w.stop), -np.arange(w.start, w.stop)]).astype(np.float32) for w in found]
    merged = merge_logits(found, parts, tokens, np.zeros(len(found)))
    assert merged.shape == (2, tokens)
    assert np.array_equal(merged[0], [token if token in set(covered) else 0 for token in range(tokens)])
    assert np.array_equal(merged[1], -merged[0])
    raised = merge_logits(found, parts, tokens, np.arange(len(found))) - merged
    for number, window in enumerate(found):
        assert (raised[:, window.kept_start : window.kept_stop] == number / 2).all()


@pytest.mark.parametrize(
    ("tokens", "overlap"), [(1, 0), (0, 0), (10, 6), (10, -1), (10.0, 2), (10, True), (None, 0), ("400", 128)]
)
def test_window_and_overlap_out_of_range(tokens: Any, overlap: Any) -> None:
    with pytest.raises(InputError, match=r"window_tokens|overlap_tokens"):
        Windows(tokens=tokens, overlap=overlap)
