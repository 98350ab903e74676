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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.files import read_json

FORMAT_VERSION = 1
FILE_NAME = "tokenizer.json"
PATTERN_NAMES = ("prefix", "suffix", "infix", "url", "token_match")

_CACHE_CHUNKS = 10_000
# A chunk longer than this is hardly seen twice, and the bound keeps the cache in megabytes.
_CACHE_CHUNK_CHARACTERS = 64
_CHUNK = re.compile(r"\S+|\s+")

Pieces = tuple[str, ...]
Search = Callable[[str], "re.Match[str] | None"]


class Token(NamedTuple):
    """A word, sign or run of white space: `text == source[start:end]`, a half-open range of characters."""

    text: str
    start: int
    end: int


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
        self._search_prefix: Search = patterns["prefix"].search
        self._search_suffix: Search = patterns["suffix"].search
        self._find_infixes = patterns["infix"].finditer
        self._match_url: Search = patterns["url"].match
        self._match_token: Search | None = patterns["token_match"].match if tables.get("token_match") else None
        self._exceptions: dict[str, Pieces] = {chunk: tuple(pieces) for chunk, pieces in tables["exceptions"].items()}
        self._cache: dict[str, Pieces] = {}
        self._phrases = self._build_phrases()
        # The phrases were made without exceptions: what was remembered on the way is not true of texts.
        self._cache.clear()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read the tables of a bundle folder or a run folder, or a tokenizer.json itself.

        :raises DataError: if the file is missing, is not JSON or has another shape.
        :raises BundleError: if it is of a newer format than this runtime reads.
        """
        source = Path(path)
        return cls(read_json(source / FILE_NAME if source.is_dir() else source, "tokenizer file"))

    def __call__(self, text: str) -> list[Token]:
        """Tokens of a text in order; each character outside all of them is a single blank.

        :raises TypeError: if `text` is not a string.
        """
        tokens = self._tokenize_chunks(text)
        phrases = self._find_phrases(tokens)
        return self._replace_phrases(text, tokens, phrases) if phrases else tokens

    # Steps 1 and 2.

    def _tokenize_chunks(self, text: str) -> list[Token]:
        """Tokens before the look for phrases."""
        exceptions, cache, new_token = self._exceptions, self._cache, tuple.__new__
        tokens: list[Token] = []
        append = tokens.append
        for chunk, start in _cut_chunks(text):
            pieces = exceptions.get(chunk) or cache.get(chunk) or self._split_and_remember(chunk)
            for piece in pieces:
                end = start + len(piece)
                # tuple.__new__ makes the same Token in half the time: this line runs once a token.
                append(new_token(Token, (piece, start, end)))
                start = end
        return tokens

    def _split_and_remember(self, chunk: str) -> Pieces:
        pieces = self._split_chunk(chunk, self._exceptions)
        self._remember(chunk, pieces)
        return pieces

    def _remember(self, chunk: str, pieces: Pieces) -> None:
        # Full is full, as in spaCy: the frequent words are in by then.
        if len(self._cache) < _CACHE_CHUNKS and len(chunk) <= _CACHE_CHUNK_CHARACTERS:
            self._cache[chunk] = pieces

    # Steps 3 and 4.

    def _split_chunk(self, chunk: str, exceptions: Mapping[str, Pieces]) -> Pieces:
        """Pieces of a chunk that is no exception itself."""
        core, prefixes, suffixes = self._strip_affixes(chunk, exceptions)
        return (*prefixes, *self._split_core(core, exceptions), *reversed(suffixes))

    def _strip_affixes(self, chunk: str, exceptions: Mapping[str, Pieces]) -> tuple[str, list[str], list[str]]:
        """What is left of a chunk, its prefixes from left to right, and its suffixes from right to left."""
        core = chunk
        prefixes: list[str] = []
        suffixes: list[str] = []
        previous_length = 0
        while core and len(core) != previous_length:
            if core in exceptions or self._is_whole_token(core):
                break
            previous_length = len(core)

            prefix_length = _match_length(self._search_prefix(core))
            without_prefix = core[prefix_length:]
            if prefix_length and without_prefix in exceptions:
                prefixes.append(core[:prefix_length])
                core = without_prefix
                break

            # The suffix is looked for behind the prefix, but cut off the chunk that still has it.
            suffix_length = _match_length(self._search_suffix(without_prefix))
            suffix_start = len(core) - suffix_length
            without_suffix = core[:suffix_start]
            if suffix_length and without_suffix in exceptions:
                suffixes.append(core[suffix_start:])
                core = without_suffix
                break

            if prefix_length and suffix_length and prefix_length <= suffix_start:
                prefixes.append(core[:prefix_length])
                suffixes.append(core[suffix_start:])
                core = core[prefix_length:suffix_start]
            elif prefix_length:
                prefixes.append(core[:prefix_length])
                core = without_prefix
            elif suffix_length:
                suffixes.append(core[suffix_start:])
                core = without_suffix
        return core, prefixes, suffixes

    def _split_core(self, core: str, exceptions: Mapping[str, Pieces]) -> Pieces:
        """Pieces of what the affixes left over."""
        if not core:
            return ()
        # A core has no affixes left, so as a chunk of its own ("word" after "word,") it gives the same pieces.
        pieces = exceptions.get(core) or self._cache.get(core)
        if pieces is None:
            whole = self._is_whole_token(core) or self._match_url(core)
            pieces = (core,) if whole else tuple(self._split_infixes(core))
            self._remember(core, pieces)
        return pieces

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

    def _is_whole_token(self, core: str) -> bool:
        return self._match_token is not None and self._match_token(core) is not None

    # Step 5.

    def _build_phrases(self) -> dict[str, tuple[Pieces, ...]]:
        """What steps 1, 3 and 4 alone make of the exceptions that they can take apart, by the first piece."""
        phrases: dict[str, list[Pieces]] = {}
        for exception in self._exceptions:
            if " " in exception or self._has_affix(exception):
                pieces = tuple(piece for chunk, _ in _cut_chunks(exception) for piece in self._split_chunk(chunk, {}))
                phrases.setdefault(pieces[0], []).append(pieces)
        return {first: tuple(several) for first, several in phrases.items()}

    def _has_affix(self, chunk: str) -> bool:
        return bool(
            _match_length(self._search_prefix(chunk))
            or _match_length(self._search_suffix(chunk))
            or next(self._find_infixes(chunk), None)
        )

    def _find_phrases(self, tokens: Sequence[Token]) -> dict[int, int]:
        """First token and number of tokens of the phrases that count: the longest first, then the leftmost.

        A phrase that overlaps one which came before it does not count, yet bars those that overlap it in turn.
        """
        phrases = self._phrases
        found: list[tuple[int, int]] = []
        for first, token in enumerate(tokens):
            if token[0] in phrases:
                for phrase in phrases[token[0]]:
                    length = len(phrase)
                    if phrase == tuple([other[0] for other in tokens[first : first + length]]):
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

    def _replace_phrases(self, text: str, tokens: Sequence[Token], phrases: Mapping[int, int]) -> list[Token]:
        """Put an exception's own pieces where its phrase stands, if the text there is the exception."""
        result: list[Token] = []
        index = 0
        while index < len(tokens):
            after = index + phrases.get(index, 1)
            start = tokens[index].start
            pieces = self._exceptions.get(text[start : tokens[after - 1].end]) if index in phrases else None
            if pieces is None:
                result.extend(tokens[index:after])
            else:
                for piece in pieces:
                    result.append(Token(piece, start, start + len(piece)))
                    start += len(piece)
            index = after
        return result


def _cut_chunks(text: str) -> Iterator[tuple[str, int]]:
    """Step 1: each chunk and where it starts."""
    for match in _CHUNK.finditer(text):
        chunk, start = match.group(), match.start()
        if start and chunk[0] == " ":
            if chunk != " ":
                yield chunk[1:], start + 1
        else:
            yield chunk, start


def _match_length(match: re.Match[str] | None) -> int:
    return match.end() - match.start() if match else 0


def _compile(name: str, pattern: str | None) -> re.Pattern[str]:
    try:
        # "(?!)" never matches: a language may have no pattern of a kind.
        return re.compile("(?!)" if pattern is None else pattern)
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
