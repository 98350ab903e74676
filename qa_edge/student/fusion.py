"""Context-query attention in both directions, joined four ways (QANet, section 2.2; BiDAF, DCN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Trilinear similarity, context-to-question and question-to-context attention, and a projection of the join."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        scale = (3 * hidden) ** -0.5
        self.context = nn.Parameter(torch.empty(hidden).uniform_(-scale, scale))
        self.question = nn.Parameter(torch.empty(hidden).uniform_(-scale, scale))
        self.product = nn.Parameter(torch.empty(hidden).uniform_(-scale, scale))
        self.projection = nn.Linear(4 * hidden, hidden)

    def forward(self, context: Tensor, question: Tensor, context_bias: Tensor, question_bias: Tensor) -> Tensor:
        """Join each context token with what the question says of it.

        :param context: shape (batch, context_tokens, hidden).
        :param question: shape (batch, question_tokens, hidden).
        :param context_bias: 0 for tokens, very negative for padding, shape (batch, 1, context_tokens).
        :param question_bias: the same for the question.
        :returns: shape (batch, context_tokens, hidden).
        """
        similarity = (
            torch.bmm(context * self.product, question.mT)
            + (context @ self.context).unsqueeze(2)
            + (question @ self.question).unsqueeze(1)
        ).float()
        over_question = torch.softmax(similarity + question_bias, 2)
        over_context = torch.softmax(similarity + context_bias.mT, 1)
        context_to_question = torch.bmm(over_question, question)
        question_to_context = torch.bmm(over_question, torch.bmm(over_context.mT, context))
        joined = torch.cat(
            [context, context_to_question, context * context_to_question, context * question_to_context], -1
        )
        return self.projection(joined)
