"""Words that stand near a word in a file of word vectors."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Container
from random import Random

import numpy as np

from qa_edge.vectors import read_vectors

COMMON_WORDS = 40_000
"""Words of letters at the beginning of the file, by frequency in GloVe's: only these are put in another's place."""
NEAREST = 13
LEAST_SIMILARITY = 0.45
"""Cosine below which a word is no neighbour: whoever has none that is nearer keeps its place."""
# A question keeps its question words, and its grammar as far as that goes.
_FUNCTION_WORDS = """
a an the of in on at by for to from with and or but nor as is are was were be been being do does did done has
have had what which who whom whose when where why how that this these those it its he she they them his her
their there not no than then if into about after before during between under over against through up down out
off many much more most other some any each would could should can may might will shall
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
WORD = re.compile(r"[A-Za-z]+")
_BLOCK = 2000


class _Wanted(Container[str]):
    """The first words of letters that are asked for, and some others wherever they stand."""

    def __init__(self, others: Collection[str]) -> None:
        self.others, self.common = frozenset(others), 0

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str) or not (word.isascii() and word.isalpha()):
            return False
        self.common += 1
        return self.common <= COMMON_WORDS or word in self.others


class NearWords:
    """The neighbours of words in lower case, by the cosine of their vectors.

    :param path: GloVe text, its words by frequency; see `read_vectors`.
    :param words: those whose neighbours will be asked for; function words and words of one or two letters have none.
    :raises DataError: as `read_vectors`.
    """

    def __init__(self, path: str | os.PathLike[str], words: Collection[str]) -> None:
        asked = [word for word in words if word not in FUNCTION_WORDS and len(word) > 2]
        found = read_vectors(path, _Wanted(asked))
        unit = found.array / (np.linalg.norm(found.array, axis=1, keepdims=True) + 1e-9)
        place = {word: number for number, word in enumerate(found.words)}
        asked = [word for word in asked if word in place]
        common = unit[:COMMON_WORDS]
        self._near: dict[str, list[str]] = {}
        for first in range(0, len(asked), _BLOCK):
            part = asked[first : first + _BLOCK]
            cosines = unit[[place[word] for word in part]] @ common.T
            nearest = min(NEAREST, len(common))
            best = np.argpartition(-cosines, nearest - 1, axis=1)[:, :nearest]
            for word, numbers, row in zip(part, best, cosines, strict=True):
                near = [found.words[n] for n in numbers if found.words[n] != word and row[n] > LEAST_SIMILARITY]
                if near:
                    self._near[word] = near

    def __contains__(self, word: str) -> bool:
        return word.lower() in self._near

    def draw(self, word: str, source: Random) -> str:
        """One of a word's neighbours, in its case."""
        near = source.choice(self._near[word.lower()])
        if word.isupper() and len(word) > 1:
            return near.upper()
        return near.capitalize() if word[0].isupper() else near
