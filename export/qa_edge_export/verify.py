"""Whether an exported student answers as the trained one does: spans and scores first, logits beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qa_edge_runtime.answers import decode_answers
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import BundleError, InputError
from qa_edge_runtime.scoring import Scores, score_predictions
from qa_edge_runtime.tokens import Tokens

# Two spans nearer than this in logit may change places by rounding alone; float32 sums of this depth agree to 1e-4.
DECISIVE_MARGIN = 1e-3
# Points of F1 that a smaller graph or table may cost, on the questions that it is verified on.
F1_MARGIN = 0.3

Logits = tuple[np.ndarray, np.ndarray]
"""Start and end logits of one question, each float, shape (context_tokens,)."""


class Question(NamedTuple):
    """A real question with its context and the answers that count as right; none if they are not known."""

    question: str
    context: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a comparison of an exported student with the trained one, on the same questions, found.

    :ivar questions: how many were compared.
    :ivar largest_difference: of two logits at the same token, over all questions; 0 if there were none.
    :ivar percentile_999: 99.9 % of the differences are no larger.
    :ivar equal_spans: questions whose best spans are equal.
    :ivar decisive_differences: numbers (from 0) of the questions whose best spans differ by more than `DECISIVE_MARGIN`
        in the reference's own logits.
    :ivar scores: of the exported student on the questions whose answers are known; where none are, with the trained
        student's own answers as the right ones. None if the questions themselves were not given.
    :ivar reference_scores: of the trained student on the same.
    """

    questions: int
    largest_difference: float
    percentile_999: float
    equal_spans: int
    decisive_differences: tuple[int, ...]
    scores: Scores | None = None
    reference_scores: Scores | None = None

    @property
    def equal_share(self) -> float:
        """Share of questions with equal spans; 1 if there were none."""
        return self.equal_spans / self.questions if self.questions else 1.0

    @property
    def f1_loss(self) -> float:
        """Points of F1 that the exported student is below the trained one; 0 if nothing was scored."""
        if self.scores is None or self.reference_scores is None:
            return 0.0
        return self.reference_scores.f1 - self.scores.f1

    def to_json(self) -> dict[str, Any]:
        """The figures as the manifest holds them."""
        figures: dict[str, Any] = {
            "questions": self.questions,
            "equal_spans": self.equal_spans,
            "equal_share": self.equal_share,
            "decisive_differences": len(self.decisive_differences),
            "largest_difference": self.largest_difference,
            "percentile_999": self.percentile_999,
        }
        for name, scores in (("scores", self.scores), ("reference_scores", self.reference_scores)):
            if scores is not None:
                figures[name] = {"exact_match": scores.exact_match, "f1": scores.f1, "total": scores.total}
        return figures


def compare(
    reference: Sequence[Logits],
    candidate: Sequence[Logits],
    *,
    questions: Sequence[Question] = (),
    tokens: Sequence[Tokens] = (),
    max_answer_tokens: int = 30,
) -> Verification:
    """Compare the logits of two students question by question, with the runtime's decoder.

    :param reference: of the trained student.
    :param candidate: of the exported one, same questions in the same order.
    :param questions: the questions, to be scored; with the tokens of their contexts.
    :param max_answer_tokens: longest answer, as the bundle decodes.
    :raises InputError: if the numbers of questions differ, or a question's logits have other shapes or are not finite.
    """
    if len(reference) != len(candidate):
        raise InputError(f"{len(reference)} reference results and {len(candidate)} to compare: expected one a question")
    differences: list[np.ndarray] = [np.zeros(0)]
    equal, decisive = 0, []
    for number, (ours, theirs) in enumerate(zip(reference, candidate, strict=True)):
        for expected, found in zip(ours, theirs, strict=True):
            if np.shape(expected) != np.shape(found):
                raise InputError(
                    f"question {number}: logits of {np.size(expected)} reference tokens and {np.size(found)} to"
                    " compare; both sides must cut the context into the same tokens"
                )
            differences.append(np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64)))
        best = decode_spans(*ours, max_tokens=max_answer_tokens)[0]
        other = decode_spans(*theirs, max_tokens=max_answer_tokens)[0]
        if (best.start, best.end) == (other.start, other.end):
            equal += 1
        elif best.logit - (float(ours[0][other.start]) + float(ours[1][other.end])) > DECISIVE_MARGIN:
            decisive.append(number)
    every = np.concatenate(differences)
    scored = _known_answers(reference, questions, tokens, max_answer_tokens)
    return Verification(
        questions=len(reference),
        largest_difference=float(every.max(initial=0.0)),
        percentile_999=float(np.percentile(every, 99.9)) if len(every) else 0.0,
        equal_spans=equal,
        decisive_differences=tuple(decisive),
        scores=_score(candidate, scored, tokens, max_answer_tokens) if scored else None,
        reference_scores=_score(reference, scored, tokens, max_answer_tokens) if scored else None,
    )


def refuse_differences(verification: Verification, questions: Sequence[Question], noun: str) -> None:
    """Refuse an export in full precision that answers a question otherwise than the trained student.

    :param noun: what was compared, for the message.
    :raises BundleError: naming the first such question.
    """
    if not verification.decisive_differences:
        return
    number = verification.decisive_differences[0]
    raise BundleError(
        f"{noun} answers {len(verification.decisive_differences)} of {verification.questions} questions otherwise than"
        f" the trained student, the first being {questions[number].question!r:.120} (logits differ by up to"
        f" {verification.largest_difference:.2g}); nothing was written: export the checkpoint that the reference runs"
    )


def refuse_loss(verification: Verification, margin: float, noun: str, advice: Callable[[], str]) -> None:
    """Refuse a smaller graph or table that costs too much.

    What a single question can make up is allowed at any rate: on few questions it says nothing.

    :param margin: points of F1 that it may cost.
    :param advice: gives what to do, for the message; asked only then.
    :raises BundleError: with the scores.
    """
    if verification.scores is None or verification.reference_scores is None:
        return
    if verification.f1_loss <= max(margin, 100 / verification.scores.total):
        return
    raise BundleError(
        f"{noun} has F1 {verification.scores.f1:.2f} on {verification.scores.total} held-out questions, the trained"
        f" student {verification.reference_scores.f1:.2f}: that is more than the margin of {margin:g} below; nothing"
        f" was written: {advice()}"
    )


def _known_answers(
    reference: Sequence[Logits], questions: Sequence[Question], tokens: Sequence[Tokens], max_tokens: int
) -> Sequence[Question]:
    """The questions with answers to score by: the trained student's own, if there are no others."""
    if not questions or any(question.answers for question in questions):
        return questions
    return [
        question._replace(answers=(_answer(question, cut, logits, max_tokens),))
        for question, cut, logits in zip(questions, tokens, reference, strict=True)
    ]


def _score(
    logits: Sequence[Logits], questions: Sequence[Question], tokens: Sequence[Tokens], max_tokens: int
) -> Scores:
    references: dict[str, Sequence[str]] = {}
    predictions: dict[str, str] = {}
    for number, (question, cut, found) in enumerate(zip(questions, tokens, logits, strict=True)):
        if question.answers:
            references[str(number)] = question.answers
            predictions[str(number)] = _answer(question, cut, found, max_tokens)
    return score_predictions(references, predictions)


def _answer(question: Question, tokens: Tokens, logits: Logits, max_tokens: int) -> str:
    answers = decode_answers(question.context, tokens, *logits, max_tokens)
    return answers[0].text if answers else ""
