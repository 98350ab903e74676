"""Questions as people type them: in lower case, with slips of the finger, without punctuation.

The same text, noise and number give the same result on every machine and in every version of Python.
"""

from __future__ import annotations

import random
import re
import unicodedata
from dataclasses import replace

from qa_edge.squad import Squad, with_questions
from qa_edge_runtime.errors import InputError

NOISES = ("lowercase", "typos", "unpunctuated", "combined")
"""`combined` is all three: slips first, then no punctuation, then lower case."""
SHORTEST_MISTYPED = 4
# Letters beside each letter on a QWERTY keyboard, in its row and in the rows above and below.
_KEYS = "qwertyuiopasdfghjklzxcvbnm"
_BESIDE = (
    "wa qase wsdr edft rfgy tghu yhji ujko iklp ol"
    " qwsz awedxz serfcx drtgvc ftyhbv gyujnb huikmn jiolm kop"
    " asx zsdc xdfv cfgb vghn bhjm njk"
)
NEIGHBOURS = dict(zip(_KEYS, _BESIDE.split(" "), strict=True))
_WORD = re.compile(rf"[^\W\d_]{{{SHORTEST_MISTYPED},}}")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[.,:/\-](?=\d)")
# Punctuation by Unicode's count, but read as a word or a part of one.
_WORD_LIKE = frozenset("%&#@*/\\§")
_SLIPS = ("neighbour", "swap", "drop", "double")


def add_noise(text: str, noise: str, seed: int | str = 0) -> str:
    """A question with a kind of noise.

    It is given back as it is where the noise has nothing to change, or would leave nothing of it.

    :param noise: one of `NOISES`.
    :param seed: of the slips, which differ from text to text; a text says more than a number.
    :raises InputError: if there is no such noise.
    """
    if noise not in NOISES:
        raise InputError(f"noise is {noise!r:.40}, expected one of {', '.join(NOISES)}")
    noisy = text
    if noise in ("typos", "combined"):
        noisy = _mistyped(noisy, random.Random(f"{seed} {text}"))
    if noise in ("unpunctuated", "combined"):
        noisy = _unpunctuated(noisy)
    if noise in ("lowercase", "combined"):
        noisy = noisy.lower()
    return noisy if noisy.strip() else text


def noisy_squad(squad: Squad, noise: str, seed: int = 0) -> Squad:
    """The same data with all questions in a kind of noise; contexts and answers are as they were."""
    return with_questions(squad, lambda one: replace(one, text=add_noise(one.text, noise, f"{seed} {one.id}")))


def _mistyped(text: str, source: random.Random) -> str:
    words = list(_WORD.finditer(text))
    chosen = source.sample(words, min(source.randint(1, 2), len(words)))
    # From the back, so that the places of those before stay as they are.
    for word in sorted(chosen, key=lambda word: -word.start()):
        text = text[: word.start()] + _slip(word.group(), source) + text[word.end() :]
    return text


def _slip(word: str, source: random.Random) -> str:
    """A word with one slip that changes it."""
    places = source.sample(range(len(word)), len(word))
    for kind in source.sample(_SLIPS, len(_SLIPS)):
        for place in places:
            letter, after = word[place], word[place + 1 : place + 2]
            if kind == "neighbour" and letter.lower() in NEIGHBOURS:
                typed = source.choice(NEIGHBOURS[letter.lower()])
                return word[:place] + (typed.upper() if letter.isupper() else typed) + word[place + 1 :]
            if kind == "swap" and after and after != letter:
                return word[:place] + after + letter + word[place + 2 :]
            if kind == "drop":
                return word[:place] + word[place + 1 :]
            if kind == "double":
                return word[:place] + letter + word[place:]
    raise AssertionError("a letter can always be dropped")


def _unpunctuated(text: str) -> str:
    kept = {match.start() for match in _BETWEEN_DIGITS.finditer(text)}
    return " ".join("".join(_sign(character, place in kept) for place, character in enumerate(text)).split())


def _sign(character: str, kept: bool) -> str:
    category = unicodedata.category(character)
    if kept or category[0] != "P" or character in _WORD_LIKE:
        return character
    return " " if category == "Pd" else ""
