"""Tokens of a text, kept as columns: a document has hundreds of thousands, most of which nobody looks at singly."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload


class Token(NamedTuple):
    """A word, sign or run of white space: `text == source[start:end]`, a half-open range of characters."""

    text: str
    start: int
    end: int


class Tokens(Sequence[Token]):
    """Tokens in order; each is made when it is asked for. Equal to any list or tuple of the same tokens.

    :ivar texts: the tokens' own texts.
    :ivar starts: first character of each.
    :ivar ends: the character after the last one of each.
    """

    __slots__ = ("ends", "starts", "texts")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, texts: list[str], starts: array[int], ends: array[int]) -> None:
        self.texts = texts
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, tokens: Iterable[Token]) -> Tokens:
        """The same tokens as columns."""
        columns = list(tokens)
        starts, ends = array("q", [token.start for token in columns]), array("q", [token.end for token in columns])
        return cls([token.text for token in columns], starts, ends)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Token: ...
    @overload
    def __getitem__(self, index: slice) -> Tokens: ...
    def __getitem__(self, index: int | slice) -> Token | Tokens:
        if isinstance(index, slice):
            return Tokens(self.texts[index], self.starts[index], self.ends[index])
        return Token(self.texts[index], self.starts[index], self.ends[index])

    def __iter__(self) -> Iterator[Token]:
        # tuple.__new__ makes the same Token in half the time.
        return map(tuple.__new__, repeat(Token), zip(self.texts, self.starts, self.ends, strict=True))

    def __eq__(self, other: Any) -> bool:
        if isinstance(other, Tokens):
            return (self.texts, self.starts, self.ends) == (other.texts, other.starts, other.ends)
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(map(tuple.__eq__, self, other))
        return NotImplemented

    def __repr__(self) -> str:
        return f"Tokens({list(self)!r})"
