"""spaCy's tokens without spaCy: the steps of `spacy.tokenizer.Tokenizer`, driven by tables that the export writes.

The steps, in the order in which a port to another language would write them:

1. Cut the text into *chunks*: runs of white space and runs of everything else. One blank (U+0020) that follows a
   chunk is swallowed; all other white space becomes tokens.
2. A chunk that is an *exception* ("can't", ":-)") has its pieces listed in the tables.
3. From any other chunk, strip *affixes*: the prefix and the suffix pattern in turn, until neither matches or what is
   left is an exception.
4. Split what is left, the *core*: an exception gives its pieces, a URL stays whole, anything else is cut at each
   match of the infix pattern.
5. Look through the tokens of the whole text for *phrases*: exceptions which the steps before took apart unseen, at
   an affix (":)" inside "(:)") or a blank (Spanish "EE. UU."). Where the text agrees exactly, their listed pieces
   replace the tokens.

White space is what Python calls so: U+0009-000D, U+001C-0020, U+0085, U+00A0, U+1680, U+2000-200A, U+2028, U+2029,
U+202F, U+205F and U+3000. Patterns are matched by Python's `re` without flags. The source of every step is
`spacy/tokenizer.pyx`, version 3.8.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Mapping
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.files import read_json
from qa_edge_runtime.pattern_shortcuts import is_plain_word, prefix_finder, spares_plain_words, suffix_finder
from qa_edge_runtime.tokens import Token, Tokens

__all__ = ["FILE_NAME", "FORMAT_VERSION", "PATTERN_NAMES", "Token", "Tokenizer", "Tokens"]

FORMAT_VERSION = 1
FILE_NAME = "tokenizer.json"
PATTERN_NAMES = ("prefix", "suffix", "infix", "url", "token_match")

_CACHE_CHUNKS = 10_000
# A chunk longer than this is hardly seen twice, and the bound keeps the cache in megabytes.
_CACHE_CHUNK_CHARACTERS = 64
# A language may have no pattern of a kind.
_NEVER = re.compile("(?!)")
# White space that is more than one blank between two chunks.
_RUN = re.compile(r"\s(?:(?<! )\s*|\s+)|^ ")

Pieces = tuple[str, ...]
Search = Callable[[str], "re.Match[str] | None"]


class Tokenizer:
    """Cuts text into the tokens that spaCy gives, white-space tokens included, with their character ranges.

    Thread safe. The chunks seen are remembered (10,000 at most); the result never depends on them.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        """Compile the tables of `qa_edge_export.tokenizer_tables.build_tokenizer_tables`.

        :raises DataError: if a table is missing or of another shape.
        :raises BundleError: if the tables are of a newer format than this runtime reads.
        """
        _check_tables(tables)
        self.spacy_version: str = tables["spacy_version"]
        self.language: str = tables["language"]
        patterns = {name: _compile(name, tables.get(name)) for name in PATTERN_NAMES}
        self._find_prefix = prefix_finder(patterns["prefix"].pattern)
        self._find_suffix = suffix_finder(patterns["suffix"].pattern)
        self._find_infixes = patterns["infix"].finditer
        self._match_url: Search = patterns["url"].match
        self._match_token: Search = patterns["token_match"].match
        self._has_tokens = tables["token_match"] is not None
        spared = all(tables[name] is None or spares_plain_words(tables[name]) for name in ("prefix", "suffix", "infix"))
        # Words in which no affix and no infix can be: one token each, if they are no exceptions.
        self._is_plain: Callable[..., re.Match[str] | None] = is_plain_word if spared else _NEVER.match
        self._exceptions: dict[str, Pieces] = {chunk: tuple(pieces) for chunk, pieces in tables["exceptions"].items()}
        self._longest = max(map(len, self._exceptions), default=0)
        # What chunks give: the exceptions, for good, and the first others that are met.
        self._known: dict[str, Pieces] = dict(self._exceptions)
        self._phrases = self._build_phrases()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read the tables of a bundle folder or a run folder, or a tokenizer.json itself.

        :raises DataError: if the file is missing, is not JSON or has another shape.
        :raises BundleError: if it is of a newer format than this runtime reads.
        """
        source = Path(path)
        return cls(read_json(source / FILE_NAME if source.is_dir() else source, "tokenizer file"))

    def __call__(self, text: str) -> Tokens:
        """Tokens of a text in order; each character outside all of them is a single blank.

        :raises TypeError: if `text` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"the text is {type(text).__name__}, expected str")
        # What is done for each token is done in C: a document has hundreds of thousands of them.
        chunks, glued = _cut_chunks(text)
        pieces = self._split_chunks(chunks)
        texts = list(chain.from_iterable(pieces))
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        # Before each chunk lies a blank, unless it is glued to the one before.
        blanks = np.ones(len(chunks), dtype=np.int64)
        blanks[glued] = 0
        ends = np.cumsum(lengths)
        ends += np.repeat(np.cumsum(blanks), np.fromiter(map(len, pieces), dtype=np.intp, count=len(pieces)))
        tokens = Tokens(texts, _to_array(ends - lengths), _to_array(ends))
        phrases = self._find_phrases(texts)
        return self._replace_phrases(text, tokens, phrases) if phrases else tokens

    # Steps 1 and 2.

    def _split_chunks(self, chunks: list[str]) -> list[Pieces]:
        """Pieces of each chunk."""
        found = list(map(self._known.get, chunks))
        if None in found:
            fresh: dict[str, Pieces] = {}
            for index in [index for index, pieces in enumerate(found) if pieces is None]:
                chunk = chunks[index]
                if chunk not in fresh:
                    fresh[chunk] = self._split_chunk(chunk, self._exceptions)
                found[index] = fresh[chunk]
            self._remember(fresh)
        return found  # type: ignore[return-value]  # no None is left

    def _remember(self, fresh: Mapping[str, Pieces]) -> None:
        # Full is full, as in spaCy: the frequent words are in by then.
        room = len(self._exceptions) + _CACHE_CHUNKS - len(self._known)
        if room > 0:
            short = ((chunk, pieces) for chunk, pieces in fresh.items() if len(chunk) <= _CACHE_CHUNK_CHARACTERS)
            self._known.update(islice(short, room))

    # Steps 3 and 4.

    def _split_chunk(self, chunk: str, exceptions: Mapping[str, Pieces]) -> Pieces:
        """Pieces of a chunk that is no exception itself."""
        if self._is_plain(chunk):
            return (chunk,)
        core, prefixes, suffixes = self._strip_affixes(chunk, exceptions)
        return (*prefixes, *self._split_core(core, exceptions), *reversed(suffixes))

    def _strip_affixes(self, chunk: str, exceptions: Mapping[str, Pieces]) -> tuple[str, list[str], list[str]]:
        """What is left of a chunk, its prefixes from left to right, and its suffixes from right to left."""
        start, end, before = 0, len(chunk), 0
        prefixes: list[str] = []
        suffixes: list[str] = []
        while start < end and end - start != before:
            if self._is_whole(chunk, start, end, exceptions):
                break
            before = end - start
            inner = start + self._find_prefix(chunk, start, end)
            if inner > start and self._is_exception(chunk, inner, end, exceptions):
                prefixes.append(chunk[start:inner])
                start = inner
                break
            # The suffix is looked for behind the prefix, but cut off the chunk that still has it.
            outer = end - self._find_suffix(chunk, inner, end)
            if outer < end and self._is_exception(chunk, start, outer, exceptions):
                suffixes.append(chunk[outer:end])
                end = outer
                break
            if outer < end and (inner == start or inner <= outer):
                suffixes.append(chunk[outer:end])
                end = outer
            if inner > start:
                prefixes.append(chunk[start:inner])
                start = inner
        return chunk[start:end], prefixes, suffixes

    def _is_whole(self, chunk: str, start: int, end: int, exceptions: Mapping[str, Pieces]) -> bool:
        """Whether nothing is cut off this part of a chunk."""
        # The last character first: a long word before many signs would be read again for each of them.
        plain = self._is_plain(chunk, end - 1, end) and self._is_plain(chunk, start, end)
        if plain or self._is_exception(chunk, start, end, exceptions):
            return True
        return self._has_tokens and self._match_token(chunk[start:end]) is not None

    def _is_exception(self, chunk: str, start: int, end: int, exceptions: Mapping[str, Pieces]) -> bool:
        return end - start <= self._longest and chunk[start:end] in exceptions

    def _split_core(self, core: str, exceptions: Mapping[str, Pieces]) -> Pieces:
        """Pieces of what the affixes left over."""
        if not core:
            return ()
        if core in exceptions:
            return exceptions[core]
        whole = self._is_plain(core) or self._match_token(core) or self._match_url(core)
        return (core,) if whole else tuple(self._split_infixes(core))

    def _split_infixes(self, core: str) -> list[str]:
        """Pieces before, in and behind each infix; an infix at the very beginning does not count."""
        pieces: list[str] = []
        end = 0
        for infix in self._find_infixes(core):
            if infix.start() == 0:
                continue
            if infix.start() != end:
                pieces.append(core[end : infix.start()])
            if infix.start() != infix.end():
                pieces.append(infix.group())
            end = infix.end()
        if end < len(core):
            pieces.append(core[end:])
        return pieces

    # Step 5.

    def _build_phrases(self) -> dict[str, dict[str, list[Pieces]]]:
        """What steps 1, 3 and 4 alone make of the exceptions that they can take apart, by the first piece and the
        second, "" where there is none.
        """
        phrases: dict[str, dict[str, list[Pieces]]] = {}
        for exception, own_pieces in self._exceptions.items():
            if " " in exception or self._has_affix(exception):
                pieces = tuple(chain.from_iterable(self._split_chunk(chunk, {}) for chunk in _cut_chunks(exception)[0]))
                # One that is its own and only piece changes nothing, and bars nothing that is as long.
                if len(pieces) > 1 or pieces != own_pieces:
                    first, second = (*pieces, "")[:2]
                    phrases.setdefault(first, {"": []}).setdefault(second, []).append(pieces)
        return phrases

    def _has_affix(self, chunk: str) -> bool:
        return not self._is_plain(chunk) and bool(
            self._find_prefix(chunk, 0, len(chunk))
            or self._find_suffix(chunk, 0, len(chunk))
            or next(self._find_infixes(chunk), None)
        )

    def _find_phrases(self, texts: list[str]) -> dict[int, int]:
        """First token and number of tokens of the phrases that count: the longest first, then the leftmost.

        A phrase that overlaps one which came before it does not count, yet bars those that overlap it in turn.
        """
        phrases = self._phrases
        found: list[tuple[int, int]] = []
        for first in compress(range(len(texts)), map(phrases.__contains__, texts)):
            seconds = phrases[texts[first]]
            second = seconds.get(texts[first + 1], ()) if first + 1 < len(texts) else ()
            for phrase in chain(seconds[""], second):
                length = len(phrase)
                if phrase == tuple(texts[first : first + length]):
                    found.append((-length, first))
        found.sort()
        taken: set[int] = set()
        chosen: dict[int, int] = {}
        for negative_length, first in found:
            end = first - negative_length
            if first not in taken and end - 1 not in taken:
                chosen[first] = -negative_length
            taken.update(range(first, end))
        return chosen

    def _replace_phrases(self, text: str, tokens: Tokens, phrases: Mapping[int, int]) -> Tokens:
        """Put an exception's own pieces where its phrase stands, if the text there is the exception."""
        texts: list[str] = []
        starts, ends = array("q"), array("q")
        done = 0
        for first in sorted(phrases):
            after = first + phrases[first]
            start = tokens.starts[first]
            pieces = self._exceptions.get(text[start : tokens.ends[after - 1]])
            if pieces is None:
                continue
            texts += tokens.texts[done:first]
            starts += tokens.starts[done:first]
            ends += tokens.ends[done:first]
            for piece in pieces:
                texts.append(piece)
                starts.append(start)
                start += len(piece)
                ends.append(start)
            done = after
        return Tokens(texts + tokens.texts[done:], starts + tokens.starts[done:], ends + tokens.ends[done:])


