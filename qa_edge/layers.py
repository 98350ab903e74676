"""What the student's passes learn from the teacher's layers: a linear map of each comes near the reduced states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qa_edge.states import LAYERS


class LayerProjections(nn.Module):
    """A learned map from a pass's states to its layer's reduced ones, for each pass; trained, and not a student's own.

    They begin at zero, so that the first loss is the variance of what is to be learned and no random number is drawn.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.layer_projections = nn.ModuleList(nn.Linear(hidden, width) for _ in range(LAYERS))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, passes: Sequence[Tensor], states: Tensor) -> Tensor:
        """Mean squared error over the tokens and numbers of each question that has states; mean over these questions.

        :param passes: the student's states after each pass, shape (rows, tokens, hidden); rows after the questions'
            own, which are other paragraphs, are left out.
        :param states: the teacher's, float, zeros where there are none, shape (questions, tokens, LAYERS * width).
        :return: a scalar; 0 where no question has states.
        """
        mapped = zip(self.layer_projections, passes, strict=True)
        predicted = torch.cat([projection(one[: len(states)].float()) for projection, one in mapped], -1)
        there = (states != 0).any(-1)
        errors = torch.where(there, (predicted - states).square().mean(-1), 0.0).sum(-1)
        tokens = there.sum(-1)
        return (errors / tokens.clamp(min=1)).sum() / (tokens > 0).sum().clamp(min=1)
