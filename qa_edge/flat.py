"""All weights of a model in one tensor: one optimiser update, one norm, one average and one reduction a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """Views of every parameter into one flat tensor, and of every gradient into another.

    A student has 150 small tensors; handling them one by one costs more than the arithmetic.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.named = [named for model in models for named in model.named_parameters()]
        self.parameter = nn.Parameter(torch.cat([p.detach().flatten() for _, p in self.named]))
        self.parameter.grad = torch.zeros_like(self.parameter)
        place = 0
        for _, parameter in self.named:
            here = slice(place, place + parameter.numel())
            parameter.data = self.parameter.data[here].view(parameter.shape)
            parameter.grad = self.parameter.grad[here].view(parameter.shape)
            place += parameter.numel()

    @property
    def weights(self) -> Tensor:
        """The weights, without a graph, shape (weights,)."""
        return self.parameter.data

    @property
    def gradient(self) -> Tensor:
        """The gradients, the same shape."""
        assert self.parameter.grad is not None
        return self.parameter.grad

    def named_arrays(self, weights: Tensor) -> dict[str, Tensor]:
        """Cut a flat tensor into named tensors of the parameters' shapes."""
        parts = weights.split([parameter.numel() for _, parameter in self.named])
        return {name: part.view(parameter.shape) for (name, parameter), part in zip(self.named, parts, strict=True)}
