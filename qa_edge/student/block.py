"""The encoder block: separable convolutions, self-attention, feed-forward, each in a residual (QANet, section 2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qa_edge.student import fused
from qa_edge.student.dropout import Dropout, DropoutPool, survives
from qa_edge.student.kernels import DepthwiseConvolution

LAYER_NORM_EPSILON = 1e-6


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis with the product's epsilon."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, eps=LAYER_NORM_EPSILON)


class Convolution(nn.Module):
    """Depthwise separable convolution over tokens; padding must be zero on the way in."""

    def __init__(self, hidden: int, kernel: int) -> None:
        super().__init__()
        self.norm = LayerNorm(hidden)
        self.depthwise = nn.Parameter(torch.empty(hidden, kernel).normal_(std=kernel**-0.5))
        self.pointwise = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, hidden) to the same, layer norm not included."""
        return F.relu(self.pointwise(DepthwiseConvolution.apply(x, self.depthwise.to(x.dtype))))


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention with any number of heads."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(hidden)
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Mix the tokens of each row.

        :param x: layer-normed, shape (batch, tokens, hidden).
        :param bias: 0 where a token may be looked at, very negative elsewhere, shape (batch, 1, tokens).
        """
        return self.output(self.mixed(x, bias))

    def mixed(self, x: Tensor, bias: Tensor) -> Tensor:
        """The same before the last layer."""
        batch, tokens, hidden = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)
        scale = (hidden // self.heads) ** -0.5
        if self.heads == 1:
            scores = torch.baddbmm(bias.to(query.dtype).expand(-1, tokens, -1), query, key.mT, alpha=scale)
            return torch.bmm(torch.softmax(scores, -1), value)
        split = (batch, tokens, self.heads, hidden // self.heads)
        query, key, value = (part.view(split).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype).unsqueeze(1))
        return mixed.transpose(1, 2).reshape(batch, tokens, hidden)


class FeedForward(nn.Module):
    """Two dense layers with a ReLU between them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = LayerNorm(hidden)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, hidden) to the same, layer norm not included."""
        return self.outer(F.relu(self.inner(x)))


class EncoderBlock(nn.Module):
    """Convolutions, self-attention and feed-forward, pre-norm, with dropout after each layer norm."""

    def __init__(
        self,
        *,
        hidden: int,
        heads: int,
        kernel: int,
        convolutions: int,
        dropout: float,
        survival: float,
        pool: DropoutPool,
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(hidden, kernel) for _ in range(convolutions))
        self.attention = SelfAttention(hidden, heads)
        self.feedforward = FeedForward(hidden)
        self.dropout = Dropout(dropout, pool)
        self.survival = survival

    @property
    def sublayers(self) -> int:
        """Residual layers in the block."""
        return len(self.convolutions) + 2

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor, *, first: int, sublayers: int) -> Tensor:
        """Run the block.

        :param x: shape (batch, tokens, hidden).
        :param keep: 1 for tokens, 0 for padding, shape (batch, tokens, 1).
        :param bias: attention bias, shape (batch, 1, tokens).
        :param first: number of this block's first sub-layer among the stack's `sublayers`, from 1.
        """
        if fused.pays(x):
            return self._fused(x, keep, bias, first, sublayers)
        layer = first
        for convolution in self.convolutions:
            assert isinstance(convolution, Convolution)
            if survives(self.training, layer, sublayers, self.survival):
                x = x + convolution(self.dropout(convolution.norm(x), keep))
            layer += 1
        if survives(self.training, layer, sublayers, self.survival):
            x = x + self.attention(self.dropout(self.attention.norm(x)), bias)
        if survives(self.training, layer + 1, sublayers, self.survival):
            x = x + self.feedforward(self.dropout(self.feedforward.norm(x)))
        return x

    def _fused(self, x: Tensor, keep: Tensor, bias: Tensor, first: int, sublayers: int) -> Tensor:
        """The same in fewer passes over memory."""
        layer, mask = first, self.dropout.mask
        for convolution in self.convolutions:
            assert isinstance(convolution, Convolution)
            if survives(self.training, layer, sublayers, self.survival):
                y, x = fused.norm(x, convolution.norm, mask(x), keep)
                mixed = fused.depthwise(y, convolution.depthwise)
                x = fused.residual(x, mixed, convolution.pointwise, relu=True)
            layer += 1
        if survives(self.training, layer, sublayers, self.survival):
            y, x = fused.norm(x, self.attention.norm, mask(x))
            x = fused.residual(x, self.attention.mixed(y, bias), self.attention.output)
        if survives(self.training, layer + 1, sublayers, self.survival):
            y, x = fused.norm(x, self.feedforward.norm, mask(x))
            x = fused.residual(x, F.relu(self.feedforward.inner(y)), self.feedforward.outer)
        return x
