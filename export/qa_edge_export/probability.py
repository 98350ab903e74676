"""The probability of being right: a temperature fitted on questions outside training, and how well it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge_export.progress import Progress, no_progress
from qa_edge_export.verify import Question
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.answers import decode_answers, edge_logits
from qa_edge_runtime.decoder import span_softmax
from qa_edge_runtime.manifest import ProbabilityFit
from qa_edge_runtime.scoring import exact_match

# On fewer answers a temperature is a guess, and a calibration error mostly noise.
ENOUGH_QUESTIONS = 200
# Temperatures that are tried: the best of a coarse series, then of a finer one around it.
LOWEST, HIGHEST, STEPS = 0.1, 20.0, 24
# Guo et al., 2017, section 3, have 15 bins of equal width.
BINS = 15
# Paragraphs behind a question's own that are looked at for one without its answer.
NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class ProbabilityReport:
    """A fit and what it was found to be worth, on questions that it has not seen.

    :ivar kept: share of the right answers whose probability is above the threshold.
    :ivar refused: share of the questions asked of a paragraph without the answer whose probability is below it.
    """

    fit: ProbabilityFit
    kept: float
    refused: float

    def __str__(self) -> str:
        return (
            f"probability of being right: {self.fit}, which keeps {self.kept:.0%} of the right answers and refuses"
            f" {self.refused:.0%} of the questions on a paragraph without the answer"
        )


def fit_probability(
    answerer: Answerer, fitted: Sequence[Question], measured: Sequence[Question], progress: Progress = no_progress
) -> ProbabilityReport | None:
    """Fit the temperature on some questions and measure the calibration error on others; None on too few answers.

    The temperature is the one at which the answers' probabilities explain best which of them are exactly right
    (log likelihood). The threshold is the probability that best parts right answers from answers to questions asked
    of a paragraph that does not hold theirs (mean of the shares kept and refused).

    :param fitted: questions with answers, neighbours of one text, as are `measured`, which are others.
    """
    if min(sum(bool(question.answers) for question in part) for part in (fitted, measured)) < ENOUGH_QUESTIONS:
        return None
    asked = [
        [question for question in part if question.answers]
        for part in (fitted, elsewhere(fitted), measured, elsewhere(measured))
    ]
    with progress("probability", sum(map(len, asked))) as advance:
        own, other, unseen, unseen_other = (_ask(answerer, part, advance) for part in asked)
    temperature = best_temperature(own)
    threshold = best_threshold(own.at(temperature)[own.right], other.at(temperature))
    likely, right = unseen.at(temperature), unseen.right
    fit = ProbabilityFit(
        temperature=round(temperature, 4),
        expected_calibration_error=round(calibration_error(likely, right), 4),
        questions=len(right),
        no_answer_below=round(threshold, 4),
    )
    return ProbabilityReport(
        fit=fit,
        kept=float((likely[right] >= threshold).mean()) if right.any() else 0.0,
        refused=float((unseen_other.at(temperature) < threshold).mean()) if len(unseen_other.right) else 0.0,
    )


def elsewhere(questions: Sequence[Question]) -> list[Question]:
    """The questions on the nearest other context behind theirs that does not hold their answers."""
    contexts = list(dict.fromkeys(question.context for question in questions))
    place = {context: number for number, context in enumerate(contexts)}
    found = []
    for question in questions:
        here = place[question.context]
        for step in range(1, min(NEIGHBOURS, len(contexts) - 1) + 1):
            context = contexts[(here + step) % len(contexts)]
            if question.answers and not any(answer.lower() in context.lower() for answer in question.answers):
                found.append(question._replace(context=context))
                break
    return found


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answers to some questions.

    :ivar at: gives the probability of each best answer at a temperature, float64, shape (questions,).
    :ivar right: which of them are exactly a reference answer, shape (questions,).
    """

    at: Callable[[float], NDArray[np.float64]]
    right: NDArray[np.bool_]


def best_temperature(answered: Answered) -> float:
    """The temperature at which the probabilities have the highest likelihood, given which answers are right."""

    def loss(temperature: float) -> float:
        likely = np.clip(answered.at(temperature), 1e-9, 1 - 1e-9)
        return float(-np.log(np.where(answered.right, likely, 1 - likely)).mean())

    lowest, highest = LOWEST, HIGHEST
    for _ in range(3):
        series = np.geomspace(lowest, highest, STEPS)
        best = int(np.argmin([loss(float(temperature)) for temperature in series]))
        lowest, highest = float(series[max(best - 1, 0)]), float(series[min(best + 1, STEPS - 1)])
    return float(series[best])


def best_threshold(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """The probability with the highest mean of the share of `right` at or above it and of `wrong` below it."""
    candidates = np.unique(np.concatenate([[0.0], right, wrong]))
    kept = 1 - np.searchsorted(np.sort(right), candidates) / max(len(right), 1)
    refused = np.searchsorted(np.sort(wrong), candidates) / max(len(wrong), 1)
    return float(candidates[np.argmax(kept + refused)])


def calibration_error(probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: |mean probability - share that is right| by bins of equal width, weighted by count.

    :param probabilities: shape (questions,), 0 to 1.
    :param right: same shape.
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        error += inside.mean() * abs(probabilities[inside].mean() - right[inside].mean())
    return float(error)


def _ask(answerer: Answerer, questions: Sequence[Question], advance: Callable[[int], None]) -> Answered:
    """Ask a bundle and keep the logits, so that any temperature can be tried on them."""
    limit = answerer.bundle.manifest.max_answer_tokens
    scores, right = [], []
    for question in questions:
        found = answerer.logits(question.question, question.context)
        answer = decode_answers(question.context, found.tokens, found.start, found.end, limit)[0]
        right.append(any(exact_match(answer.text, known) for known in question.answers))
        scores.append((*edge_logits(found.tokens, found.start, found.end), answer.logit))
        advance(1)

    def at(temperature: float) -> NDArray[np.float64]:
        likely = []
        for start, end, logit in scores:
            softmax = span_softmax(start / temperature, end / temperature, max_tokens=limit)
            likely.append(softmax.probability(logit / temperature))
        return np.array(likely)

    return Answered(at=at, right=np.array(right, dtype=bool))
