"""How much two models disagree about an answer: query by committee for span answers, a committee of two.

The paper asks a model how sure it is of itself. A student has a teacher beside it: where both are sure of different
places, the student's own certainty says nothing, and the disagreement says that one of them has something to learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qa_edge.active.readers import PlacedLogits
from qa_edge.align import Alignment, align, align_logits
from qa_edge_runtime.errors import InputError


def disagreements(
    model: Sequence[PlacedLogits], teacher: Sequence[PlacedLogits], contexts: Sequence[str]
) -> NDArray[np.float64]:
    """Jensen-Shannon divergence of two models' start distributions, and of their end distributions, the mean of both.

    The models may cut a text in different tokens. Each token of the first takes the logit of the second's piece that it
    starts (or ends) with, as in distillation by the alignment `offset`; tokens that have none are left out on both
    sides, and what is left is a distribution again.

    :returns: in nats, 0 (the same) to log 2 (nothing in common), float64, shape (questions,); 0 where the two have no
        token in common.
    :raises InputError: if the three are of different lengths.
    """
    if not len(model) == len(teacher) == len(contexts):
        raise InputError(f"{len(model)} and {len(teacher)} logits of {len(contexts)} contexts: expected one each")
    found = np.zeros(len(contexts))
    known: tuple[str, Alignment] | None = None
    for row, (one, other, context) in enumerate(zip(model, teacher, contexts, strict=True)):
        # Questions about one context come one after the other.
        if known is None or known[0] != context:
            known = context, align("offset", context, one.first, one.behind, other.first, other.behind)
        start, end, mask = align_logits(known[1], other.start, other.end)
        if mask.any():
            found[row] = (divergence(one.start[mask], start[mask]) + divergence(one.end[mask], end[mask])) / 2
    return found


def divergence(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Jensen-Shannon divergence of the softmax of two lists of logits, nats, 0 to log 2 (Lin, 1991)."""
    p, q = _softmax(one), _softmax(other)
    middle = (p + q) / 2
    # Rounding may leave some -1e-17 of two that are the same.
    return max(0.0, _entropy(middle) - (_entropy(p) + _entropy(q)) / 2)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _entropy(shares: NDArray[np.float64]) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
