"""The comparison that decides whether an export may be written."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from qa_edge_export.verify import Logits, Question, Verification, compare, refuse_differences, refuse_loss
from qa_edge_runtime.errors import BundleError, InputError
from qa_edge_runtime.tokens import Tokens

CONTEXT = "Anna went to Rome"
TOKENS = Tokens(["Anna", "went", "to", "Rome"], array("q", [0, 5, 10, 13]), array("q", [4, 9, 12, 17]))


def logits(*values: float) -> Logits:
    array = np.array(values)
    return array, array.copy()


def test_equal_logits_have_equal_spans_and_no_difference() -> None:
    found = compare([logits(0, 3, 1), logits(5)], [logits(0, 3, 1), logits(5)])
    assert (found.questions, found.equal_spans, found.equal_share, found.largest_difference) == (2, 2, 1.0, 0.0)
    refuse_differences(found, [Question("a", ""), Question("b", "")], "the graph")


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
    refuse_differences(found, [Question("tie", "")], "the graph")


def test_a_tie_of_two_spans_excuses_no_third() -> None:
    found = compare([logits(0, 2, 2 - 1e-4)], [logits(5, 2, 2 - 1e-4)], max_answer_tokens=1)
    assert found.decisive_differences == (0,)


def test_another_answer_is_refused_by_the_name_of_its_question() -> None:
    reference = [logits(0, 3, 1), logits(0, 3, 1)]
    found = compare(reference, [reference[0], logits(0, 1, 3)])
    assert found.decisive_differences == (1,)
    with pytest.raises(
        BundleError, match=r"core\.onnx answers 1 of 2 questions .*'Where is it\?'.*nothing was written"
    ):
        refuse_differences(found, [Question("Who?", ""), Question("Where is it?", "")], "the graph core.onnx")


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


def scored(*answers: tuple[str, ...], found: int = 3) -> Verification:
    """A student that says Rome, and one that says another token, on questions with these answers."""
    reference, candidate = logits(0, 0, 0, 9), logits(*(9.0 * (number == found) for number in range(4)))
    count = len(answers)
    questions = [Question("Where?", CONTEXT, right) for right in answers]
    return compare([reference] * count, [candidate] * count, questions=questions, tokens=[TOKENS] * count)


def test_scores_are_of_both_students_on_the_questions_that_have_answers() -> None:
    found = scored(("Rome",), ("Rome", "to Rome"), ("went",), (), found=1)
    assert found.questions == 4 and found.scores is not None and found.reference_scores is not None
    assert found.scores.total == found.reference_scores.total == 3
    assert found.reference_scores.f1 == pytest.approx(100 * 2 / 3) and found.scores.f1 == pytest.approx(100 / 3)
    assert found.f1_loss == pytest.approx(100 / 3)
    figures = found.to_json()
    assert figures["scores"]["f1"] == found.scores.f1 and figures["reference_scores"]["total"] == 3
    assert figures["equal_spans"] == 0 and figures["equal_share"] == 0


def test_without_answers_the_trained_student_s_own_are_the_right_ones() -> None:
    found = scored((), (), found=2)
    assert found.reference_scores is not None and found.reference_scores.f1 == 100
    assert found.scores is not None and found.scores.f1 < 100 and found.scores.total == 2
    with pytest.raises(BundleError, match="100\\.00"):
        refuse_loss(found, 0.0, "the graph", str)


def test_without_questions_nothing_is_scored() -> None:
    found = compare([logits(0, 3, 1)], [logits(0, 3, 1)])
    assert found.scores is None and found.reference_scores is None and found.f1_loss == 0
    assert "scores" not in found.to_json()
    refuse_loss(found, 0.0, "the graph", str)


def test_a_loss_beyond_the_margin_is_refused_with_both_scores_and_the_advice() -> None:
    found = scored(("Rome",), ("Rome",), found=2)
    refuse_loss(found, 100.0, "the graph", lambda: "keep it")
    message = (
        r"the graph has F1 0\.00 on 2 held-out questions.* 100\.00: .* margin of 99\.9 .*nothing was written: keep it"
    )
    with pytest.raises(BundleError, match=message):
        refuse_loss(found, 99.9, "the graph", lambda: "keep it")


def test_better_than_the_trained_student_is_no_loss() -> None:
    found = scored(("to",), found=2)
    assert found.f1_loss == -100
    refuse_loss(found, 0.0, "the graph", "")
