"""QANet, the student: from distinct tokens to start and end logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qa_edge.student.block import EncoderBlock, LayerNorm
from qa_edge.student.config import StudentConfig
from qa_edge.student.dropout import Dropout, DropoutPool
from qa_edge.student.fusion import Fusion
from qa_edge.student.kernels import compute_dtype
from qa_edge.student.rounding import round_to_int4
from qa_edge.student.token import TokenEmbedding

# Added to the score of padding before a softmax: e to this is 0 in float32 and bfloat16 alike.
NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions with their contexts, tokens by number of distinct token.

    :param word_vectors: vector of each distinct token's word, shape (distinct, word_dim).
    :param unknown: bool, the word has no vector, shape (distinct,).
    :param character_ids: int64, shape (distinct, characters_per_word).
    :param context: number of distinct token, int64, shape (batch, context_tokens).
    :param question: the same, shape (batch, question_tokens).
    :param context_lengths: tokens without padding, int64, shape (batch,).
    :param question_lengths: the same for the questions.
    """

    word_vectors: Tensor
    unknown: Tensor
    character_ids: Tensor
    context: Tensor
    question: Tensor
    context_lengths: Tensor
    question_lengths: Tensor


class QANet(nn.Module):
    """The student network (Yu et al., 2018; sizes of Boreshban et al., section 4.1.2).

    Two layer norms are added to QANet, after the embedding encoder and before the output layer: the residual stream
    is never normalised otherwise, gradients grow with its scale and learning is slower.
    """

    def __init__(self, config: StudentConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.pool = DropoutPool(seed)
        # Set by training: what the device's table of words will do to their states.
        self.rounds_states = False
        hidden = config.hidden
        block: dict[str, Any] = {
            "hidden": hidden,
            "heads": config.heads,
            "dropout": config.dropout,
            "survival": config.survival,
            "pool": self.pool,
        }
        self.token = TokenEmbedding(config, self.pool)
        self.encoder = EncoderBlock(kernel=config.encoder_kernel, convolutions=config.encoder_convolutions, **block)
        self.encoder_norm = LayerNorm(hidden)
        self.fusion = Fusion(hidden)
        self.blocks = nn.ModuleList(
            EncoderBlock(kernel=config.model_kernel, convolutions=config.model_convolutions, **block)
            for _ in range(config.model_blocks)
        )
        self.output_norm = LayerNorm(hidden)
        self.start = nn.Linear(2 * hidden, 1)
        self.end = nn.Linear(2 * hidden, 1)
        self.dropout = Dropout(config.dropout, self.pool)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            # A layer that a ReLU follows loses half its variance there.
            if isinstance(module, nn.Linear) and name.endswith(("pointwise", "inner", "transform", "convolution")):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        for output in (self.start, self.end):
            # At ordinary size the first losses are near 100 and some hundred steps go into unlearning it.
            with torch.no_grad():
                output.weight.mul_(0.02)

    def forward(self, batch: Batch) -> Tensor:
        """Start and end logits.

        :returns: float32, shape (batch, 2, context_tokens); padding holds -1e4.
        """
        return self.with_states(batch)[0]

    def with_states(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Start and end logits, and what the output layer reads of each pass before dropout.

        :returns: the logits as `forward` gives them, and a state a pass, each of shape (batch, context_tokens, hidden).
        """
        table = self.token(batch.word_vectors, batch.unknown, batch.character_ids)
        if self.rounds_states:
            table = round_to_int4(table)
        # The residual stream has the precision of the matrix products: casts around every layer cost more than them.
        table = table.to(compute_dtype(table))
        context_keep, context_bias = _masks(batch.context, batch.context_lengths, table.dtype)
        question_keep, question_bias = _masks(batch.question, batch.question_lengths, table.dtype)
        context = self._encode(F.embedding(batch.context, table), context_keep, context_bias)
        question = self._encode(F.embedding(batch.question, table), question_keep, question_bias)
        x = self.fusion(self.dropout(context), self.dropout(question), context_bias, question_bias)
        states, outputs = [], []
        for _ in range(self.config.passes):
            x = self._model_pass(x, context_keep, context_bias)
            states.append(self.output_norm(x))
            outputs.append(self.dropout(states[-1]))
        first, second, third = outputs
        start = self.start(torch.cat([first, second], -1)).squeeze(-1)
        end = self.end(torch.cat([first, third], -1)).squeeze(-1)
        return torch.stack([start, end], 1).float() + context_bias, states

    def _encode(self, x: Tensor, keep: Tensor, bias: Tensor) -> Tensor:
        x = self.dropout(x + position_signal(x.shape[1], x.shape[2], x.device).to(x.dtype))
        return self.encoder_norm(self.encoder(x, keep, bias, first=1, sublayers=self.encoder.sublayers))

    def _model_pass(self, x: Tensor, keep: Tensor, bias: Tensor) -> Tensor:
        x = x + position_signal(x.shape[1], x.shape[2], x.device).to(x.dtype)
        total = sum(block.sublayers for block in self.blocks)  # type: ignore[misc]
        first = 1
        for block in self.blocks:
            x = block(x, keep, bias, first=first, sublayers=total)
            first += block.sublayers  # type: ignore[operator, assignment]
        return x


def position_signal(tokens: int, hidden: int, device: torch.device | str = "cpu") -> Tensor:
    """Sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al., 2017, as in tensor2tensor).

    :returns: float32, shape (tokens, hidden).
    """
    half = hidden // 2
    rates = torch.exp(torch.arange(half, device=device) * -(math.log(1e4) / max(half - 1, 1)))
    angles = torch.arange(tokens, device=device).unsqueeze(1) * rates
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


def _masks(ids: Tensor, lengths: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    keep = (torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)).to(dtype)
    return keep.unsqueeze(2), ((1 - keep) * NEVER).unsqueeze(1)


def count_parameters(model: QANet) -> tuple[int, int]:
    """Trained weights of a student: all, and without the embeddings of characters and of the unknown word."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embeddings = model.token.characters.numel() + model.token.unknown.numel()
    return total, total - embeddings