def _cut_chunks(text: str) -> tuple[list[str], list[int]]:
    """Step 1: the chunks in order, and the numbers of those before which no blank is swallowed."""
    chunks = text.split(" ")
    if "\n" not in text and chunks == text.split():
        # The common case: nothing but words with one blank between them.
        return chunks, [0]
    chunks, glued, done = [], [0], 0
    for run in _RUN.finditer(text):
        start, end = run.span()
        if start > done:
            chunks += text[done:start].split(" ")
        # The first blank of a run belongs to the chunk before it.
        swallowed = start > 0 and text[start] == " "
        if not swallowed:
            glued.append(len(chunks))
        chunks.append(text[start + swallowed : end])
        glued.append(len(chunks))
        done = end
    rest = text[done:].split(" ")
    if not rest[-1]:
        # A blank at the very end is swallowed, or there is nothing behind the last run.
        rest.pop()
    chunks += rest
    if glued[-1] == len(chunks):
        glued.pop()
    return chunks, glued


def _to_array(values: np.ndarray) -> array[int]:
    """The numbers as an array whose elements are Python's own."""
    result = array("q")
    result.frombytes(values.astype(np.int64, copy=False).tobytes())
    return result


def _compile(name: str, pattern: str | None) -> re.Pattern[str]:
    try:
        return _NEVER if pattern is None else re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise DataError(f"tokenizer tables: the {name} pattern is broken ({error}); export the bundle again") from error


