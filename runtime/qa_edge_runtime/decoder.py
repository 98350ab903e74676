"""From a logit per token to the best answer spans: the one decoder of training, export and runtime."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Best spans by start plus end logit (QANet, section 3.1), best first.

    A span is valid if it ends where it starts or later and has at most `max_tokens` tokens. Of equal spans the one
    that starts first comes first, then the one that ends first. Everything is computed in float64.

    :param start_logits: shape (context_tokens,).
    :param end_logits: same shape.
    :param top_k: spans wanted; fewer come back if the context has fewer.
    :raises InputError: if the logits are empty, not finite, of other shapes, or a limit is below one.
    """
    start = np.asarray(start_logits, dtype=np.float64)
    end = np.asarray(end_logits, dtype=np.float64)
    _check(start, end, max_tokens, top_k)
    tokens = len(start)
    width = min(max_tokens, tokens)
    # Behind the last token lie ends that never win: row i of `ends` holds the end logits i to i + width - 1.
    ends = np.lib.stride_tricks.sliding_window_view(np.concatenate([end, np.full(width - 1, -np.inf)]), width)
    rows = max(1, _BLOCK_SPANS // width)

    indices = np.empty(0, dtype=np.int64)
    logits = np.empty(0)
    # The softmax's denominator is total * exp(peak): kept apart, so that no size of logit loses it.
    peak, total = -np.inf, 0.0
    for first in range(0, tokens, rows):
        block = (start[first : first + rows, None] + ends[first : first + rows]).ravel()
        kept = _first_best(block, top_k)
        indices = np.concatenate([indices, kept + first * width])
        logits = np.concatenate([logits, block[kept]])
        previous, peak = peak, np.maximum(peak, block.max())
        total = total * np.exp(previous - peak) + np.exp(block - peak).sum()

    # Index order is order of start, then of end, so a stable sort settles ties as promised.
    order = np.argsort(-logits, kind="stable")[:top_k]
    probabilities = np.exp(logits - peak) / total
    spans = []
    for position in order:
        span_start, extra_tokens = divmod(int(indices[position]), width)
        if logits[position] > -np.inf:
            spans.append(
                Span(
                    start=span_start,
                    end=span_start + extra_tokens,
                    logit=float(logits[position]),
                    probability=float(probabilities[position]),
                )
            )
    return spans


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


def _check(start: np.ndarray, end: np.ndarray, max_tokens: int, top_k: int) -> None:
    if start.ndim != 1 or start.shape != end.shape:
        raise InputError(f"start logits of shape {start.shape} and end logits of {end.shape}: expected one per token")
    if not len(start):
        raise InputError("no logits: expected one per context token; pass a context that is not empty")
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise InputError("logits hold NaN or infinity: expected finite numbers; check the model's weights")
    if max_tokens < 1 or top_k < 1:
        raise InputError(f"max_tokens {max_tokens} and top_k {top_k}: expected at least 1 of each")
