"""Less work for the tokenizer's patterns, each step proved from the pattern's own text.

Most chunks of a text are words of Latin letters, and most patterns ask for a sign, a digit or a blank somewhere: in
"(?<=[0-9])km$" the letters do not matter, for without a digit it never matches. Where each alternative of a pattern
asks for such a character, words of letters alone can be taken as they are.

Most suffixes are one character long: whether a chunk ends in one of these, its last character tells, and only the
others have to be searched for.

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


def suffix_finder(pattern: str) -> Callable[[str], int]:
    """A function that gives the length of what a pattern of suffixes finds in a chunk, 0 if it finds nothing.

    :param pattern: alternatives that `re.compile` accepts.
    """
    search = re.compile(pattern).search
    alternatives = _alternatives(pattern)
    single = [match[1] for match in map(_LAST_CHARACTER.fullmatch, alternatives) if match]
    longer = [alternative for alternative in alternatives if not _LAST_CHARACTER.fullmatch(alternative)]

    def find(chunk: str) -> int:
        match = search(chunk)
        return match.end() - match.start() if match else 0

    if not single or not longer:
        return find
    search_longer = re.compile("|".join(longer)).search
    match_single = re.compile("|".join(single)).match

    def find_quickly(chunk: str) -> int:
        # In "a\n" the sign $ is met twice.
        if chunk.isspace():
            return find(chunk)
        # What begins before the last character comes first, whichever alternative it is.
        match = search_longer(chunk)
        if match is None:
            return 1 if match_single(chunk[-1:]) else 0
        return match.end() - match.start() or find(chunk)

    return find_quickly


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
