"""Dropout and stochastic depth that cost little on a CPU and can be resumed exactly."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOL_ELEMENTS = 1 << 23
POOL_STEPS = 64
ALIGNMENT = 16


class DropoutPool:
    """Ready-made dropout masks, from which each call takes a slice at a random place.

    Drawing a random number an element costs more on a CPU than the layer it is applied to (F.dropout takes ten times
    the multiply). The pool is drawn anew every 64 steps from (seed, step), so a resumed run finds the same masks.
    Accelerators draw their own quickly and use F.dropout.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._epoch = 0
        self._pools: dict[tuple[float, torch.dtype, int], Tensor] = {}

    def start_step(self, step: int) -> None:
        """Tell the pool which step begins; masks change every 64 of them."""
        if step // POOL_STEPS != self._epoch:
            self._epoch = step // POOL_STEPS
            self._pools.clear()

    def mask(self, shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
        """A mask of zeros and 1 / (1 - rate), whose place in the pool comes from torch's own generator."""
        count = shape.numel()
        # The size follows from this call alone: a pool that had grown for an earlier one would place its masks
        # elsewhere than that of a resumed run.
        size = POOL_ELEMENTS
        while size < 2 * count:
            size *= 2
        pool = self._pools.get((rate, dtype, size))
        if pool is None:
            share = round(rate * 256)
            # torch's generator for the CPU reads 32 bits of its seed, so the parts are mixed, not shifted.
            mixed = np.random.SeedSequence([self.seed, self._epoch, share]).generate_state(1)
            generator = torch.Generator().manual_seed(int(mixed[0]))
            noise = torch.empty(size // 8, dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
            pool = (noise.view(torch.uint8) >= share).to(dtype).div_(1 - share / 256)
            self._pools[rate, dtype, size] = pool
        place = int(torch.randint((pool.numel() - count) // ALIGNMENT + 1, ())) * ALIGNMENT
        return pool[place : place + count].view(shape)


class Dropout(nn.Dropout):
    """Dropout in training, identity otherwise; on a CPU from the shared pool.

    :param p: share of elements set to zero, rounded to 1/256 on a CPU.
    """

    def __init__(self, p: float, pool: DropoutPool) -> None:
        super().__init__(p)
        self.pool = pool

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Drop elements of `x`, and all where `keep` is 0.

        :param x: any float tensor.
        :param keep: factor that broadcasts to x, such as a padding mask; no gradient flows into it.
        """
        if x.device.type != "cpu":
            dropped = F.dropout(x, self.p, self.training)
            return dropped if keep is None else dropped * keep
        mask = self.mask(x)
        if mask is None:
            return x if keep is None else x * keep
        return x * (mask if keep is None else mask * keep)

    def mask(self, x: Tensor) -> Tensor | None:
        """What x is multiplied by on a CPU; None where nothing is dropped."""
        return self.pool.mask(x.shape, self.p, x.dtype) if self.training and self.p else None


def survives(training: bool, layer: int, layers: int, survival: float) -> bool:
    """Whether a sub-layer takes part in this step (stochastic depth; QANet, section 3: 1 - l / L (1 - p_L)).

    Decided for the whole batch: a layer that does not take part is not computed. Its output is not rescaled.
    """
    if not training or survival == 1:
        return True
    return float(torch.rand(())) >= layer / layers * (1 - survival)
