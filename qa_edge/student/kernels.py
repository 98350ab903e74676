"""Forms of two layers whose stock gradients are slow on a CPU; values and gradients are those of the stock layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which autocast would multiply matrices on x's device; x's own without autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class DepthwiseConvolution(torch.autograd.Function):
    """Depthwise convolution over tokens with zero "same" padding, in channels-last layout.

    The stock gradient of a depthwise convolution in bfloat16 takes thirty times its forward pass. The gradient of the
    input is itself a depthwise convolution with the kernel turned round, that of the kernel k sums of products.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        """Shapes (batch, tokens, hidden) and (hidden, k), k odd, to (batch, tokens, hidden); same dtype."""
        ctx.save_for_backward(x, kernel)
        return _depthwise(x, kernel)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the kernel."""
        (gradient,) = gradients
        x, kernel = ctx.saved_tensors
        size = kernel.shape[1]
        reach, tokens = size // 2, x.shape[1]
        columns = []
        for offset in range(-reach, reach + 1):
            # Output t reads input t + offset.
            first, last = max(0, -offset), max(tokens - max(0, offset), 0, -offset)
            product = (gradient[:, first:last] * x[:, first + offset : last + offset]).flatten(0, 1)
            columns.append(product.sum(0))
        return _depthwise(gradient, kernel.flip(1)), torch.stack(columns, 1)


def _depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    # (batch, tokens, hidden) seen as a channels-last image of height 1: no transposed copy is made.
    image = x.contiguous().unsqueeze(1).permute(0, 3, 1, 2)
    size = kernel.shape[1]
    mixed = F.conv2d(image, kernel[:, None, None], padding=(0, size // 2), groups=x.shape[-1])
    return mixed.permute(0, 2, 3, 1).squeeze(1)


class CharacterWindows(torch.autograd.Function):
    """All windows of k adjacent characters of each word, as slices of the flattened word."""

    @staticmethod
    def forward(ctx: Any, letters: Tensor, size: int) -> Tensor:
        """Shape (words, characters, width) to (words, characters - size + 1, size * width)."""
        ctx.size, ctx.shape = size, letters.shape
        width = letters.shape[2]
        return letters.flatten(1).unfold(1, size * width, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Each character gathers from the `size` windows that hold it."""
        (gradient,) = gradients
        width, windows = ctx.shape[2], gradient.shape[1]
        result = gradient.new_zeros(ctx.shape)
        for place in range(ctx.size):
            result[:, place : place + windows] += gradient[:, :, place * width : (place + 1) * width]
        return result, None
