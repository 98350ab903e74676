"""Learning rate over the steps of a run."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine")


def learning_rate(step: int, *, peak: float, warmup: int, total: int, schedule: str) -> float:
    """Rate of step number `step`, counted from 0.

    It grows as peak * log(step + 1) / log(warmup) (QANet, section 4.1.2: inverse exponential), then stays
    (`constant`, the paper's) or falls to a hundredth of the peak at the last step (`cosine`).

    :param peak: highest rate.
    :param warmup: steps until the peak; 0 or 1 starts there.
    :param total: steps of the whole run.
    """
    if warmup > 1 and step < warmup:
        return peak * min(1.0, math.log(step + 1) / math.log(warmup))
    if schedule == "constant":
        return peak
    done = min(1.0, max(0.0, (step - warmup) / max(total - warmup, 1)))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
