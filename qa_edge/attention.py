"""Attention of transformers that are fine-tuned on a CPU in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "qa_edge_matmul"


def matmul_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as two matrix products and a softmax, in the form that transformers' `AttentionInterface` asks for.

    PyTorch's fused attention has a slow backward pass on a CPU in bfloat16 (2.13, AMX, both ways: 60 against 25 ms for
    16 windows of 160 pieces and 12 heads, 55 against 42 for 8 of 320; an update of MiniLM takes a seventh less time).
    Whatever is not plain attention in bfloat16 under a mask of booleans goes to the fused one.

    :param query: shape (batch, heads, pieces, head size); `key` and `value` likewise.
    :param attention_mask: True where a piece is seen, shape (batch, 1, pieces, pieces).
    :return: shape (batch, pieces, heads, head size), and no weights.
    """
    causal = others.get("is_causal")
    masked = (
        not (getattr(module, "is_causal", True) if causal is None else causal)  # as transformers asks
        if attention_mask is None
        else attention_mask.dtype is torch.bool
    )
    plain = query.dtype is torch.bfloat16 and key.shape == query.shape and others.get("position_bias") is None
    if not (plain and masked):
        from transformers import AttentionInterface

        fused = AttentionInterface()["sdpa"]
        output: tuple[Tensor, None] = fused(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return output
    scores = torch.matmul(query * (scaling or 1 / math.sqrt(query.shape[-1])), key.transpose(2, 3))
    if attention_mask is not None:
        # Outside the graph: the softmax passes no gradient to what it makes 0.
        scores.detach().masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.dropout(F.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


@contextmanager
def fast_attention(model: PreTrainedModel, *, device: torch.device, precision: str) -> Iterator[None]:
    """Have a model that uses PyTorch's fused attention use `matmul_attention` meanwhile, where that is faster."""
    config = model.config
    if device.type != "cpu" or precision != "bf16" or config._attn_implementation != "sdpa":
        yield
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, matmul_attention)
    AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")
