"""Words' states as a bundle's table will hold them, so that training meets the rounding that the device does."""

from __future__ import annotations

import torch
from torch import Tensor

from qa_edge_export.token_table import INT4_GROUP


def round_to_int4(states: Tensor) -> Tensor:
    """Round states as a table of 4 bits does (`qa_edge_runtime.table.quantise_rows`); gradients go through as if not.

    :param states: float, shape (tokens, hidden), hidden a multiple of `INT4_GROUP`.
    :returns: the same shape.
    """
    grouped = states.detach().unflatten(-1, (-1, INT4_GROUP))
    highest, lowest = grouped.amax(-1, keepdim=True).clamp(min=0), (-grouped.amin(-1, keepdim=True)).clamp(min=0)
    # 4-bit numbers reach from -8 to 7: the sign of the scale puts the longer side at -8.
    steps = torch.maximum(torch.maximum(highest, lowest) / 8, torch.minimum(highest, lowest) / 7)
    steps = torch.where(highest > lowest, -steps, steps).half().to(grouped.dtype)
    safe = torch.where(steps == 0, torch.ones_like(steps), steps)
    rounded = (grouped / safe).round().clamp(-8, 7) * steps
    return states + (rounded.flatten(-2) - states.detach())
