"""The three terms that the student learns from: labels, the teacher's distribution, the teacher's logits (Eq. 5 to 12).

Start and end losses are summed, terms are means over the batch, and all is computed in float32 (float64 for float64),
whatever precision the student runs in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qa_edge_runtime.errors import InputError

# The `start` and `end` of a question without an answer: it learns from the teacher alone.
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """How the terms are weighed: (1 - rho) hard + rho soft + mse_weight MSE (Eq. 12).

    :param rho: share of the soft loss, 0 to 1 (paper: 0.7); 1 for a question without an answer, whatever stands here.
    :param temperature: of both distributions in the soft loss, above 0 (paper: 10).
    :param mse_weight: of the interpolation term, 0 or more (Eq. 12 as printed: 1); 0 leaves it out.
    :raises InputError: if one of them is out of range.
    """

    rho: float = 0.7
    temperature: float = 10.0
    mse_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rho <= 1.0:
            raise InputError(f"rho is {self.rho}: expected a number from 0 (labels alone) to 1 (teacher alone)")
        if not (self.temperature > 0.0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature is {self.temperature}: expected a number above 0")
        if not (self.mse_weight >= 0.0 and math.isfinite(self.mse_weight)):
            raise InputError(f"mse_weight is {self.mse_weight}: expected 0 (without the term) or more")


class LossTerms(NamedTuple):
    """The loss of a batch and its terms, scalars; a term that the batch says nothing of is 0.

    `total` is the mean of the questions' own weighted sums. `hard` is the mean over the questions that have an answer,
    `soft` over those with an aligned token, `mse` over those with a piece, so `total` is their weighted sum only
    when all questions have all three.
    """

    total: Tensor
    hard: Tensor
    soft: Tensor
    mse: Tensor


def hard_loss(start_logits: Tensor, end_logits: Tensor, mask: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Cross-entropy of the labelled span, start and end summed, mean over the questions that have one (Eq. 6).

    :param start_logits: float, shape (batch, context_tokens).
    :param end_logits: same shape.
    :param mask: True at context tokens, False at padding, same shape.
    :param start: index of the answer's first token, int64, shape (batch,); -1 where there is no answer.
    :param end: index of its last token, inclusive, same shape.
    :return: scalar; 0 (with a gradient of zeros) if no question of the batch has an answer.
    """
    rows, labelled = _hard_rows(start_logits, end_logits, mask, start, end)
    return _mean(rows, labelled)


def soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's from the teacher's tempered span distribution (Eq. 7, teacher weighting).

    As printed, Eq. 7 weighs by the student and has a minus sign; here the teacher weighs, as in Eq. 3.

    :param student: start or end logits, float, shape (batch, context_tokens).
    :param teacher: aligned teacher logits, same shape; constants, no gradient flows into them.
    :param mask: True where both sides have a logit, same shape; both softmaxes run over these tokens alone.
    :param temperature: T > 0; the loss is scaled by T**2 so its gradient does not shrink with T.
    :return: scalar, the mean over the batch; 0 or more.
    :raises ValueError: if a row of the mask is empty.
    """
    empty = (~mask.any(dim=-1)).sum().item()
    if empty:
        raise ValueError(f"{empty} of {len(mask)} rows have no aligned token: leave such rows out")
    return _soft_rows(student, teacher, mask, temperature).mean()


def soft_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    teacher_start: Tensor,
    teacher_end: Tensor,
    mask: Tensor,
    temperature: float,
) -> Tensor:
    """Soft target losses of start and end, summed (Eq. 7 to 9).

    :param start_logits: the student's, float, shape (batch, context_tokens).
    :param end_logits: same shape.
    :param teacher_start: the teacher's start logits, aligned, same shape.
    :param teacher_end: the teacher's end logits, aligned, same shape.
    :param mask: True where both sides have logits, same shape.
    :param temperature: T > 0.
    :raises ValueError: if a row of the mask is empty.
    """
    return soft_target_loss(start_logits, teacher_start, mask, temperature) + soft_target_loss(
        end_logits, teacher_end, mask, temperature
    )


def interpolation_loss(interpolated: Tensor, teacher: Tensor, teacher_mask: Tensor) -> Tensor:
    """Mean squared error of the interpolated student against the teacher's raw logits (Eq. 12).

    :param interpolated: the student's start and end logits at the teacher's positions, float, shape (batch, 2, pieces).
    :param teacher: the teacher's logits, same shape; constants, no gradient flows into them.
    :param teacher_mask: True at pieces of the context, False at padding, shape (batch, pieces).
    :return: scalar: the mean over positions and both ends, then over the rows that have a piece; 0 if none has.
    """
    rows, present = _mse_rows(interpolated, teacher, teacher_mask)
    return _mean(rows, present)


def distillation_loss(
    config: DistillationLoss,
    *,
    start_logits: Tensor,
    end_logits: Tensor,
    mask: Tensor,
    start: Tensor,
    end: Tensor,
    teacher_start: Tensor | None = None,
    teacher_end: Tensor | None = None,
    aligned: Tensor | None = None,
    interpolated: Tensor | None = None,
    teacher_pieces: Tensor | None = None,
    piece_mask: Tensor | None = None,
) -> LossTerms:
    """Loss of a batch of questions: (1 - rho) hard + rho soft + mse_weight MSE each, mean over the batch (Eq. 5, 12).

    A question without an answer has rho = 1. One without an aligned token has no soft loss, one without pieces no MSE.

    :param config: weights and temperature.
    :param start_logits: the student's, float, shape (batch, context_tokens).
    :param end_logits: same shape.
    :param mask: True at context tokens, False at padding, same shape.
    :param start: index of the answer's first token, int64, shape (batch,); -1 where there is no answer.
    :param end: index of its last token, inclusive, same shape.
    :param teacher_start: aligned teacher start logits, shape (batch, context_tokens); needed unless rho is 0.
    :param teacher_end: aligned teacher end logits, same shape, needed likewise.
    :param aligned: True where a token has a teacher logit, same shape, needed likewise.
    :param interpolated: student logits at the teacher's positions (`interpolate`), shape (batch, 2, pieces); needed
        unless `mse_weight` is 0.
    :param teacher_pieces: teacher logits per piece, same shape, needed likewise.
    :param piece_mask: True at pieces of the context, shape (batch, pieces), needed likewise.
    :raises ValueError: if tensors that the weights ask for are missing.
    """
    hard, labelled = _hard_rows(start_logits, end_logits, mask, start, end)
    soft, distilled = torch.zeros_like(hard), torch.zeros_like(labelled)
    mse, compared = torch.zeros_like(hard), torch.zeros_like(labelled)
    if teacher_start is not None and teacher_end is not None and aligned is not None:
        soft = _soft_rows(start_logits, teacher_start, aligned & mask, config.temperature)
        soft = soft + _soft_rows(end_logits, teacher_end, aligned & mask, config.temperature)
        distilled = (aligned & mask).any(dim=-1)
    elif config.rho > 0.0:
        raise ValueError(f"rho is {config.rho}, but there are no aligned teacher logits: give them, or set rho to 0")
    if config.mse_weight > 0.0:
        if interpolated is None or teacher_pieces is None or piece_mask is None:
            raise ValueError(
                f"mse_weight is {config.mse_weight}, but the batch has no interpolated logits with the teacher's: "
                "give them, or set mse_weight to 0"
            )
        mse, compared = _mse_rows(interpolated, teacher_pieces, piece_mask)
    soft_weight = torch.where(labelled, config.rho, 1.0)
    rows = (1.0 - config.rho) * hard + soft_weight * soft + config.mse_weight * mse
    return LossTerms(
        total=rows.sum() / max(len(rows), 1),
        hard=_mean(hard, labelled),
        soft=_mean(soft, distilled),
        mse=_mean(mse, compared),
    )


def _full(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _mean(rows: Tensor, counted: Tensor) -> Tensor:
    """Mean of the rows that count (the others are 0), 0 if there is none."""
    return rows.sum() / counted.sum().clamp(min=1)


def _masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    # The lowest finite number rather than -inf: a row without any token gets a constant, and zeros as its gradient,
    # where -inf would make NaN of both.
    return torch.log_softmax(logits.masked_fill(~mask, torch.finfo(logits.dtype).min), dim=-1)


def _hard_rows(
    start_logits: Tensor, end_logits: Tensor, mask: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of each question, 0 without an answer, and which have one; both of shape (batch,)."""
    labelled = (start != UNLABELLED) & (end != UNLABELLED)
    rows = torch.zeros(start.shape, dtype=_full(start_logits).dtype, device=start_logits.device)
    for logits, target in ((start_logits, start), (end_logits, end)):
        scores = _masked_log_softmax(_full(logits), mask)
        picked = scores.gather(-1, target.clamp(min=0)[:, None].long())[:, 0]
        rows = rows - torch.where(labelled, picked, 0.0)
    return rows, labelled


def _soft_rows(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """T**2 KL(teacher, student) of each row over its aligned tokens, 0 where there are none; shape (batch,)."""
    with torch.no_grad():
        target = _masked_log_softmax(_full(teacher) / temperature, mask)
        weight = target.exp().masked_fill(~mask, 0.0)
    predicted = _masked_log_softmax(_full(student) / temperature, mask)
    # Masked scores are near the lowest number there is: their difference must be dropped, not multiplied by zero.
    difference = torch.where(mask, target - predicted, 0.0)
    return temperature**2 * (weight * difference).sum(dim=-1)


def _mse_rows(interpolated: Tensor, teacher: Tensor, teacher_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of each row over positions and both ends, 0 without a piece, and which rows have one."""
    difference = torch.where(teacher_mask[:, None, :], _full(interpolated) - _full(teacher.detach()), 0.0)
    pieces = teacher_mask.sum(dim=-1)
    return difference.square().sum(dim=(1, 2)) / (2 * pieces.clamp(min=1)), pieces > 0
