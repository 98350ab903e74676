"""Whether two systems differ by more than chance: paired bootstrap of EM and F1, and McNemar's exact test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.errors import InputError

RESAMPLES = 100_000
ALPHA = 0.05
SAMPLE_SHARE = 0.1
# The paper's test looks at one sample. So many others show how far its answer depends on which one it was.
OTHER_SAMPLES = 100
_OTHER_RESAMPLES = 10_000
# A value that so many questions share is drawn faster by how often it comes (a binomial) than question by question.
_OFTEN = 32
# Differences of F1 are fractions with small denominators: what differs by less is noise of the last bit.
_DECIMALS = 12
_NOISE = 1e-9
_BLOCK_DRAWS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Asks whether the two systems differ, in either direction, on questions like these.

    :ivar difference: mean over the questions, second system less first, 0 to 1 in size.
    :ivar low: lower end of the confidence interval (percentiles of the resamples), and `high` the upper end.
    :ivar p_value: how often a difference as large as this, in either direction, comes up where there is none.
    """

    difference: float
    low: float
    high: float
    p_value: float
    resamples: int
    questions: int


@dataclass(frozen=True, kw_only=True)
class SampleBootstrap:
    """Asks whether the second system is better than the first, by one sample of the questions (section 5.3).

    :ivar difference: mean over the sample, second system less first.
    :ivar p_value: how often the second is ahead by this much or more where it is no better.
    :ivar others: other samples of the same size that were looked at.
    :ivar others_significant: those of them whose p-value is below alpha.
    :ivar others_lowest: the lowest of their p-values, and `others_highest` the highest.
    """

    difference: float
    p_value: float
    resamples: int
    questions: int
    others: int
    others_significant: int
    others_lowest: float
    others_highest: float


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Asks whether, of the questions that just one system has right, it is a toss-up which one.

    :ivar only_first: questions that the first system alone has right, and `only_second` the second alone.
    :ivar p_value: two-sided, exact; 0.0 stands for less than a float can hold.
    """

    only_first: int
    only_second: int
    p_value: float


def bootstrap(
    differences: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
    rng: np.random.Generator,
) -> Bootstrap:
    """Paired bootstrap over all questions, two-sided (Efron and Tibshirani, 1993, chapter 16).

    The resamples' differences are moved to a mean of 0, which is the null hypothesis; the p-value is the share of them
    at least as far from 0 as the difference itself, which counts as one of them.

    :param differences: second system less first, a question each, shape (questions,).
    :param alpha: the interval covers 1 - alpha.
    :raises InputError: as `check_settings`, and if there are no questions.
    """
    check_settings(resamples=resamples, alpha=alpha)
    count = len(differences)
    observed = _total(differences)
    sums = resampled_sums(differences, resamples, rng)
    far = int((np.abs(sums - observed) >= abs(observed) - _NOISE).sum())
    low, high = np.quantile(sums, [alpha / 2, 1 - alpha / 2])
    return Bootstrap(
        difference=observed / count,
        low=float(low) / count,
        high=float(high) / count,
        p_value=(far + 1) / (resamples + 1),
        resamples=resamples,
        questions=count,
    )


def sample_bootstrap(
    differences: NDArray[np.float64],
    *,
    share: float = SAMPLE_SHARE,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
    rng: np.random.Generator,
) -> SampleBootstrap:
    """Paired bootstrap of a random sample of the questions, one-sided (Boreshban et al., section 5.3).

    H0: the second system is no better. The paper does not say how H0 enters; here as in Berg-Kirkpatrick et al., 2012:
    resamples are centred at the sample's own difference d, so that one with 2 d or more is as surprising under H0.

    :param differences: second system less first, a question each, shape (questions,).
    :param share: of the questions in the sample.
    :raises InputError: as `check_settings`, and if the sample has no question.
    """
    check_settings(resamples=resamples, alpha=alpha, share=share)
    size = round(share * len(differences))
    if size < 1:
        raise InputError(f"a sample of {share:g} of {len(differences)} questions is empty; raise the share")

    def look(count: int) -> tuple[float, float]:
        chosen = differences[rng.permutation(len(differences))[:size]]
        observed = _total(chosen)
        ahead = int((resampled_sums(chosen, count, rng) >= 2 * observed - _NOISE).sum())
        return observed / size, (ahead + 1) / (count + 1)

    difference, p_value = look(resamples)
    others = [look(min(resamples, _OTHER_RESAMPLES))[1] for _ in range(OTHER_SAMPLES)]
    return SampleBootstrap(
        difference=difference,
        p_value=p_value,
        resamples=resamples,
        questions=size,
        others=len(others),
        others_significant=sum(other < alpha for other in others),
        others_lowest=min(others),
        others_highest=max(others),
    )


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test: two-sided binomial test of the questions that just one system has right.

    :param first: whether the first system is right, shape (questions,).
    :param second: the same of the second system.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first=only_first, only_second=only_second, p_value=toss_up(only_first, only_second))


def toss_up(heads: int, tails: int) -> float:
    """Probability that a fair coin falls at least as unevenly, in whole numbers until the last division."""
    thrown, fewer = heads + tails, min(heads, tails)
    if heads == tails:
        return 1.0
    ways = total = 1
    for number in range(fewer):
        ways = ways * (thrown - number) // (number + 1)
        total += ways
    return 2 * total / 2**thrown


def resampled_sums(differences: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Sums of as many questions as there are, drawn with replacement, once for each resample: shape (resamples,).

    Equal to drawing question by question, but values that many questions share are drawn by their number: most
    questions have a difference of 0. Memory does not grow with `resamples` beyond the result.

    :raises InputError: if there are no questions.
    """
    count = len(differences)
    if not count:
        raise InputError("no question to resample")
    values, numbers = np.unique(np.round(differences, _DECIMALS), return_counts=True)
    often = numbers >= _OFTEN
    rare = np.repeat(values[~often], numbers[~often])
    shares = np.append(numbers[often], len(rare)) / count
    sums = np.empty(resamples)
    block = max(1, _BLOCK_DRAWS // max(1, len(rare) + len(shares)))
    for begin in range(0, resamples, block):
        drawn = rng.multinomial(count, shares, size=min(block, resamples - begin))
        part = drawn[:, :-1] @ values[often]
        if len(rare):
            part = part + _grouped_sums(rare, drawn[:, -1], rng)
        sums[begin : begin + block] = part
    return sums


def check_settings(*, resamples: int, alpha: float, share: float = 1.0) -> None:
    """Refuse settings that no test can have.

    :raises InputError: if `resamples` is below 1, `alpha` not between 0 and 1, or `share` not above 0 and up to 1.
    """
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, expected 1 or more")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}, expected a number between 0 and 1")
    if not 0 < share <= 1:
        raise InputError(f"the sample's share is {share:g}, expected above 0 and up to 1")


def p_value_text(p_value: float) -> str:
    """A p-value as a person reads it; 0 is less than a float can hold."""
    if p_value == 0:
        return "< 1e-300"
    if p_value < 1e-4:
        return f"{p_value:.1e}"
    return f"{p_value:.4f}" if p_value < 0.1 else f"{p_value:.2f}"


def _grouped_sums(
    values: NDArray[np.float64], sizes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """For each size the sum of so many values, drawn with replacement."""
    kind = np.uint16 if len(values) <= 1 << 16 else np.int64
    drawn = values[rng.integers(0, len(values), int(sizes.sum()), dtype=kind)]
    # reduceat takes an empty group for one of the value at its place, which must exist.
    places = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(np.append(drawn, 0.0), places)
    return np.where(sizes > 0, sums, 0.0)


def _total(differences: NDArray[np.float64]) -> float:
    return float(np.round(differences, _DECIMALS).sum())
