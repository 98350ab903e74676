"""The comparison that decides whether an export may be written."""

from __future__ import annotations

import numpy as np
import pytest

from qa_edge_export.verify import Logits, compare, refuse_differences
from qa_edge_runtime.errors import BundleError, InputError


def logits(*values: float) -> Logits:
    array = np.array(values)
    return array, array.copy()


def test_equal_logits_have_equal_spans_and_no_difference() -> None:
    found = compare([logits(0, 3, 1), logits(5)], [logits(0, 3, 1), logits(5)])
    assert (found.questions, found.equal_spans, found.equal_share, found.largest_difference) == (2, 2, 1.0, 0.0)
    refuse_differences(found, ["a", "b"])


def test_figures_are_those_of_all_logits() -> None:
    random = np.random.default_rng(0)
    reference = [(random.normal(size=n), random.normal(size=n)) for n in (5, 50, 200)]
    noise = [(random.normal(size=n) * 1e-5, random.normal(size=n) * 1e-5) for n in (5, 50, 200)]
    candidate = [(a + c, b + d) for (a, b), (c, d) in zip(reference, noise, strict=True)]
    found = compare(reference, candidate)
    every = np.abs(np.concatenate([part for pair in noise for part in pair]))
    assert found.largest_difference == pytest.approx(every.max(), rel=1e-6)
    assert found.percentile_999 == pytest.approx(np.percentile(every, 99.9), rel=1e-6)


def test_a_tie_that_rounding_decides_is_no_mistake_but_is_counted() -> None:
    found = compare([logits(0, 2, 2 - 1e-4)], [logits(0, 2 - 1e-4, 2)], max_answer_tokens=1)
    assert found.equal_spans == 0 and not found.decisive_differences
    refuse_differences(found, ["tie"])


def test_a_tie_of_two_spans_excuses_no_third() -> None:
    found = compare([logits(0, 2, 2 - 1e-4)], [logits(5, 2, 2 - 1e-4)], max_answer_tokens=1)
    assert found.decisive_differences == (0,)


def test_another_answer_is_refused_by_the_name_of_its_question() -> None:
    reference = [logits(0, 3, 1), logits(0, 3, 1)]
    found = compare(reference, [reference[0], logits(0, 1, 3)])
    assert found.decisive_differences == (1,)
    with pytest.raises(BundleError, match=r"1 of 2 questions .*'Where is it\?'"):
        refuse_differences(found, ["Who?", "Where is it?"])


def test_the_answer_limit_is_the_decoders() -> None:
    start, end = np.array([9.0, 0, 0, 0]), np.array([0.0, 1, 0, 8])
    other = np.array([0.0, 1, 0, 9])
    assert compare([(start, end)], [(start, other)], max_answer_tokens=2).equal_spans == 1
    assert compare([(start, end)], [(start, np.array([0.0, 0, 1, 0]))], max_answer_tokens=2).decisive_differences == (
        0,
    )


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [([logits(1)], []), ([logits(1, 2)], [logits(1)]), ([logits(1, float("nan"))], [logits(1, 2)])],
)
def test_what_cannot_be_compared_is_refused(reference: list[Logits], candidate: list[Logits]) -> None:
    with pytest.raises(InputError):
        compare(reference, candidate)


def test_nothing_compared_is_said_by_its_count() -> None:
    figures = compare([], []).to_json()
    assert figures["questions"] == 0 and figures["decisive_differences"] == 0
