"""The student's logits resampled to the teacher's positions where they are: on an accelerator, a whole batch at once.

What `interpolate` makes as one matrix a question in numpy, which costs a CPU core a quarter of a millisecond each, is
here two products of tensors that stay on the device: second derivatives from the values by a table for all lengths,
then four neighbours' shares at each position. The results are the same but for rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qa_edge.interpolate import curvature
from qa_edge.loss_settings import INTERPOLATIONS
from qa_edge_runtime.errors import InputError

# The table has this cubed numbers: 0.5 GB of float32.
LONGEST = 512


class Splines:
    """Interpolates rows of any lengths, as `interpolate.interpolate` does.

    :param longest: the most student positions that a row can have.
    :param kind: `linear` or `cubic`.
    :raises InputError: if the kind is unknown, or the table would be too large.
    """

    def __init__(self, longest: int, kind: str, device: torch.device | str = "cpu") -> None:
        if kind not in INTERPOLATIONS:
            raise InputError(f"interpolation kind {kind!r} is unknown: choose one of {', '.join(INTERPOLATIONS)}")
        if not 1 <= longest <= LONGEST:
            raise InputError(f"{longest} positions, expected 1 to {LONGEST}")
        self.longest = longest
        self.table: Tensor | None = None
        if kind == "cubic":
            table = np.zeros((longest + 1, longest, longest), np.float32)
            for n in range(4, longest + 1):  # with fewer points cubic is linear
                table[n, :n, :n] = curvature(n)
            self.table = torch.from_numpy(table).to(device)

    def __call__(self, logits: Tensor, student_lengths: Tensor, teacher_lengths: Tensor, width: int) -> Tensor:
        """Resample a padded batch.

        :param logits: start and end logits, float, shape (batch, 2, context_tokens); what stands beyond a row's length
            has no influence.
        :param student_lengths: context tokens of each row, at least 1, int64, shape (batch,).
        :param teacher_lengths: pieces of each row, the same; 0 where it has none.
        :param width: positions of the result, at least the most of the teacher's.
        :return: float32, shape (batch, 2, width), zeros beyond a row's length; differentiable with respect to `logits`.
        """
        device, tokens = logits.device, min(logits.shape[2], self.longest)  # what is beyond is padding
        n, m = student_lengths[:, None], teacher_lengths[:, None]
        values = logits[:, :, :tokens].float().masked_fill((torch.arange(tokens, device=device) >= n)[:, None], 0.0)
        places, steps = torch.arange(width, device=device), (m - 1).clamp(min=1)
        # Position p is p (n - 1) / (m - 1): whole numbers, so that float32 is exact enough for the rest. Those of the
        # padding are held where the last one is.
        reached = torch.minimum(places, steps) * (n - 1)
        left = torch.minimum(reached // steps, n - 2).clamp(min=0)
        near = torch.stack([left, torch.minimum(left + 1, n - 1)], 1)
        weight = (reached - left * steps) / steps
        shares = torch.stack([1 - weight, weight], 1)
        result = (_at(values, near) * shares[:, None]).sum(2)
        if self.table is not None:
            bend = torch.bmm(values, self.table[:, :tokens, :tokens][student_lengths].mT)
            # On [left, left + 1] the spline is the line between the values plus these shares of its second derivatives.
            result = result + (_at(bend, near) * ((shares**3 - shares) / 6)[:, None]).sum(2)
        return result.masked_fill((places >= m)[:, None], 0.0)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values of both ends at places (batch, 2, width), shape (batch, 2 ends, 2 neighbours, width)."""
    batch, neighbours, width = places.shape
    index = places.flatten(1)[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, index).view(batch, values.shape[1], neighbours, width)
