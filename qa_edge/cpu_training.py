"""Attention and dropout of transformers that are fine-tuned on a CPU, where PyTorch's own cost more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qa_edge.student.dropout import Dropout, DropoutPool

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "qa_edge_matmul"


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    pool: DropoutPool,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as two matrix products and a softmax, in the form that transformers' `AttentionInterface` asks for.

    PyTorch's fused attention has a slow backward pass on a CPU in bfloat16 (2.13, AMX, both ways: 60 against 25 ms for
    16 windows of 160 pieces and 12 heads, 55 against 42 for 8 of 320), and with dropout none of its fast forms is left.
    What is not plain attention under a mask of booleans goes to the fused one, and so does float32 without dropout.

    :param query: shape (batch, heads, pieces, head size); `key` and `value` likewise.
    :param attention_mask: True where a piece is seen, shape (batch, 1, pieces, pieces).
    :param pool: dropout masks.
    :return: shape (batch, pieces, heads, head size), and no weights.
    """
    causal = others.get("is_causal")
    masked = (
        not (getattr(module, "is_causal", True) if causal is None else causal)  # as transformers asks
        if attention_mask is None
        else attention_mask.dtype is torch.bool
    )
    pays = query.dtype is torch.bfloat16 or dropout > 0
    if not (pays and masked and key.shape == query.shape and others.get("position_bias") is None):
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
    weights = F.softmax(scores, dim=-1)
    if dropout > 0:
        weights = weights * pool.mask(weights.shape, dropout, weights.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


@contextmanager
def trained_on_cpu(model: PreTrainedModel, *, device: torch.device, seed: int) -> Iterator[Callable[[int], None]]:
    """Give a model attention and dropout that are cheap on a CPU; it has its own again in the end.

    :param device: where the model is; elsewhere than on a CPU nothing changes.
    :param seed: of the dropout, whose masks follow from it, the step, and torch's own generator.
    :return: is told which step begins.
    """
    pool = DropoutPool(seed)
    if device.type != "cpu":
        yield pool.start_step
        return
    own = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for parent, name, child in own:
        setattr(parent, name, Dropout(child.p, pool).train(child.training))
    fused = model.config._attn_implementation == "sdpa"
    if fused:
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(NAME, partial(matmul_attention, pool=pool))
        AttentionMaskInterface.register(NAME, AttentionMaskInterface()["sdpa"])
        model.set_attn_implementation(NAME)
    try:
        yield pool.start_step
    finally:
        for parent, name, child in own:
            setattr(parent, name, child.train(getattr(parent, name).training))
        if fused:
            model.set_attn_implementation("sdpa")
