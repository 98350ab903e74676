"""The three terms that the student learns from: labels, the teacher's distribution, the teacher's logits (Eq. 5 to 12).

Each is a loss a question, start and end summed (the MSE is their mean); `distillation_loss` weighs them and takes the
mean over the batch. All is computed in float32 (float64 for float64), whatever precision the student runs in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qa_edge.loss_settings import DistillationLoss

# The `start` and `end` of a question without an answer: it learns from the teacher alone.
UNLABELLED = -1
# A logit whose exponential is 0 at any temperature in use, and whose differences are finite in float32.
NO_ANSWER = -1e6


class LossTerms(NamedTuple):
    """The loss of a batch and its terms, scalars; a term that the batch says nothing of is 0.

    `total` is the mean of the questions' own weighted sums. `hard` is the mean over the questions that have an answer,
    `soft` over those with an aligned token, `mse` over those with a piece, so `total` is their weighted sum only
    when all questions have all three. Where layers are distilled too, `total` has their weighted term (`layers`).
    """

    total: Tensor
    hard: Tensor
    soft: Tensor
    mse: Tensor
    layers: Tensor | None = None


class OtherLogits(NamedTuple):
    """Paragraphs without the answer, which some questions of a batch are asked of too, in one softmax with their own.

    Each method appends tokens: those of a question's other paragraph, or masked ones where it has none. Without any
    paragraph all is given back as it came.

    :param rows: question of each paragraph, int64, shape (paragraphs,).
    :param logits: the student's start and end logits, shape (paragraphs, 2, tokens).
    :param mask: True at tokens, False at padding, shape (paragraphs, tokens).
    """

    rows: Tensor
    logits: Tensor
    mask: Tensor

    def joined(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end logits over both paragraphs.

        :param own: start and end logits over the questions' own paragraphs, shape (batch, 2, tokens).
        :return: two of shape (batch, tokens of both).
        """
        if not len(self.rows):
            return own[:, 0], own[:, 1]
        both = own.new_zeros((len(own), *self.logits.shape[1:])).index_copy(0, self.rows, self.logits)
        wide = torch.cat([own, both], dim=-1)
        return wide[:, 0], wide[:, 1]

    def beside(self, own: Tensor) -> Tensor:
        """A mask of the questions' own paragraphs, shape (batch, tokens), with the others' beside it."""
        if not len(self.rows):
            return own
        mask = own.new_zeros((len(own), self.mask.shape[1])).index_copy(0, self.rows, self.mask)
        return torch.cat([own, mask], dim=-1)

    def without_answer(self, teacher: Tensor) -> Tensor:
        """A teacher's logits over the questions' own paragraphs, with a probability of 0 for all tokens beside them."""
        if not len(self.rows):
            return teacher
        return torch.cat([teacher, teacher.new_full((len(teacher), self.mask.shape[1]), NO_ANSWER)], dim=-1)


