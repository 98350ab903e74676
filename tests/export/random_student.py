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
from qa_edge_export.checkpoint import Checkpoint, StudentSizes, read_checkpoint
from qa_edge_export.inference_form import InferenceForm, inference_form
from qa_edge_export.verify import Question
from qa_edge_runtime.answers import decode_answers
from qa_edge_runtime.positions import position_signal
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


def sizes_of(config: StudentConfig) -> StudentSizes:
    return StudentSizes(**{name: getattr(config, name) for name in StudentSizes.__dataclass_fields__})


def small_form(seed: int = 0, **sizes: Any) -> InferenceForm:
    """The form, as trained, of a random student."""
    config = tiny_config(**sizes)
    return inference_form(sizes_of(config), arrays_of(random_student(config, seed)))


def core_inputs(context: np.ndarray, question: np.ndarray) -> dict[str, np.ndarray]:
    """What the core graph is given with states, shape (tokens, hidden)."""
    sides = {"context": context, "question": question}
    positions = {f"{side}_position": position_signal(*states.shape) for side, states in sides.items()}
    return {name: np.asarray(array, np.float32) for name, array in {**sides, **positions}.items()}


def random_inputs(hidden: int, lengths: tuple[int, int], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng([seed, *lengths])
    return core_inputs(*(random.normal(size=(tokens, hidden)) for tokens in lengths))


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


def small_checkpoint(folder: Path, words: Sequence[str] = WORDS, **sizes: Any) -> Checkpoint:
    """A random student's run folder, written and read."""
    return read_checkpoint(write_run(folder, random_student(tiny_config(**sizes)), words))


class TorchReference:
    """Logits of the torch student for questions with their contexts, one at a time."""

    def __init__(self, student: QANet, words: Sequence[str] = WORDS) -> None:
        self.student = student
        self.tokenizer = Tokenizer(TABLES)
        self.vocabulary = Vocabulary(words=tuple(words), characters=CHARACTERS)
        self.vectors = word_vectors(student.config, words)

    def __call__(self, questions: Sequence[Question]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.logits(question.question, question.context) for question in questions]

    def states(self, tokens: Sequence[str]) -> np.ndarray:
        """States of tokens, float32, shape (tokens, hidden)."""
        ids = self.vocabulary.word_ids(tokens)
        width = self.student.config.characters_per_word
        with torch.no_grad():
            states = self.student.token(
                torch.from_numpy(self.vectors[ids].astype(np.float32)),
                torch.from_numpy(ids == 0),
                torch.from_numpy(self.vocabulary.character_ids(tokens, width)),
            )
        return np.asarray(states.numpy())

    def ask(self, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        """Questions whose right answers are the torch student's own: its F1 is 100."""
        return [Question(question, context, (self._answer(question, context),)) for question, context in pairs]

    def forms(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """All tokens of the texts, as they are written there."""
        return sorted({token.text for pair in pairs for text in pair for token in self.tokenizer(text)})

    def _answer(self, question: str, context: str) -> str:
        limit = self.student.config.max_answer_tokens
        return decode_answers(context, self.tokenizer(context), *self.logits(question, context), limit)[0].text

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
