"""Whether an exported student answers as the trained one does: spans first, logits beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import BundleError, InputError

# Two spans nearer than this in logit may change places by rounding alone; float32 sums of this depth agree to 1e-4.
DECISIVE_MARGIN = 1e-3

Logits = tuple[np.ndarray, np.ndarray]
"""Start and end logits of one question, each float, shape (context_tokens,)."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a comparison of two students on the same questions found.

    :ivar questions: how many were compared.
    :ivar largest_difference: of two logits at the same token, over all questions; 0 if there were none.
    :ivar percentile_999: 99.9 % of the differences are no larger.
    :ivar equal_spans: questions whose best spans are equal.
    :ivar decisive_differences: numbers (from 0) of the questions whose best spans differ by more than `margin` in the
        reference's own logits: these are mistakes, the others are rounding.
    """

    questions: int
    largest_difference: float
    percentile_999: float
    equal_spans: int
    decisive_differences: tuple[int, ...]
    margin: float = DECISIVE_MARGIN

    @property
    def equal_share(self) -> float:
        """Share of questions with equal spans; 1 if there were none."""
        return self.equal_spans / self.questions if self.questions else 1.0

    def to_json(self) -> dict[str, Any]:
        """The figures as the manifest holds them."""
        figures = asdict(self)
        figures["decisive_differences"] = len(self.decisive_differences)
        return {**figures, "equal_share": self.equal_share}


def compare(
    reference: Sequence[Logits],
    candidate: Sequence[Logits],
    *,
    max_answer_tokens: int = 30,
    margin: float = DECISIVE_MARGIN,
) -> Verification:
    """Compare the logits of two students question by question, with the runtime's decoder.

    :param reference: of the trained student.
    :param candidate: of the exported one, same questions in the same order.
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
        elif best.logit - (float(ours[0][other.start]) + float(ours[1][other.end])) > margin:
            decisive.append(number)
    every = np.concatenate(differences)
    return Verification(
        questions=len(reference),
        largest_difference=float(every.max(initial=0.0)),
        percentile_999=float(np.percentile(every, 99.9)) if len(every) else 0.0,
        equal_spans=equal,
        decisive_differences=tuple(decisive),
        margin=margin,
    )


def refuse_differences(verification: Verification, questions: Sequence[str]) -> None:
    """Refuse an fp32 export that answers a question otherwise than the trained student.

    :param questions: texts of the questions that were compared, for the message.
    :raises BundleError: naming the first such question.
    """
    if not verification.decisive_differences:
        return
    number = verification.decisive_differences[0]
    raise BundleError(
        f"the exported student answers {len(verification.decisive_differences)} of {verification.questions} questions"
        f" otherwise than the trained one, the first being {questions[number]!r:.120} (logits differ by up to"
        f" {verification.largest_difference:.2g}); nothing was written: export the checkpoint that the reference runs"
    )
