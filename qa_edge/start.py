"""A trained student that training goes on from: its words and vectors, and what new text adds to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge.features import TOKENIZER, word_vectors
from qa_edge.student.config import StudentConfig
from qa_edge.vectors import Vectors, read_vectors
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

SAME_SPACE = 0.9
"""Mean cosine of words' vectors in two files that differ in rounding at most; unrelated ones have about 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What a trained student brings along when training goes on from it."""

    folder: Path
    config: StudentConfig
    vocabulary: Vocabulary
    vectors: np.ndarray
    tokenizer: Tokenizer
    tables: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Start:
        """Read a checkpoint.

        :raises DataError: if a file is missing, or they are not of one run.
        """
        config = StudentConfig.load(folder / "config.json")
        vocabulary, vectors = Vocabulary.load(folder), word_vectors(folder)
        expected = (vocabulary.word_rows, config.word_dim)
        if vectors.shape != expected or vocabulary.character_rows != config.characters:
            raise DataError(
                f"{folder} is no checkpoint of one run: its vectors are {vectors.shape}, its config and vocabulary "
                f"expect {expected} and {config.characters} characters (found {vocabulary.character_rows})"
            )
        return cls(
            folder=folder,
            config=config,
            vocabulary=vocabulary,
            vectors=vectors,
            tokenizer=Tokenizer.load(folder),
            tables=read_json(folder / TOKENIZER, "tokenizer file"),
        )

    def split(self, text: str) -> Iterable[tuple[str, int]]:
        """Tokens of a text as the student was trained with, each with its first character."""
        return ((token.text, token.start) for token in self.tokenizer(text))

    def extend(
        self, counts: Mapping[str, int], vectors_path: str | Path | None, size: int | None
    ) -> tuple[Vocabulary, np.ndarray]:
        """Add the words that the student does not know, most frequent first, `size` words in all at most.

        Vectors that begin with the student's own and are wider bring their other numbers for its words too.
        """
        if vectors_path is None:
            return self.vocabulary, self.vectors
        unknown = {form: count for form, count in counts.items() if not self.vocabulary.word_id(form)}
        wanted = {spelling for form in unknown for spelling in (form, form.lower())}
        found = read_vectors(vectors_path, wanted.union(self.vocabulary.words))
        own = self.vectors
        if found.dim != self.config.word_dim:
            own = self._widened(found, vectors_path)
        else:
            self._require_same_space(found, vectors_path)
        found = found.without(self.vocabulary.words)
        room = None if size is None else max(0, size - len(self.vocabulary.words))
        words, added = most_frequent(unknown, found, room)
        vocabulary = Vocabulary(words=(*self.vocabulary.words, *words), characters=self.vocabulary.characters)
        return vocabulary, np.concatenate([own, halves(words, added, vectors_path)])

    def _both(self, found: Vectors) -> np.ndarray:
        """Rows of the words that the student and the file know: in its vectors and in the file's, shape (2, words)."""
        place = {word: number + 1 for number, word in enumerate(self.vocabulary.words)}
        rows = [(place[word], number) for number, word in enumerate(found.words) if word in place]
        return np.asarray(rows, np.int64).reshape(-1, 2).T

    def _require_same_space(self, found: Vectors, path: str | Path) -> None:
        """Refuse vectors that point elsewhere for the student's own words: those of new words would be noise to it."""
        own, theirs = self._both(found)
        pairs = self.vectors[own].astype(np.float64), found.array[theirs].astype(np.float64)
        ours, others = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9) for rows in pairs)
        cosine = float((ours * others).sum(axis=1).mean()) if len(own) else 1.0
        if cosine < SAME_SPACE:
            raise DataError(
                f"vectors {path} are others than the checkpoint {self.folder} was trained with (mean cosine "
                f"{cosine:.2f} over {len(own):,} words of both, expected {SAME_SPACE} or more): give its own, or none"
            )

    def _widened(self, found: Vectors, path: str | Path) -> np.ndarray:
        """The student's vectors with the further numbers of the file behind them, zeros for words that it lacks."""
        own, theirs = self._both(found)
        rows = halves(found.words, found.array, path)
        width = self.config.word_dim
        if found.dim < width or not np.array_equal(rows[theirs, :width], self.vectors[own]):
            raise DataError(
                f"vectors {path} have {found.dim} numbers a word, the checkpoint {self.folder} was trained with "
                f"{width}: give the vectors that it was trained with, wider ones that begin with them, or none"
            )
        wider = np.zeros((len(self.vectors), found.dim), np.float16)
        wider[:, :width] = self.vectors
        wider[own, width:] = rows[theirs, width:]
        return wider


def halves(words: Sequence[str], array: np.ndarray, path: str | Path) -> np.ndarray:
    """The words' vectors as the features hold them, float16.

    :raises DataError: if a number is beyond float16, which training would meet as infinity.
    """
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16)
    beyond = np.flatnonzero(~np.isfinite(halves).all(axis=1))
    if beyond.size:
        raise DataError(
            f"vectors {path}: the vector of {words[beyond[0]]!r} has a number beyond 65,504, which float16 cannot hold;"
            " scale the vectors down, or take others"
        )
    return halves


def most_frequent(counts: Mapping[str, int], found: Vectors, size: int | None) -> tuple[list[str], np.ndarray]:
    """The words with a vector that the forms look up, most frequent first, and their vectors."""
    row = {word: number for number, word in enumerate(found.words)}
    frequency: Counter[str] = Counter()
    for form, count in counts.items():
        word = form if form in row else form.lower()
        if word in row:
            frequency[word] += count
    words = sorted(frequency, key=lambda word: (-frequency[word], word))[:size]
    return words, found.array[np.asarray([row[word] for word in words], np.int64)]
