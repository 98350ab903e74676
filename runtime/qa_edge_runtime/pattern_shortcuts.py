"""Less work for the tokenizer's patterns, each step proved from the pattern's own text.

Most chunks of a text are words of Latin letters, and most patterns ask for a sign, a digit or a blank somewhere: in
"(?<=[0-9])km$" the letters do not matter, for without a digit it never matches. Where each alternative of a pattern
asks for such a character, words of letters alone can be taken as they are.

Most suffixes are one character long: whether a chunk ends in one of these, its last character tells, and only the
others have to be searched for. And no affix but a run of one sign is longer than its pattern has parts: it is looked
for in so much of a chunk's beginning or end alone, or else a chunk of many signs would be read again for each.

The proofs err on one side: what they do not understand is left to the pattern itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LETTERS = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_LETTER = re.compile(f"[{_LETTERS}]")
_EVERY_LETTER = "".join(filter(_LETTER.match, map(chr, range(0x250))))

# Of what a word must be made to be plain.
is_plain_word = re.compile(f"[{_LETTERS}]+").fullmatch

_PARTS = re.compile(
    r"""
      (?P<set> \[ \^? \]? (?: \\. | [^\\\]] )* \] )
    | (?P<open> \( (?! \? ) | \(\?: | \(\?<?= | \(\?P<\w+> )
    | (?P<negative> \(\?<?! )
    | (?P<close> \) )
    | (?P<or> \| )
    | (?P<repeat> (?: [*+?] | \{ (?P<least> \d* ) (?: , \d* )? \} ) [?+]? )
    | (?P<code> \\ (?: x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} ) )
    | (?P<escape> \\ (?: [sSdDwWbBAZ] | [^A-Za-z0-9] ) )
    | (?P<unknown> \\ | \(\? )
    | (?P<anything> [.^$] )
    | (?P<literal> . )
    """,
    re.VERBOSE | re.DOTALL,
)


# An alternative that is one character at the end.
_LAST_CHARACTER = re.compile(
    r"""
    ( \[ \^? \]? (?: \\. | [^\\\]] )* \]
    | \\ (?: x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | U[0-9A-Fa-f]{8} | [^A-Za-z0-9] )
    | [^\\\[\](){}.*+?^$|]
    ) \$
    """,
    re.VERBOSE | re.DOTALL,
)


class _Group:
    """A group that is being read: whether its alternatives so far, and the parts of the one at hand, ask for more
    than letters.
    """

    def __init__(self, negative: bool = False) -> None:
        self.negative = negative
        self.alternatives = True
        self.parts: list[bool] = []

    def end_alternative(self) -> None:
        self.alternatives = self.alternatives and any(self.parts)
        self.parts = []


def spares_plain_words(pattern: str) -> bool:
    """Whether it is certain that a pattern, compiled without flags, matches nowhere in a word of Latin letters.

    :param pattern: one that `re.compile` accepts.
    """
    groups = [_Group()]
    for part in _PARTS.finditer(pattern):
        kind, text, group = part.lastgroup, part.group(), groups[-1]
        if kind == "unknown":  # flags, or an escape like \N{...}: a letter may match after all
            return False
        if kind in ("open", "negative"):
            groups.append(_Group(kind == "negative"))
        elif kind == "or":
            group.end_alternative()
        elif kind == "close":
            group.end_alternative()
            groups.pop()
            groups[-1].parts.append(group.alternatives and not group.negative)
        elif kind == "repeat":
            if text[0] in "*?" or (text[0] == "{" and int(part["least"] or 0) == 0):
                group.parts[-1] = False
        else:
            group.parts.append(_asks_for_more(str(kind), text))
    groups[0].end_alternative()
    return groups[0].alternatives


def _asks_for_more(kind: str, text: str) -> bool:
    """Whether a part that stands for one character, or for a place, matches no letter."""
    if kind == "set":
        # A shortcut: sets of letters are long.
        return text[1] != "^" and "a-z" not in text and "A-Z" not in text and not re.search(text, _EVERY_LETTER)
    if kind == "code":
        return not _LETTER.match(chr(int(text[2:], 16)))
    if kind == "escape":
        return text[1] in "sd" or not (text[1] in "SDwWbBAZ" or _LETTER.match(text[1]))
    return kind == "literal" and not _LETTER.match(text)


Finder = Callable[[str, int, int], int]
"""Gives the length of the affix of `chunk[start:end]`, 0 if it has none."""


def prefix_finder(pattern: str) -> Finder:
    """A function that gives the length of what a pattern of prefixes finds in a part of a chunk.

    :param pattern: alternatives that `re.compile` accepts.
    """
    search, reach = re.compile(pattern).search, _reach(pattern, "^")

    def find(chunk: str, start: int, end: int) -> int:
        if reach and end - start > 2 * reach:
            match = search(chunk[start : start + 2 * reach])
            if match is None or match.end() <= reach:
                return _length(match)
        return _length(search(chunk[start:end]))

    return find


def suffix_finder(pattern: str) -> Finder:
    """A function that gives the length of what a pattern of suffixes finds in a part of a chunk.

    :param pattern: alternatives that `re.compile` accepts.
    """
    search, reach = re.compile(pattern).search, _reach(pattern, "$")
    alternatives = _alternatives(pattern)
    single = [match[1] for match in map(_LAST_CHARACTER.fullmatch, alternatives) if match]
    longer = [alternative for alternative in alternatives if not _LAST_CHARACTER.fullmatch(alternative)]
    if not single or not longer:
        return lambda chunk, start, end: _length(search(chunk[start:end]))
    search_longer = re.compile("|".join(longer)).search
    match_single = re.compile("|".join(single)).match

    def find_in(part: str) -> int:
        # In "a\n" the sign $ is met twice.
        if part.isspace():
            return _length(search(part))
        # What begins before the last character comes first, whichever alternative it is.
        match = search_longer(part)
        if match is None:
            return 1 if match_single(part[-1:]) else 0
        return _length(match) or _length(search(part))

    def find(chunk: str, start: int, end: int) -> int:
        if reach and end - start > 2 * reach:
            tail = chunk[end - 2 * reach : end]
            if not tail.isspace():
                match = search_longer(tail)
                if match is None:
                    return 1 if match_single(tail[-1:]) else 0
                if reach <= match.start() < match.end():
                    return _length(match)
        return find_in(chunk[start:end])

    return find


def _length(match: re.Match[str] | None) -> int:
    return match.end() - match.start() if match else 0


# A sign once or more, and then any number of times.
_RUN_OF_ONE = re.compile(r"\^? (?P<one> \\. | [^\\\[\](){}.*+?^$|] ) (?P=one)* \+ \$?", re.VERBOSE | re.DOTALL)


def _reach(pattern: str, anchor: str) -> int:
    """Characters at a chunk's anchored end within which each alternative is decided, but for runs of one sign, which
    within as many begin; 0 where that cannot be said.
    """
    reach = 0
    for alternative in _alternatives(pattern):
        parts = [(str(part.lastgroup), part.group()) for part in _PARTS.finditer(alternative)]
        if not parts or parts[0 if anchor == "^" else -1] != ("anything", anchor):
            return 0
        if not _RUN_OF_ONE.fullmatch(alternative) and any(kind == "repeat" and text[0] != "?" for kind, text in parts):
            return 0
        reach = max(reach, _width(parts))
    return reach


def _width(parts: list[tuple[str, str]]) -> int:
    """Characters that parts without repeats look at, at most: in a group those of its widest alternative."""
    groups = [[0, 0]]  # of the alternatives so far the widest, and the one at hand
    for kind, _ in parts:
        if kind in ("open", "negative"):
            groups.append([0, 0])
        elif kind == "or":
            groups[-1] = [max(groups[-1]), 0]
        elif kind == "close":
            widest = max(groups.pop())
            groups[-1][1] += widest
        elif kind != "repeat":
            groups[-1][1] += 1
    return max(groups[0])


def _alternatives(pattern: str) -> list[str]:
    """The outermost alternatives of a pattern; none if it holds more than this module understands."""
    depth = start = 0
    found: list[str] = []
    for part in _PARTS.finditer(pattern):
        kind = part.lastgroup
        if kind == "unknown":
            return []
        depth += (kind in ("open", "negative")) - (kind == "close")
        if kind == "or" and not depth:
            found.append(pattern[start : part.start()])
            start = part.end()
    return [*found, pattern[start:]]
