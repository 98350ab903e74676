"""Two systems on the same questions: whatever can answer them or has answered them, and each test of the difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qa_edge.evaluate import model_kind, predict
from qa_edge.question_scores import QuestionScores, score_questions
from qa_edge.significance import (
    ALPHA,
    RESAMPLES,
    SAMPLE_SHARE,
    Bootstrap,
    McNemar,
    SampleBootstrap,
    bootstrap,
    check_settings,
    mcnemar,
    sample_bootstrap,
)
from qa_edge.squad import Squad, references
from qa_edge_runtime.bundle import is_single_file
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.scoring import read_predictions

# Answers to fewer of the questions than this are taken for answers to another data set.
ANSWERED_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class SystemComparison:
    """All tests of one comparison; differences are the second system less the first.

    :ivar exact_match: of all questions, and `f1` too.
    :ivar sample: the paper's test, of the exact match of a part of them.
    """

    questions: int
    alpha: float
    seed: int
    exact_match: Bootstrap
    f1: Bootstrap
    mcnemar: McNemar
    sample: SampleBootstrap


def compare_scores(
    first: QuestionScores,
    second: QuestionScores,
    *,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
    share: float = SAMPLE_SHARE,
    seed: int = 0,
) -> SystemComparison:
    """Test whether two systems differ.

    :param share: of the questions in the sample of the paper's test.
    :raises InputError: if they were scored on different questions, or a setting is out of range.
    """
    check_settings(resamples=resamples, alpha=alpha, share=share)
    if first.ids != second.ids:
        both = len(set(first.ids) & set(second.ids))
        raise InputError(
            f"the systems were scored on different questions ({len(first.ids):,} and {len(second.ids):,}, {both:,} of"
            " them the same); score both on the same data"
        )
    exact = second.exact.astype(np.float64) - first.exact
    # A generator for each, so that no result depends on which tests ran before.
    sources = [np.random.default_rng([seed, number]) for number in range(3)]
    return SystemComparison(
        questions=len(first.ids),
        alpha=alpha,
        seed=seed,
        exact_match=bootstrap(exact, resamples=resamples, alpha=alpha, rng=sources[0]),
        f1=bootstrap(second.f1 - first.f1, resamples=resamples, alpha=alpha, rng=sources[1]),
        mcnemar=mcnemar(first.exact, second.exact),
        sample=sample_bootstrap(exact, share=share, resamples=resamples, alpha=alpha, rng=sources[2]),
    )


def is_prediction_file(path: str | Path) -> bool:
    """Whether a system is given by its answers: a file that is no bundle."""
    return Path(path).is_file() and not is_single_file(Path(path))


def score_systems(
    first: str | Path,
    second: str | Path,
    squad: Squad,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int = 1,
) -> tuple[QuestionScores, QuestionScores]:
    """The scores of two runs, bundles, teachers or prediction files; what is wrong with either is said at once.

    :param engine: of what is a bundle, and `precision` and `threads`.
    :raises DataError: if one is none of these, or a prediction file has answers to other questions.
    :raises InputError: if an engine or a precision is named and neither is a bundle.
    """
    paths = dict.fromkeys((Path(first), Path(second)))
    scores = {path: score_prediction_file(path, squad) for path in paths if is_prediction_file(path)}
    kinds = {path: model_kind(path) for path in paths if path not in scores}
    if (engine is not None or precision is not None) and "bundle" not in kinds.values():
        raise InputError(f"neither {first} nor {second} is a bundle: engine and precision are a bundle's")
    expected = references(squad)
    for path, kind in kinds.items():
        if kind == "bundle":
            found = predict(path, squad, engine=engine, precision=precision, threads=threads)
        else:
            found = predict(path, squad)
        scores[path] = score_questions(expected, found)
    return scores[Path(first)], scores[Path(second)]


def score_prediction_file(path: str | Path, squad: Squad) -> QuestionScores:
    """The scores of answers in a file, JSON from question id to text.

    :raises DataError: if it cannot be read, or has answers to other questions.
    """
    scores = score_questions(references(squad), read_predictions(path))
    answered = len(scores.ids) - scores.unanswered
    if answered < ANSWERED_SHARE * len(scores.ids):
        raise DataError(
            f"prediction file {path} answers {answered:,} of the {len(scores.ids):,} questions, expected"
            f" {ANSWERED_SHARE:.0%} of them or more: it is of another data set; name the one that it was made on"
        )
    return scores
