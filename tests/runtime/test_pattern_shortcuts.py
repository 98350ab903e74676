"""What the shortcuts claim about a pattern against what `re` does with it."""

from __future__ import annotations

import json
import re
import warnings
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qa_edge_runtime import pattern_shortcuts
from qa_edge_runtime.pattern_shortcuts import is_plain_word, prefix_finder, spares_plain_words, suffix_finder

# Small words tell as much as long ones: the patterns below know few letters.
PLAIN_WORDS = ["".join(word) for length in (1, 2, 3) for word in product("abé", repeat=length)]

CHARACTERS = [
    *"abé,-9._ {}]",
    r"\.",
    r"\-",
    r"\é",
    r"\n",
    r"\u00e9",
    r"\u2014",
    r"\x61",
    r"\x2c",
    r"\U000000e9",
    r"\141",
]
CLASSES = [r"\d", r"\D", r"\s", r"\S", r"\w", r"\W", r"\b", r"\B", r"\A", r"\Z", "^", "$", r"\N{LATIN SMALL LETTER A}"]
SETS = ["[0-9]", "[a,]", "[^a]", "[^,]", "[,;]", r"[\u2014é]", r"[\]a]", "[]a]", r"[\-,]"]
ATOMS = st.sampled_from([*CHARACTERS, *CLASSES, *SETS])
REPEATS = st.sampled_from(["", "", "", "?", "*", "+", "{0}", "{2}", "{0,1}", "{,2}", "{1,}", "*?", "??", "+?"])
OPENINGS = st.sampled_from(["(", "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?P<n>", "(?i:", "(?x:", "(?>", "(?#"])


def _extend(patterns: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    grouped = st.builds(lambda opening, body, repeat: f"{opening}{body}){repeat}", OPENINGS, patterns, REPEATS)
    chosen = st.lists(patterns, min_size=1, max_size=3).map("|".join)
    return st.one_of(grouped, chosen, st.lists(patterns, min_size=1, max_size=3).map("".join))


PATTERNS = st.recursive(st.builds(lambda atom, repeat: atom + repeat, ATOMS, REPEATS), _extend, max_leaves=8)


def compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.compile(pattern)
        except re.error:
            assume(False)
            raise


ASKING_FOR_MORE = [
    *[",", "[0-9,;]", "[]]", "{", r"\u2014", r"a\d+", "x{1,3}'", "(?:-|--)b", "(?P<name>,)", r"(?<=[A-Z]{2})\.$"],
    *[r"(?<=[0-9])(?:km|m)$", r"^\.\.+|^US\$", r"(?<=[a-z]),(?=[a-z])"],
]
CONTENT_WITH_LETTERS = [
    *[
        "",
        "a",
        ",|a",
        ",?",
        ",*",
        ",{0,2}",
        "(?:,)?",
        "(?!,)",
        "(?<!,)a",
        "(?:,|)",
        "[^,]",
        "[,é]",
        ".",
        "^",
        r"\w",
        r"\S",
    ],
    *[r"\u00e9", r"\x61", r"\141", r"\N{LATIN SMALL LETTER A}", r"(a)\1", "(?i:k)", "(?i)\u212a", "(?x) , ", "(?#,)a"],
]


@pytest.mark.parametrize("pattern", ASKING_FOR_MORE)
def test_patterns_that_ask_for_more_than_letters(pattern):
    assert spares_plain_words(pattern)


@pytest.mark.parametrize("pattern", CONTENT_WITH_LETTERS)
def test_patterns_that_may_match_letters(pattern):
    assert not spares_plain_words(pattern)


@given(PATTERNS)
@settings(max_examples=300, deadline=None)
def test_a_pattern_that_spares_plain_words_matches_none(pattern):
    search = compiled(pattern).search
    if spares_plain_words(pattern):
        assert not any(map(search, PLAIN_WORDS))


@settings(deadline=None)
@given(st.text(max_size=8))
def test_plain_words_are_letters_of_the_latin_script(text):
    plain = bool(text) and all(char.isalpha() and char < "\u0250" and char not in "ªµº" for char in text)
    assert bool(is_plain_word(text)) == plain


ONE_CHARACTER = [",$", r"\.$", r"\u2014$", "[0-9]$", "[^a]$", r"\)$", "a$"]
LONGER = [r"\.\.+$", "'s$", r"(?<=9)km$", r"(?<=a)\.$"]
ODD = ["b?$", r"\s$", ",", "(?=,$)", "(,)$", "(?i:A)$", r"\d$", ".$", "$", "|$", r"\n$", ""]
ALTERNATIVES = st.one_of(
    st.sampled_from(ONE_CHARACTER),
    st.sampled_from(LONGER),
    st.sampled_from(ODD),
    PATTERNS.map(lambda part: f"(?:{part})$"),
)
SUFFIXES = st.lists(ALTERNATIVES, min_size=1, max_size=6).map("|".join)


PREFIXES = st.lists(
    st.one_of(st.sampled_from([f"^{one[:-1]}" for one in (*ONE_CHARACTER, *LONGER)]), st.sampled_from(ODD)),
    min_size=1,
    max_size=6,
).map("|".join)
# Short ones, and such as are longer than what a pattern is looked for in.
CHUNKS = st.lists(
    st.one_of(
        st.text("ab9,.'skm—)\n ", max_size=6),
        st.lists(
            st.sampled_from(["a", "9", ",", ".", "...", "km", "'s", "—", ")", "." * 40, ")" * 40]), max_size=9
        ).map("".join),
    ),
    max_size=8,
)


@given(
    st.sampled_from([(suffix_finder, SUFFIXES), (prefix_finder, PREFIXES)]).flatmap(
        lambda kind: st.tuples(st.just(kind[0]), kind[1])
    ),
    CHUNKS,
)
@settings(max_examples=500, deadline=None)
def test_finders_find_what_the_pattern_finds(kind, chunks):
    finder, pattern = kind
    search = compiled(pattern).search
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        find = finder(pattern)
    for chunk in chunks:
        # A chunk is white space or has none.
        for part in re.findall(r"\s+|\S+", chunk) or [""]:
            match = search(part)
            assert find(f"({part}9", 1, 1 + len(part)) == (match.end() - match.start() if match else 0), part


def test_the_patterns_of_english_are_looked_for_in_a_piece_alone():
    tables = json.loads((Path(__file__).parents[2] / "models/edge/tokenizer.json").read_text())
    assert 0 < pattern_shortcuts._reach(tables["prefix"], "^") < 20
    assert 0 < pattern_shortcuts._reach(tables["suffix"], "$") < 20
    assert pattern_shortcuts._reach(r"a\$", "$") == pattern_shortcuts._reach("a+b$", "$") == 0
