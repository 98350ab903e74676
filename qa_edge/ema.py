"""Exponential moving average of the weights, the ones that are evaluated and shipped."""

from __future__ import annotations

from torch import Tensor

PAPER_CEILING = 0.9999


def decay_ceiling(total_steps: int) -> float:
    """Highest decay for a run: 0.9999 (QANet, section 4.1.2), lower for short runs.

    An average over 10,000 steps would still hold the first weights when a run of 3,000 ends; here it spans about a
    fifteenth of the run.
    """
    return min(PAPER_CEILING, max(0.0, 1 - 15 / max(total_steps, 15)))


def decay_at(step: int, ceiling: float) -> float:
    """Decay of the update after step number `step`, from 0: min(ceiling, (1 + step) / (10 + step))."""
    return min(ceiling, (1 + step) / (10 + step))


def update(average: Tensor, weights: Tensor, decay: float) -> None:
    """Move the average towards the weights, in place: average = decay * average + (1 - decay) * weights."""
    average.lerp_(weights, 1 - decay)
