"""Features on disk: what training reads, memory-mapped, each context stored once for all its questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json
from qa_edge_runtime.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
TENSORS = "features.safetensors"
VECTORS = "vectors.safetensors"
VOCABULARY = "vocabulary.json"
TOKENIZER = "tokenizer.json"
HELDOUT = "heldout.json"
_NEEDED = (
    *("settings", "squad_sha256", "vectors_sha256", "contexts", "questions", "heldout_articles", "heldout_questions"),
    *("unlabelled_questions", "misplaced_answers", "words", "known_token_share"),
)
SCORES = "scores.json"


def read_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file as memory-mapped arrays.

    :raises DataError: if the file is missing, cut or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # Through torch the tensors stay memory-mapped, and their numpy views share that memory.
        with safe_open(Path(path), framework="pt") as stream:
            return {name: stream.get_tensor(name).numpy() for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({error}); make it again") from error


def word_vectors(folder: Path) -> NDArray[np.float16]:
    """Word vectors of a features folder, a run or a checkpoint, shape (words + 1, dim).

    :raises DataError: if the folder has none, or what it has cannot be read.
    """
    path = folder / VECTORS
    if not path.exists():
        raise DataError(
            f"{folder} has no word vectors ({VECTORS}); a checkpoint that was kept without them is made whole by "
            f"python tools/keep_checkpoint.py restore {folder} --vectors FILE --squad DATA.json"
        )
    vectors = read_tensors(path).get("vectors")
    if vectors is None or vectors.ndim != 2:
        found = "nothing of that name" if vectors is None else f"one of shape {list(vectors.shape)}"
        raise DataError(f"{path} is damaged: expected an array `vectors` with a row a word, found {found}")
    return vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The training questions of a SQuAD file as numbers. Questions are those outside the held-out articles.

    Ragged arrays are flat, with offsets: row i is `flat[offsets[i]:offsets[i + 1]]`. Tokens are numbers of surface
    forms, spaCy tokens as written; each form has a word id and character ids.

    :param context_tokens: int32, with `context_offsets` int64 (contexts + 1,).
    :param context_starts: first character of each context token, int32, like `context_tokens`.
    :param context_ends: character after each, the same.
    :param text: the contexts in UTF-8, uint8, with `text_offsets` int64 (contexts + 1,).
    :param question_tokens: int32, with `question_offsets` int64 (questions + 1,).
    :param question_context: row of each question's context, int32, shape (questions,).
    :param question_number: the question's place in the SQuAD file, the key of its labels, int32.
    :param context_number: the context's place in the SQuAD file, int32, shape (contexts,).
    :param context_article: number of the context's article in the SQuAD file, the same.
    :param answer_start: first token of the answer, int32, -1 without one, shape (questions,).
    :param answer_end: last token of the answer, inclusive, the same.
    :param form_words: word id of each surface form, int32, shape (forms,).
    :param form_characters: character ids of each, int32, shape (forms, 16).
    :param noisy_tokens: the questions in noise (`noisy_questions`), int32, where they were asked for: the copies of a
        question one after the other, `noisy_offsets` int64 (questions * copies + 1,).
    """

    folder: Path
    manifest: dict[str, Any]
    context_offsets: NDArray[np.int64]
    context_tokens: NDArray[np.int32]
    context_starts: NDArray[np.int32]
    context_ends: NDArray[np.int32]
    text: NDArray[np.uint8]
    text_offsets: NDArray[np.int64]
    question_offsets: NDArray[np.int64]
    question_tokens: NDArray[np.int32]
    question_context: NDArray[np.int32]
    question_number: NDArray[np.int32]
    context_number: NDArray[np.int32]
    context_article: NDArray[np.int32]
    answer_start: NDArray[np.int32]
    answer_end: NDArray[np.int32]
    form_words: NDArray[np.int32]
    form_characters: NDArray[np.int32]
    noisy_offsets: NDArray[np.int64] | None = None
    noisy_tokens: NDArray[np.int32] | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Features:
        """Map a folder that `prepare` wrote.

        :raises DataError: if it is not one, or of another format.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST, "feature manifest")
        found = manifest.get("format_version") if isinstance(manifest, dict) else None
        if found != FORMAT_VERSION:
            raise DataError(f"features {folder} have format {found}, expected {FORMAT_VERSION}: prepare them again")
        missing = [name for name in _NEEDED if name not in manifest]
        if missing:
            raise DataError(f"{folder / MANIFEST} is not one that prepare wrote ({missing[0]} is missing)")
        tensors = read_tensors(folder / TENSORS)
        try:
            return cls(folder=folder, manifest=manifest, **tensors)
        except TypeError as error:
            raise DataError(f"features {folder} do not hold the expected tensors ({error}): prepare again") from error

    def __len__(self) -> int:
        return len(self.question_context)

    def vocabulary(self) -> Vocabulary:
        """Words and characters that the ids refer to."""
        return Vocabulary.load(self.folder / VOCABULARY)

    def vectors(self) -> NDArray[np.float16]:
        """Word vectors, shape (words + 1, dim); row 0, the unknown word's, is zero."""
        return word_vectors(self.folder)

    def context_text(self, context: int) -> str:
        """Text of a context, by its row."""
        return bytes(self.text[self.text_offsets[context] : self.text_offsets[context + 1]]).decode("utf-8")

    def context_forms(self) -> dict[str, int]:
        """Number of each surface form that stands in a context, in the order of the text."""
        forms, first = np.unique(self.context_tokens, return_index=True)
        contexts = np.searchsorted(self.context_offsets, first, side="right") - 1
        numbers: dict[str, int] = {}
        text, before = "", -1
        for place in np.argsort(first):
            if contexts[place] != before:
                before = int(contexts[place])
                text = self.context_text(before)
            token = first[place]
            numbers[text[self.context_starts[token] : self.context_ends[token]]] = int(forms[place])
        assert len(numbers) == len(forms)
        return numbers

    @property
    def share(self) -> float:
        """The share of the data set's articles that they hold: below 1 where an experiment cut them out of others."""
        found = self.manifest.get("share", {})
        return 1.0 if "rest" in found else float(found.get("share", 1.0))

    @property
    def noisy_copies(self) -> int:
        """Noisy copies of each question; 0 where the features have none."""
        return 0 if self.noisy_offsets is None else (len(self.noisy_offsets) - 1) // len(self)

    def question(self, row: int, copy: int = -1) -> NDArray[np.int32]:
        """Tokens of a question.

        :param copy: number of a noisy copy; -1 is the question as it was asked.
        """
        flat, offsets, place = self.question_tokens, self.question_offsets, row
        if copy >= 0:
            assert self.noisy_tokens is not None and self.noisy_offsets is not None
            flat, offsets, place = self.noisy_tokens, self.noisy_offsets, row * self.noisy_copies + copy
        first, last = offsets[place : place + 2]
        return flat[first:last]

    def context_lengths(self) -> NDArray[np.int64]:
        """Tokens of each question's context, shape (questions,)."""
        lengths: NDArray[np.int64] = np.diff(self.context_offsets)[self.question_context]
        return lengths


def offsets_of(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where each row of a flat array begins, and where the last one ends: int64, shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)
