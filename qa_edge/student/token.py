"""What the student knows of a token before its place: word vector, character convolution, projection, highway."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qa_edge.student.config import StudentConfig
from qa_edge.student.dropout import Dropout, DropoutPool
from qa_edge.student.kernels import CharacterWindows, compute_dtype


class Highway(nn.Module):
    """One highway layer: g * relu(W x + b) + (1 - g) * x, g = sigmoid(V x + c) (Srivastava et al., 2015)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.transform = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (tokens, hidden) to the same."""
        return torch.lerp(x, F.relu(self.transform(x)), torch.sigmoid(self.gate(x)))


class TokenEmbedding(nn.Module):
    """Tokens to vectors, each distinct token once (QANet, section 2.2, input embedding layer).

    Nothing here depends on the neighbours, which is why export can fold it into one table.
    """

    def __init__(self, config: StudentConfig, pool: DropoutPool) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden, config.character_dim
        self.unknown = nn.Parameter(torch.zeros(config.word_dim))
        self.characters = nn.Parameter(torch.empty(config.characters, width).normal_(std=0.1))
        self.convolution = nn.Linear(config.character_kernel * width, hidden)
        self.projection = nn.Linear(config.word_dim + hidden, hidden, bias=False)
        self.highway = nn.ModuleList(Highway(hidden) for _ in range(2))
        self.word_dropout = Dropout(config.dropout, pool)
        self.character_dropout = Dropout(config.character_dropout, pool)
        with torch.no_grad():
            self.characters[0] = 0

    def forward(self, word_vectors: Tensor, unknown: Tensor, character_ids: Tensor) -> Tensor:
        """Vectors of distinct tokens.

        :param word_vectors: float, shape (tokens, word_dim); rows of unknown words are ignored.
        :param unknown: bool, shape (tokens,): the word has no vector of its own.
        :param character_ids: int64, shape (tokens, characters_per_word), 0 after the last character.
        :returns: shape (tokens, hidden).
        """
        dtype = compute_dtype(self.characters)
        # Padding keeps the zero vector: its row takes no part in training.
        present = (character_ids != 0).unsqueeze(-1)
        letters = self.character_dropout(F.embedding(character_ids, self.characters).to(dtype), present.to(dtype))
        windows = CharacterWindows.apply(letters, self.config.character_kernel)
        features = F.relu(self.convolution(windows).amax(1))
        parts = [features]
        if self.config.word_dim:
            words = torch.where(unknown.unsqueeze(-1), self.unknown, word_vectors)
            parts = [self.word_dropout(words).to(dtype), features]
        x = self.projection(torch.cat(parts, -1))
        for layer in self.highway:
            x = layer(x)
        return x
