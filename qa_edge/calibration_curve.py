"""How far an answer's probability of being right can be believed: what is right among answers equally sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qa_edge.question_scores import QuestionScores
from qa_edge_export.probability import BINS, calibration_error


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Answers whose probability lies in ``[low, high)``; the last bin includes 1.

    :ivar probability: mean of theirs, 0 to 1.
    :ivar right: share of them that match exactly.
    """

    low: float
    high: float
    questions: int
    probability: float
    right: float


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """Reliability by bins of equal width; those without answers are left out.

    :ivar expected_calibration_error: mean over the answers of the gap between probability and share of their bin.
    :ivar probability: mean over all answers, and `right` the share of them that match exactly.
    """

    expected_calibration_error: float
    questions: int
    probability: float
    right: float
    bins: tuple[ReliabilityBin, ...]


def calibration_curve(scores: QuestionScores, probabilities: Mapping[str, float]) -> CalibrationCurve | None:
    """The curve of the questions that have a probability; None if none has.

    :param probabilities: of being exactly right, 0 to 1, by question id.
    """
    known = [place for place, identifier in enumerate(scores.ids) if identifier in probabilities]
    if not known:
        return None
    likely = np.array([probabilities[scores.ids[place]] for place in known])
    right = scores.exact[np.array(known)]
    numbers = np.minimum((likely * BINS).astype(int), BINS - 1)
    return CalibrationCurve(
        expected_calibration_error=calibration_error(likely, right),
        questions=len(known),
        probability=float(likely.mean()),
        right=float(right.mean()),
        bins=tuple(
            ReliabilityBin(
                low=number / BINS,
                high=(number + 1) / BINS,
                questions=int(inside.sum()),
                probability=float(likely[inside].mean()),
                right=float(right[inside].mean()),
            )
            for number in range(BINS)
            if (inside := numbers == number).any()
        ),
    )
