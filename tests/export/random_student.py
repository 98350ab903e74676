"""Students with random weights and decisive answers, their run folders, and what torch makes of a question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from qa_edge.student.config import StudentConfig
from qa_edge.student.qanet import Batch, QANet
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

WORDS = (
    "the",
    "switch",
    "is",
    "behind",
    "grey",
    "panel",
    "who",
    "where",
    "water",
    "bridge",
    "of",
    "a",
    "in",
    "and",
    ".",
)
CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyzAEIOÜé.,?0123456789")
# A tokenizer in small, so that these tests need no spaCy.
TABLES = {
    "format_version": 1,
    "spacy_version": "3.8.0",
    "language": "en",
    "prefix": r"^[(\"“]",
    "suffix": r"[?.,)\"”]$",
    "infix": r"[-—]",
    "url": None,
    "token_match": None,
    "exceptions": {"can't": ["ca", "n't"]},
}


def tiny_config(**sizes: Any) -> StudentConfig:
    values: dict[str, Any] = {
        "preset": "tiny",
        "hidden": 16,
        "heads": 1,
        "model_blocks": 2,
        "encoder_convolutions": 2,
        "model_convolutions": 1,
        "word_dim": 8,
        "character_dim": 6,
        "characters": len(CHARACTERS) + 2,
    }
    return StudentConfig(**{**values, **sizes})


def random_student(config: StudentConfig, seed: int = 0) -> QANet:
    """All weights moved away from their initial values, those of the output layer large."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    student = QANet(config).eval()
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if name.endswith("norm.weight"):
                weight.mul_(1 + 0.3 * torch.randn(weight.shape, generator=generator))
            elif name.endswith(("bias", "unknown")):
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        for output in (student.start, student.end):
            output.weight.mul_(100)
        student.token.characters[0] = 7.0  # whatever stands in the padding's row must not count
    return student


def arrays_of(student: QANet) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in student.state_dict().items()}


def word_vectors(config: StudentConfig, words: Sequence[str] = WORDS, seed: int = 5) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(len(words) + 1, config.word_dim)).astype(np.float16)
    vectors[0] = 0
    return vectors


def write_run(folder: Path, student: QANet, words: Sequence[str] = WORDS) -> Path:
    """A run folder as `qa-edge distill` leaves it, as far as export reads it."""
    folder.mkdir(parents=True)
    student.config.save(folder / "config.json")
    Vocabulary(words=tuple(words), characters=CHARACTERS).save(folder)
    (folder / "tokenizer.json").write_text(json.dumps(TABLES), encoding="utf-8")
    save_file(arrays_of(student), folder / "model.safetensors")
    save_file({"vectors": word_vectors(student.config, words)}, folder / "vectors.safetensors")
    return folder


class TorchReference:
    """Logits of the torch student for questions with their contexts, one at a time."""

    def __init__(self, student: QANet, words: Sequence[str] = WORDS) -> None:
        self.student = student
        self.tokenizer = Tokenizer(TABLES)
        self.vocabulary = Vocabulary(words=tuple(words), characters=CHARACTERS)
        self.vectors = word_vectors(student.config, words)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.logits(*pair) for pair in pairs]

    def logits(self, question: str, context: str) -> tuple[np.ndarray, np.ndarray]:
        sides = [[token.text for token in self.tokenizer(text)] for text in (context, question)]
        distinct = sorted({*sides[0], *sides[1]})
        ids = self.vocabulary.word_ids(distinct)
        numbers = [torch.tensor([[distinct.index(token) for token in side]]) for side in sides]
        batch = Batch(
            word_vectors=torch.from_numpy(self.vectors[ids].astype(np.float32)),
            unknown=torch.from_numpy(ids == 0),
            character_ids=torch.from_numpy(self.vocabulary.character_ids(distinct)),
            context=numbers[0],
            question=numbers[1],
            context_lengths=torch.tensor([len(sides[0])]),
            question_lengths=torch.tensor([len(sides[1])]),
        )
        with torch.no_grad():
            start, end = self.student(batch)[0].numpy()
        return start, end