def hard_loss(start_logits: Tensor, end_logits: Tensor, mask: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Cross-entropy of the labelled span, start and end summed (Eq. 6).

    :param start_logits: float, shape (batch, context_tokens).
    :param end_logits: same shape.
    :param mask: True at context tokens, False at padding, same shape.
    :param start: index of the answer's first token, int64, shape (batch,); -1 where there is no answer.
    :param end: index of its last token, inclusive, same shape.
    :return: loss of each question, shape (batch,); 0 (with a gradient of zeros) without an answer.
    """
    labelled = _labelled(start, end)
    rows = torch.zeros(start.shape, dtype=_full(start_logits).dtype, device=start_logits.device)
    for logits, target in ((start_logits, start), (end_logits, end)):
        scores = _masked_log_softmax(_full(logits), mask)
        picked = scores.gather(-1, target.clamp(min=0)[:, None].long())[:, 0]
        rows = rows - torch.where(labelled, picked, 0.0)
    return rows


def soft_target_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's from the teacher's tempered span distribution (Eq. 7, teacher weighting).

    As printed, Eq. 7 weighs by the student and has a minus sign; here the teacher weighs, as in Eq. 3.

    :param student: start or end logits, float, shape (batch, context_tokens).
    :param teacher: aligned teacher logits, same shape; constants, no gradient flows into them.
    :param mask: True where both sides have a logit, same shape; both softmaxes run over these tokens alone.
    :param temperature: T > 0; the loss is scaled by T**2 so its gradient does not shrink with T.
    :return: loss of each question, 0 or more, shape (batch,); 0 without an aligned token.
    """
    with torch.no_grad():
        target = _masked_log_softmax(_full(teacher) / temperature, mask)
        weight = target.exp().masked_fill(~mask, 0.0)
    predicted = _masked_log_softmax(_full(student) / temperature, mask)
    # Masked scores are near the lowest number there is: their difference must be dropped, not multiplied by zero.
    difference = torch.where(mask, target - predicted, 0.0)
    return temperature**2 * (weight * difference).sum(dim=-1)


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
    :return: loss of each question, shape (batch,); 0 without an aligned token.
    """
    start = soft_target_loss(start_logits, teacher_start, mask, temperature)
    return start + soft_target_loss(end_logits, teacher_end, mask, temperature)


def interpolation_loss(interpolated: Tensor, teacher: Tensor, teacher_mask: Tensor) -> Tensor:
    """Mean squared error of the interpolated student against the teacher's raw logits (Eq. 12).

    :param interpolated: the student's start and end logits at the teacher's positions, float, shape (batch, 2, pieces).
    :param teacher: the teacher's logits, same shape; constants, no gradient flows into them.
    :param teacher_mask: True at pieces of the context, False at padding, shape (batch, pieces).
    :return: mean over positions and both ends of each question, shape (batch,); 0 without a piece.
    """
    difference = torch.where(teacher_mask[:, None, :], _full(interpolated) - _full(teacher.detach()), 0.0)
    return difference.square().sum(dim=(1, 2)) / (2 * teacher_mask.sum(dim=-1).clamp(min=1))


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
    hard, labelled = hard_loss(start_logits, end_logits, mask, start, end), _labelled(start, end)
    soft, distilled = torch.zeros_like(hard), torch.zeros_like(labelled)
    mse, compared = torch.zeros_like(hard), torch.zeros_like(labelled)
    if teacher_start is not None and teacher_end is not None and aligned is not None:
        taught = aligned & mask
        soft = soft_loss(start_logits, end_logits, teacher_start, teacher_end, taught, config.temperature)
        distilled = taught.any(dim=-1)
    elif config.rho > 0.0:
        raise ValueError(f"rho is {config.rho}, but there are no aligned teacher logits: give them, or set rho to 0")
    if config.mse_weight > 0.0:
        if interpolated is None or teacher_pieces is None or piece_mask is None:
            raise ValueError(
                f"mse_weight is {config.mse_weight}, but the batch has no interpolated logits with the teacher's: "
                "give them, or set mse_weight to 0"
            )
        mse, compared = interpolation_loss(interpolated, teacher_pieces, piece_mask), piece_mask.any(dim=-1)
    soft_weight = torch.where(labelled, config.rho, 1.0)
    rows = (1.0 - config.rho) * hard + soft_weight * soft + config.mse_weight * mse
    return LossTerms(
        total=rows.sum() / max(len(rows), 1),
        hard=_mean(hard, labelled),
        soft=_mean(soft, distilled),
        mse=_mean(mse, compared),
    )


def _labelled(start: Tensor, end: Tensor) -> Tensor:
    """Which questions have an answer, shape (batch,)."""
    return (start != UNLABELLED) & (end != UNLABELLED)


def _full(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _mean(rows: Tensor, counted: Tensor) -> Tensor:
    """Mean of the rows that count (the others are 0), 0 if there is none."""
    return rows.sum() / counted.sum().clamp(min=1)


def _masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    # The lowest finite number rather than -inf: a row without any token gets a constant, and zeros as its gradient,
    # where -inf would make NaN of both.
    return torch.log_softmax(logits.masked_fill(~mask, torch.finfo(logits.dtype).min), dim=-1)
