"""Exact match and F1 as the official SQuAD v1.1 script (evaluate-v1.1.py, Rajpurkar et al., 2016) computes them."""

from __future__ import annotations

import math
import os
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import read_json

_ARTICLE = re.compile(r"\b(a|an|the)\b")
# ASCII punctuation only, as in the official script: a typographic quote stays and costs the match.
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a set of predictions.

    :param exact_match: percent of the questions, 0 to 100.
    :param f1: mean F1 in percent, 0 to 100.
    :param total: questions scored, those without a prediction among them.
    :param unanswered: questions without a prediction; each scores 0.
    :param extra: predictions for questions that are not in the references; they are ignored.
    """

    exact_match: float
    f1: float
    total: int
    unanswered: int = 0
    extra: int = 0


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, the articles a, an and the, and superfluous white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, truth: str) -> bool:
    """Whether two answers are the same once they are normalised."""
    return normalize_answer(prediction) == normalize_answer(truth)


def f1(prediction: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the words of the normalised answers, 0 to 1.

    Two answers that are both empty once normalised score 0 here (and match exactly), as in the official v1.1 script.
    """
    predicted, true = normalize_answer(prediction).split(), normalize_answer(truth).split()
    shared = sum((Counter(predicted) & Counter(true)).values())
    if shared == 0:
        return 0.0
    precision = shared / len(predicted)
    recall = shared / len(true)
    return 2 * precision * recall / (precision + recall)


def score_answer(prediction: str, truths: Sequence[str]) -> tuple[bool, float]:
    """Exact match and F1 (0 to 1) of an answer, each against the reference that suits it best.

    :param truths: one at least.
    """
    return (
        any(exact_match(prediction, truth) for truth in truths),
        max(f1(prediction, truth) for truth in truths),
    )


def percent(shares: Iterable[float], total: int) -> float:
    """Mean of shares in percent, rounded once: the same in whatever order, by whatever code, they are added.

    :param total: how many there are; those that are left out of `shares` count 0.
    """
    return 100 * math.fsum(shares) / total


def score_predictions(references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> Scores:
    """Score predictions, each against the reference answer that suits it best.

    :param references: question id to its reference answers, one at least.
    :param predictions: question id to the answer given; ids that are not in `references` are ignored and counted.
    :raises InputError: if there is no question, or one has no reference answer (an unanswerable question of v2.0).
    """
    if not references:
        raise InputError("no question to score: expected one reference at least; check the data file")
    matches, unanswered = 0, 0
    overlaps: list[float] = []
    for identifier, truths in references.items():
        if not truths:
            raise InputError(f"question {identifier} has no reference answer; leave unanswerable questions out")
        prediction = predictions.get(identifier)
        if prediction is None:
            unanswered += 1
            continue
        exact, overlap = score_answer(prediction, truths)
        matches += exact
        overlaps.append(overlap)
    total = len(references)
    return Scores(
        exact_match=percent([matches], total),
        f1=percent(overlaps, total),
        total=total,
        unanswered=unanswered,
        extra=sum(identifier not in references for identifier in predictions),
    )


def read_predictions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a prediction file in the official form: a JSON object from question id to answer text.

    :raises DataError: if the file is missing, is not JSON or has another shape.
    """
    content = read_json(path, "prediction file")
    if not isinstance(content, dict):
        raise DataError(f"prediction file {path} is not an object; expected one from question id to answer text")
    for identifier, answer in content.items():
        if not isinstance(answer, str):
            raise DataError(f"prediction file {path}: the answer of question {identifier!r:.80} is not text")
    return content