def _check_tables(tables: Any) -> None:
    """Refuse tables of another shape, before anything is compiled."""
    if not isinstance(tables, Mapping) or type(tables.get("format_version")) is not int:
        raise DataError("tokenizer tables: expected an object with a format_version; export the bundle again")
    version = tables["format_version"]
    if version > FORMAT_VERSION:
        raise BundleError(
            f"tokenizer tables of format {version} are newer than this runtime reads ({FORMAT_VERSION}): "
            "upgrade qa-edge-runtime"
        )
    if version < 1:
        raise DataError(f"tokenizer tables: format_version is {version}, expected 1; export the bundle again")
    for name in ("spacy_version", "language"):
        if not isinstance(tables.get(name), str):
            raise DataError(f"tokenizer tables: {name} is missing or not text; export the bundle again")
    for name in PATTERN_NAMES:
        if name not in tables or not isinstance(tables[name], str | None):
            raise DataError(f"tokenizer tables: {name} is missing or not a pattern; export the bundle again")
    exceptions = tables.get("exceptions")
    if not isinstance(exceptions, Mapping):
        raise DataError("tokenizer tables: exceptions is missing or not an object; export the bundle again")
    for chunk, pieces in exceptions.items():
        whole = isinstance(pieces, list | tuple) and all(isinstance(piece, str) and piece for piece in pieces)
        if not whole or not chunk or "".join(pieces) != chunk:
            raise DataError(
                f"tokenizer tables: the pieces of exception {chunk!r} do not make it up; export the bundle again"
            )
