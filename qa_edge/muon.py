"""Muon (Jordan et al., 2024) for the student's matrices, Adam for the rest, on one flat tensor of weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from qa_edge.flat import FlatParameters

MOMENTUM = 0.95
# Five steps of a quintic iteration bring every singular value near 1 (Jordan et al., 2024).
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# A step has this size in the root mean square of its numbers, times the rate. Liu et al. (2025) take 0.2, about Adam's:
# by that a student learned more slowly than by Adam, by this faster (docs/experiments/004).
SIZE = 0.8
# Look-up tables and the rows that make logits are no maps between features.
NOT_MAPS = ("token.characters", "start.weight", "end.weight")


class Muon(torch.optim.Adam):
    """A step of a matrix is its averaged gradient with all singular values made 1; vectors and tables go as in Adam.

    `torch.optim.Muon` goes matrix by matrix, which takes longer than the arithmetic where there are 70 small ones:
    here matrices of one shape go together. Weight decay applies to Adam's part alone.
    """

    def __init__(self, flat: FlatParameters, **adam: Any) -> None:
        super().__init__([flat.parameter], **adam)
        self.flat = flat
        self.places: defaultdict[tuple[int, int], list[slice]] = defaultdict(list)
        begin = 0
        for name, parameter in flat.named:
            # Depthwise filters are rows of numbers, one a channel: their shape alone looks like a matrix.
            if parameter.ndim == 2 and name not in NOT_MAPS and not name.endswith("depthwise"):
                rows, columns = parameter.shape
                self.places[rows, columns].append(slice(begin, begin + parameter.numel()))
            begin += parameter.numel()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; the rate is that of the first group."""
        assert closure is None
        weights, gradient = self.flat.weights, self.flat.gradient
        kept = {shape: _together(weights, places) for shape, places in self.places.items()}
        super().step()
        state = self.state[self.flat.parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weights)
        rate = self.param_groups[0]["lr"]
        for shape, places in self.places.items():
            new = _together(gradient, places)
            average = _together(state["momentum"], places).lerp_(new, 1 - MOMENTUM)
            _apart(average, state["momentum"], places)
            step = orthogonalise(new.lerp(average, MOMENTUM).view(-1, *shape))
            _apart(kept[shape] - rate * SIZE * max(shape) ** 0.5 * step.flatten(), weights, places)


def _together(values: Tensor, places: list[slice]) -> Tensor:
    return torch.cat([values[place] for place in places])


def _apart(values: Tensor, into: Tensor, places: list[slice]) -> None:
    for place, part in zip(places, values.view(len(places), -1), strict=True):
        into[place] = part


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with all singular values 1, nearly: Newton and Schulz's iteration, in bfloat16.

    :param matrices: shape (matrices, rows, columns).
    :returns: the same shape, float32.
    """
    first, third, fifth = COEFFICIENTS
    x = matrices.bfloat16()
    wide = x.shape[1] > x.shape[2]
    if wide:
        x = x.mT
    x = x / matrices.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None].bfloat16()
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=third, alpha=fifth), x, beta=first)
    return (x.mT if wide else x).float()
