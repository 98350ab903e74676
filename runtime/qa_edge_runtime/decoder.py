"""From a logit per token to the best answer spans: the one decoder of training, export and runtime."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qa_edge_runtime.errors import InputError

# Spans weighed at a time, 8 MB of float64: a context of any length and any span limit decode in bounded memory.
_BLOCK_SPANS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Span:
    """An answer as tokens `start` to `end`, both inclusive: here, and nowhere else, a range includes its end.

    :param logit: start logit plus end logit.
    :param probability: softmax of the logit over all valid spans of the context.
    """

    start: int
    end: int
    logit: float
    probability: float


def decode_spans(
    start_logits: npt.ArrayLike, end_logits: npt.ArrayLike, *, max_tokens: int = 30, top_k: int = 1
) -> list[Span]:
    """Best spans by start plus end logit (QANet, section 3.1), best first; they may overlap.

    A span is valid if it ends where it starts or later and has at most `max_tokens` tokens. Of equal spans the one
    that starts first comes first, then the one that ends first. Everything is computed in float64.

    :param start_logits: shape (context_tokens,).
    :param end_logits: same shape.
    :param top_k: spans wanted; fewer come back if the context has fewer.
    :raises InputError: if the logits are empty, not finite, of other shapes, or a limit is below one.
    """
    start, end = _checked(start_logits, end_logits, max_tokens, top_k)
    width = min(max_tokens, len(start))
    indices = np.empty(0, dtype=np.int64)
    logits = np.empty(0)
    for first, block in _blocks(start, end, max_tokens):
        kept = _first_best(block.ravel(), top_k)
        indices = np.concatenate([indices, kept + first * width])
        logits = np.concatenate([logits, block.ravel()[kept]])
    # Index order is order of start, then of end, so a stable sort settles ties as promised.
    order = np.argsort(-logits, kind="stable")[:top_k]
    softmax = span_softmax(start, end, max_tokens=max_tokens)
    spans = []
    for position in order:
        span_start, extra_tokens = divmod(int(indices[position]), width)
        if logits[position] > -np.inf:
            spans.append(
                Span(
                    start=span_start,
                    end=span_start + extra_tokens,
                    logit=float(logits[position]),
                    probability=softmax.probability(logits[position]),
                )
            )
    return spans


def distinct_spans(
    start_logits: npt.ArrayLike,
    end_logits: npt.ArrayLike,
    *,
    max_tokens: int = 30,
    top_k: int = 1,
    runs: Sequence[tuple[int, int]] | None = None,
) -> list[Span]:
    """Best spans of which no two share a token, best first; otherwise as `decode_spans`.

    :param start_logits: minus infinity where no span may start; no other span is valid then.
    :param end_logits: the same of ends.
    :param runs: half-open ranges of tokens within one of which a span must lie; all tokens are one if None.
    :raises InputError: as `decode_spans`.
    """
    start, end = _checked(start_logits, end_logits, max_tokens, top_k, never=True)
    softmax = span_softmax(start, end, max_tokens=max_tokens, runs=runs)
    # Best span of each stretch of tokens that no span has taken yet; taking one leaves a stretch on either side.
    best: list[tuple[float, int, int, int, int]] = []

    def search(first: int, last: int) -> None:
        if first < last:
            logit, at, to = _best(start[first:last], end[first:last], max_tokens)
            if logit > -np.inf:
                heapq.heappush(best, (-logit, first + at, first + to, first, last))

    for first, last in [(0, len(start))] if runs is None else runs:
        search(first, last)
    spans: list[Span] = []
    while best and len(spans) < top_k:
        negative, at, to, first, last = heapq.heappop(best)
        spans.append(Span(start=at, end=to, logit=-negative, probability=softmax.probability(-negative)))
        if len(spans) < top_k:
            search(first, at)
            search(to + 1, last)
    return spans


class SpanSoftmax(NamedTuple):
    """What a softmax over all valid spans divides by: e^peak * total, kept apart so that no size of logit loses it."""

    peak: float
    total: float

    def probability(self, logit: float) -> float:
        """Share of a span with this logit, 0 to 1."""
        return float(np.exp(logit - self.peak) / self.total)


def span_softmax(
    start_logits: npt.NDArray[np.float64],
    end_logits: npt.NDArray[np.float64],
    *,
    max_tokens: int = 30,
    runs: Sequence[tuple[int, int]] | None = None,
) -> SpanSoftmax:
    """Sum e^(start + end logit) over all valid spans.

    :param start_logits: float64, shape (context_tokens,); minus infinity where no span may start.
    :param end_logits: the same of ends.
    :param runs: half-open ranges of tokens within one of which a span must lie; all tokens are one if None.
    """
    peak, total = -np.inf, 0.0
    for first, last in [(0, len(start_logits))] if runs is None else runs:
        for _, block in _blocks(start_logits[first:last], end_logits[first:last], max_tokens):
            highest = block.max()
            if highest > peak:
                total *= np.exp(peak - highest)
                peak = highest
            if peak > -np.inf:
                total += float(np.exp(block - peak).sum())
    return SpanSoftmax(float(peak), total)


def _best(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], max_tokens: int) -> tuple[float, int, int]:
    """Logit and tokens of the best span; of equal ones the first."""
    found = (-np.inf, 0, 0)
    for first, block in _blocks(start, end, max_tokens):
        at, extra = divmod(int(block.argmax()), block.shape[1])
        if block[at, extra] > found[0]:
            found = (float(block[at, extra]), first + at, first + at + extra)
    return found


def _blocks(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], max_tokens: int
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Logits of all spans, by blocks: number of the first start, and an array of a row a start, ends ascending."""
    width = min(max_tokens, len(start))
    # Behind the last token lie ends that never win: row i of `ends` holds the end logits i to i + width - 1.
    ends = np.lib.stride_tricks.sliding_window_view(np.concatenate([end, np.full(width - 1, -np.inf)]), width)
    rows = max(1, _BLOCK_SPANS // width)
    for first in range(0, len(start), rows):
        yield first, start[first : first + rows, None] + ends[first : first + rows]


def _first_best(values: np.ndarray, count: int) -> np.ndarray:
    """Indices, ascending, of the `count` largest values; among equals the first ones."""
    if count == 1:
        return np.argmax(values, keepdims=True)
    if count >= len(values):
        return np.arange(len(values))
    threshold = np.partition(values, -count)[-count]
    above = np.flatnonzero(values > threshold)
    level = np.flatnonzero(values == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, level]))


def _checked(
    start_logits: npt.ArrayLike, end_logits: npt.ArrayLike, max_tokens: int, top_k: int, *, never: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    start, end = np.asarray(start_logits, dtype=np.float64), np.asarray(end_logits, dtype=np.float64)
    if start.ndim != 1 or start.shape != end.shape:
        raise InputError(f"start logits of shape {start.shape} and end logits of {end.shape}: expected one per token")
    if not len(start):
        raise InputError("no logits: expected one per context token; pass a context that is not empty")
    if not all((np.isfinite(logits) | (never & (logits == -np.inf))).all() for logits in (start, end)):
        raise InputError("logits hold NaN or infinity: expected finite numbers; check the model's weights")
    if max_tokens < 1 or top_k < 1:
        raise InputError(f"max_tokens {max_tokens} and top_k {top_k}: expected at least 1 of each")
    return start, end
