"""Tokens kept as columns are a sequence like any other."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge_runtime.tokens import Token, Tokens


def tokens_of(texts: list[str]) -> tuple[Tokens, list[Token]]:
    """The same tokens, one blank between them, as columns and as a list."""
    expected, start = [], 0
    for text in texts:
        expected.append(Token(text, start, start + len(text)))
        start += len(text) + 1
    return Tokens.of(iter(expected)), expected


TEXTS = st.lists(st.text(min_size=1, max_size=4), max_size=6)


@settings(deadline=None)
@given(TEXTS, st.slices(6), st.integers(-7, 6))
def test_behaves_as_the_list_of_its_tokens(texts, part, index):
    columns, expected = tokens_of(texts)
    assert columns == expected == list(columns) == [*columns]
    assert tuple(expected) == columns
    assert len(columns) == len(expected)
    assert bool(columns) == bool(expected)
    assert columns[part] == expected[part]
    assert isinstance(columns[part], Tokens)
    assert list(reversed(columns)) == expected[::-1]
    assert [*columns, *columns] == expected + expected
    assert all(token in columns and columns.index(token) == expected.index(token) for token in expected)
    if -len(expected) <= index < len(expected):
        assert columns[index] == expected[index]
    else:
        with pytest.raises(IndexError):
            columns[index]


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_equal_if_all_columns_are(one, other):
    assert (tokens_of(one)[0] == tokens_of(other)[0]) == (one == other)
    assert (tokens_of(one)[0] == tokens_of(other)[1]) == (one == other)
    assert tokens_of(one)[0] != "".join(one)


def test_tokens_are_named_and_their_numbers_pythons_own():
    columns, _ = tokens_of(["a", "bc"])
    for token in (columns[1], list(columns)[1], columns[1:][0]):
        assert type(token) is Token
        assert token == ("bc", 2, 4)
        assert [type(value) for value in token] == [str, int, int]
    assert repr(columns) == "Tokens([Token(text='a', start=0, end=1), Token(text='bc', start=2, end=4)])"


def test_copies_are_equal_and_hashes_refused():
    columns, _ = tokens_of(["a", "bc"])
    assert copy.deepcopy(columns) == columns
    with pytest.raises(TypeError, match="unhashable"):
        hash(columns)
