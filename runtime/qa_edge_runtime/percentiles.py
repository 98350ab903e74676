"""Percentiles of latency, and how far they would move if other questions had been asked at another moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_runtime.latency_samples import STAGES, LatencySamples

POINTS = (50, 90, 99)
CONFIDENCE = 95
_RESAMPLES = 1000
_FEWEST_RESAMPLES = 200
# Weights drawn in all, and at a time: what a small board does in seconds, and holds in a few MB.
_WEIGHTS = 10_000_000
_WEIGHTS_AT_A_TIME = 250_000
# Upper ends of the bins of context tokens: 400 is what one window holds, longer texts are read in several.
_BIN_ENDS = (64, 128, 192, 256, 400)


@dataclass(frozen=True, kw_only=True)
class StageLatency:
    """Percentiles of a stage over all queries, each with its interval of 95 %, and its share of all stages' time."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p50_interval_ms: tuple[float, float]
    p90_interval_ms: tuple[float, float]
    p99_interval_ms: tuple[float, float]
    share: float


@dataclass(frozen=True, kw_only=True)
class LengthBin:
    """Whole queries on contexts of `from_tokens` to `to_tokens` tokens, both included."""

    from_tokens: int
    to_tokens: int
    queries: int
    p50_ms: float
    p90_ms: float


class Bootstrap:
    """Percentiles of resampled queries: questions are drawn with replacement, and so are passes.

    The times of one question resemble each other, and so do those of one pass; queries drawn one by one would make
    every interval too narrow. Each query counts as often as its question was drawn times its pass (Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). All calls see the same draws, so that percentiles of
    two series of the same queries can be divided.

    :param pass_number: of each query, and `question` too, shape (queries,).
    """

    def __init__(self, pass_number: np.ndarray, question: np.ndarray, *, seed: int = 0) -> None:
        self._seed = seed
        passes, self._pass = np.unique(pass_number, return_inverse=True)
        questions, self._question = np.unique(question, return_inverse=True)
        self._passes, self._questions = len(passes), len(questions)
        self.resamples = int(np.clip(_WEIGHTS // len(question), _FEWEST_RESAMPLES, _RESAMPLES))

    def percentiles(self, values: np.ndarray, points: Sequence[float]) -> np.ndarray:
        """Percentiles of every resample, shape (resamples, points): the smallest value that reaches the share.

        :param values: shape (queries,), in the order of the queries.
        """
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        found = []
        for weights in self._weights():
            reached = np.cumsum(weights[:, order], axis=1)
            whole = reached[:, -1:]
            places = [(reached < whole * (point / 100)).sum(axis=1) for point in points]
            # None of a resample's questions in any of its passes: with gaps in the design it may happen, then it says
            # nothing.
            found.append(ordered[np.minimum(np.stack(places, axis=1), len(ordered) - 1)][whole[:, 0] > 0])
        return np.concatenate(found)

    def _weights(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng(self._seed)
        rows = max(1, _WEIGHTS_AT_A_TIME // len(self._question))
        for begin in range(0, self.resamples, rows):
            size = min(rows, self.resamples - begin)
            questions = random.multinomial(self._questions, np.full(self._questions, 1 / self._questions), size=size)
            passes = random.multinomial(self._passes, np.full(self._passes, 1 / self._passes), size=size)
            yield questions[:, self._question] * passes[:, self._pass]


def interval(resampled: np.ndarray, estimate: float) -> tuple[float, float]:
    """The middle 95 % of resampled values, widened to hold the estimate itself."""
    outside = (100 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, (outside, 100 - outside))
    return min(float(low), estimate), max(float(high), estimate)


def summarise_stages(samples: LatencySamples) -> dict[str, StageLatency]:
    """Percentiles (linear between neighbours) and share of each stage, `total` last.

    :param samples: of one query at least.
    """
    bootstrap = Bootstrap(samples.pass_number, samples.question)
    whole = float(samples.total_ms.sum()) or 1.0
    summary = {}
    for stage in STAGES:
        times = samples.stage_ms(stage)
        resampled = bootstrap.percentiles(times, POINTS)
        figures = [float(value) for value in np.percentile(times, POINTS)]
        values = {f"p{point}_ms": value for point, value in zip(POINTS, figures, strict=True)}
        intervals = {
            f"p{point}_interval_ms": interval(resampled[:, column], figures[column])
            for column, point in enumerate(POINTS)
        }
        summary[stage] = StageLatency(**values, **intervals, share=float(times.sum()) / whole)  # type: ignore[arg-type]
    return summary


def by_length(samples: LatencySamples) -> tuple[LengthBin, ...]:
    """Whole queries by the length of their context; bins without a query are left out.

    The bins are the same in every report: up to 400 tokens, which is one window, then each twice as long as the last.
    """
    ends = list(_BIN_ENDS)
    while ends[-1] < samples.context_tokens.max():
        ends.append(2 * ends[-1])
    bins, begin = [], 1
    for end in ends:
        times = samples.total_ms[(samples.context_tokens >= begin) & (samples.context_tokens <= end)]
        if len(times):
            p50, p90 = (float(value) for value in np.percentile(times, (50, 90)))
            bins.append(LengthBin(from_tokens=begin, to_tokens=end, queries=len(times), p50_ms=p50, p90_ms=p90))
        begin = end + 1
    return tuple(bins)


def pass_medians(values: np.ndarray, pass_number: np.ndarray) -> tuple[float, ...]:
    """The median of every pass, in their order."""
    return tuple(float(np.median(values[pass_number == number])) for number in np.unique(pass_number))
