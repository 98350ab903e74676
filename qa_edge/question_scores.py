"""Exact match and F1 of each question, which totals, groups and tests are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.errors import InputError
from qa_edge_runtime.scoring import percent, score_answer


@dataclass(frozen=True, kw_only=True)
class QuestionScores:
    """What each answer of a system scores, in the order of the data.

    :ivar ids: of the questions that are scored.
    :ivar exact: exact match, bool, shape (questions,).
    :ivar f1: float64, 0 to 1, shape (questions,).
    :ivar unanswered: questions without a prediction; each scores 0.
    :ivar extra: predictions for other questions, which are left out.
    """

    ids: tuple[str, ...]
    exact: NDArray[np.bool_]
    f1: NDArray[np.float64]
    unanswered: int = 0
    extra: int = 0

    @property
    def exact_match_percent(self) -> float:
        """Exact match of all questions, 0 to 100."""
        return percent(self.exact.tolist(), len(self.exact))

    @property
    def f1_percent(self) -> float:
        """F1 of all questions, 0 to 100."""
        return percent(self.f1.tolist(), len(self.f1))


def score_questions(references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> QuestionScores:
    """Score each question against the reference answer that suits it best, as the official script does.

    :param references: question id to its reference answers, one at least.
    :param predictions: question id to the answer given.
    :raises InputError: if there is no question to score.
    """
    if not references:
        raise InputError("no question to score: expected one reference at least; check the data file")
    exact = np.zeros(len(references), bool)
    overlap = np.zeros(len(references))
    for number, (identifier, truths) in enumerate(references.items()):
        answer = predictions.get(identifier)
        if answer is not None:
            exact[number], overlap[number] = score_answer(answer, truths)
    return QuestionScores(
        ids=tuple(references),
        exact=exact,
        f1=overlap,
        unanswered=sum(identifier not in predictions for identifier in references),
        extra=sum(identifier not in references for identifier in predictions),
    )
