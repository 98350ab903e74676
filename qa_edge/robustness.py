"""What noise in the questions costs a system: the same questions, clean and noisy, compared one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge.noise import noisy_squad
from qa_edge.question_scores import QuestionScores, score_questions
from qa_edge.significance import RESAMPLES, Bootstrap, bootstrap
from qa_edge.squad import Squad, references

Answers = Callable[[Squad], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class NoiseScores:
    """What a system scores on noisy questions.

    :ivar changed: questions that the noise changed; the rest were asked as they are.
    :ivar exact_match: percent, and `f1` too.
    :ivar exact_match_change: noisy less clean, as a share of 1; below 0 is a loss. `f1_change` is that of F1.
    """

    noise: str
    changed: int
    exact_match: float
    f1: float
    exact_match_change: Bootstrap
    f1_change: Bootstrap


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Scores on clean questions and on noisy ones, in the order that was asked for."""

    questions: int
    seed: int
    exact_match: float
    f1: float
    noises: tuple[NoiseScores, ...]


def measure_robustness(
    answer: Answers, squad: Squad, noises: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Robustness:
    """Ask all questions as they are, then with each noise.

    :param answer: a system: gives the answers to a data set's questions, by question id.
    :param noises: some of `noise.NOISES`.
    :param seed: of the noise and of the resamples.
    :raises InputError: if there is no question to score, or no such noise.
    """
    expected = references(squad)
    noisy = {noise: noisy_squad(squad, noise, seed) for noise in noises}
    clean = score_questions(expected, answer(squad))
    found = []
    for number, (noise, data) in enumerate(noisy.items()):
        scores = score_questions(expected, answer(data))
        changes = _changes(clean, scores, np.random.default_rng([seed, number]), resamples)
        found.append(
            NoiseScores(
                noise=noise,
                changed=_changed(squad, data),
                exact_match=scores.exact_match_percent,
                f1=scores.f1_percent,
                exact_match_change=changes[0],
                f1_change=changes[1],
            )
        )
    return Robustness(
        questions=len(expected),
        seed=seed,
        exact_match=clean.exact_match_percent,
        f1=clean.f1_percent,
        noises=tuple(found),
    )


def _changes(
    clean: QuestionScores, noisy: QuestionScores, rng: np.random.Generator, resamples: int
) -> tuple[Bootstrap, Bootstrap]:
    exact = noisy.exact.astype(np.float64) - clean.exact
    return (
        bootstrap(exact, resamples=resamples, rng=rng),
        bootstrap(noisy.f1 - clean.f1, resamples=resamples, rng=rng),
    )


def _changed(squad: Squad, noisy: Squad) -> int:
    pairs = zip(squad.items(), noisy.items(), strict=True)
    return sum(bool(one.answers) and one.text != other.text for (_, _, one), (_, _, other) in pairs)
