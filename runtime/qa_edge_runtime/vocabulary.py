"""Words and characters that a student knows, and their ids."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.files import atomic_write, read_json

FORMAT_VERSION = 1
FILE_NAME = "vocabulary.json"
UNKNOWN_WORD = 0
PADDING_CHARACTER = 0
UNKNOWN_CHARACTER = 1


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of words and characters.

    Word 0 is the unknown word and word i of the list has id i + 1. Character 0 is padding, 1 the unknown character,
    and character i of the list has id i + 2. Both lists may be empty: a student can read by characters alone.

    :raises DataError: if a word or character is empty, is there twice, or a character is longer than one code point.
    """

    words: tuple[str, ...]
    characters: tuple[str, ...]
    _word_index: dict[str, int] = field(init=False, repr=False, compare=False)
    _character_index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Checked in C as far as it goes: a table's 70,000 words are looked through at each start.
        for name, first in (("words", UNKNOWN_WORD + 1), ("characters", UNKNOWN_CHARACTER + 1)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not set(map(type, values)) <= {str} or "" in values:
                raise DataError(f"vocabulary: {name} must be texts that are not empty; make the vocabulary again")
            index = dict(zip(values, range(first, first + len(values)), strict=True))
            if len(index) != len(values):
                raise DataError(f"vocabulary: {name} holds the same entry twice; make the vocabulary again")
            object.__setattr__(self, "_word_index" if name == "words" else "_character_index", index)
        for character in self.characters:
            if len(character) != 1:
                raise DataError(f"vocabulary: {character!r} is not one character; make the vocabulary again")

    @property
    def word_rows(self) -> int:
        """Number of word ids, the unknown word's among them: rows of the vector table."""
        return len(self.words) + 1

    @property
    def character_rows(self) -> int:
        """Number of character ids, those of padding and the unknown character among them."""
        return len(self.characters) + 2

    def word_id(self, token: str) -> int:
        """Id of the word as it is written, else in lower case, else 0."""
        index = self._word_index
        number = index.get(token)
        return index.get(token.lower(), UNKNOWN_WORD) if number is None else number

    def word_ids(self, tokens: Sequence[str]) -> np.ndarray:
        """Ids of words.

        :returns: int64, shape (tokens,).
        """
        index = self._word_index
        found = list(map(index.get, tokens))
        if None in found:
            # Texts are looked up word by word in C, but for those that are not in the list as they are written.
            found = [
                index.get(token.lower(), UNKNOWN_WORD) if number is None else number
                for token, number in zip(tokens, found, strict=True)
            ]
        return np.array(found, dtype=np.int64)

    def character_ids(self, tokens: Sequence[str], width: int = 16) -> np.ndarray:
        """Ids of each token's first characters, padded with 0.

        :param width: characters kept of a token, 16 as in QANet, section 3.1.
        :returns: int64, shape (tokens, width).
        """
        index = self._character_index
        ids = np.full((len(tokens), width), PADDING_CHARACTER, dtype=np.int64)
        for row, token in zip(ids, tokens, strict=True):
            head = token[:width]
            row[: len(head)] = [index.get(character, UNKNOWN_CHARACTER) for character in head]
        return ids

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON.

        :param path: a folder, which gets a vocabulary.json, or the file to write.
        :raises DataError: if the file cannot be written.
        """
        content = {"format_version": FORMAT_VERSION, "words": self.words, "characters": self.characters}
        # With ASCII escapes a lone surrogate, which real text can hold, survives the way through UTF-8.
        atomic_write(_file_of(path), json.dumps(content, separators=(",", ":")) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read a vocabulary.

        :param path: a bundle or run folder, or a vocabulary.json itself.
        :raises DataError: if the file is missing, is not JSON or has another shape.
        :raises BundleError: if it is of a newer format than this runtime reads.
        """
        file = _file_of(path)
        return cls.from_json(read_json(file, "vocabulary"), f"vocabulary {file}")

    @classmethod
    def from_json(cls, content: Any, what: str = "vocabulary") -> Vocabulary:
        """A vocabulary out of its file's JSON.

        :param what: the noun that messages use for it.
        :raises DataError: if it has another shape.
        :raises BundleError: if it is of a newer format than this runtime reads.
        """
        version = content.get("format_version") if isinstance(content, dict) else None
        if type(version) is not int:
            raise DataError(f"{what}: expected an object with a format_version; make the vocabulary again")
        if version > FORMAT_VERSION:
            raise BundleError(
                f"{what} of format {version} is newer than this runtime reads ({FORMAT_VERSION}): "
                "upgrade qa-edge-runtime"
            )
        lists = [content.get("words"), content.get("characters")]
        if version < 1 or not all(isinstance(values, list) for values in lists):
            raise DataError(f"{what}: expected lists of words and characters; make the vocabulary again")
        return cls(words=tuple(content["words"]), characters=tuple(content["characters"]))


def _file_of(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    return file / FILE_NAME if file.is_dir() else file
