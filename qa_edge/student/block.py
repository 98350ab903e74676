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
    """Depthwise separable convolution over tokens, in a residual."""

    def __init__(self, hidden: int, kernel: int, dropout: Dropout) -> None:
        super().__init__()
        self.norm, self.dropout = LayerNorm(hidden), dropout
        self.depthwise = nn.Parameter(torch.empty(hidden, kernel).normal_(std=kernel**-0.5))
        self.pointwise = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor) -> Tensor:
        """As `EncoderBlock.forward`."""
        if fused.pays(x, self):
            return fused.convolution(x, self.norm, self.dropout.mask(x), keep, self.depthwise, self.pointwise)
        normal = self.dropout(self.norm(x), keep)  # padding must be zero on the way into a convolution
        return x + F.relu(self.pointwise(DepthwiseConvolution.apply(normal, self.depthwise.to(x.dtype))))


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention with any number of heads, in a residual."""

    def __init__(self, hidden: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.dropout = LayerNorm(hidden), dropout
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor) -> Tensor:
        """As `EncoderBlock.forward`."""
        if self.heads == 1 and fused.pays(x, self):
            dense = (self.query, self.key, self.value, self.output)
            return fused.attention(x, self.norm, self.dropout.mask(x), bias, dense)
        return x + self.output(self._mixed(self.dropout(self.norm(x)), bias))

    def _mixed(self, x: Tensor, bias: Tensor) -> Tensor:
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
    """Two dense layers with a ReLU between them, in a residual."""

    def __init__(self, hidden: int, dropout: Dropout) -> None:
        super().__init__()
        self.norm, self.dropout = LayerNorm(hidden), dropout
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor) -> Tensor:
        """As `EncoderBlock.forward`."""
        if fused.pays(x, self):
            return fused.feedforward(x, self.norm, self.dropout.mask(x), self.inner, self.outer)
        return x + self.outer(F.relu(self.inner(self.dropout(self.norm(x)))))


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
        drop = Dropout(dropout, pool)
        self.convolutions = nn.ModuleList(Convolution(hidden, kernel, drop) for _ in range(convolutions))
        self.attention = SelfAttention(hidden, heads, drop)
        self.feedforward = FeedForward(hidden, drop)
        self.survival = survival

    @property
    def sublayers(self) -> int:
        """Residual layers in the block."""
        return len(self.convolutions) + 2

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor, *, first: int, sublayers: int) -> Tensor:
        """Run the block.

        :param x: shape (batch, tokens, hidden).
        :param keep: 1 for tokens, 0 for padding, shape (batch, tokens, 1).
        :param bias: attention's, 0 where a token may be looked at, very negative elsewhere, shape (batch, 1, tokens).
        :param first: number of this block's first sub-layer among the stack's `sublayers`, from 1.
        """
        for layer, sublayer in enumerate((*self.convolutions, self.attention, self.feedforward), first):
            if survives(self.training, layer, sublayers, self.survival):
                x = sublayer(x, keep, bias)
        return x
