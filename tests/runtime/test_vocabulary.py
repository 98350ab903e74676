"""Ids of words and characters."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(words=("the", "Paris", "us", "US", "\x1c", "😀"), characters=("t", "h", "e", "é", "😀"))


def test_word_as_it_is_then_lower_case_then_unknown():
    tokens = ["the", "The", "THE", "Paris", "paris", "us", "US", "Us", "nothing", "", "\x1c", "😀"]
    ids = VOCABULARY.word_ids(tokens)
    assert ids.tolist() == [1, 1, 1, 2, 0, 3, 4, 3, 0, 0, 5, 6]
    assert ids.dtype == np.int64
    assert [VOCABULARY.word_id(token) for token in tokens] == ids.tolist()


def test_character_ids_are_cut_and_padded():
    ids = VOCABULARY.character_ids(["the", "", "é😀x", "t" * 20], width=5)
    assert ids.tolist() == [[2, 3, 4, 0, 0], [0, 0, 0, 0, 0], [5, 6, 1, 0, 0], [2, 2, 2, 2, 2]]
    assert ids.dtype == np.int64
    assert VOCABULARY.character_ids(["the"]).shape == (1, 16)
    assert VOCABULARY.character_ids([]).shape == (0, 16)
    assert VOCABULARY.word_ids([]).shape == (0,)


@settings(deadline=None)
@given(st.lists(st.text(max_size=20)))
def test_ids_stay_in_range_and_rows_are_independent(tokens):
    words, characters = VOCABULARY.word_ids(tokens), VOCABULARY.character_ids(tokens)
    assert ((words >= 0) & (words < VOCABULARY.word_rows)).all()
    assert ((characters >= 0) & (characters < VOCABULARY.character_rows)).all()
    for number, token in enumerate(tokens):
        assert VOCABULARY.word_ids([token])[0] == words[number]
        assert VOCABULARY.character_ids([token])[0].tolist() == characters[number].tolist()
        assert np.count_nonzero(characters[number]) == min(len(token), 16)


def test_no_words_at_all_is_a_vocabulary():
    empty = Vocabulary(words=(), characters=())
    assert (empty.word_rows, empty.character_rows) == (1, 2)
    assert empty.word_ids(["a", "b"]).tolist() == [0, 0]
    assert empty.character_ids(["ab"], width=3).tolist() == [[1, 1, 0]]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=5), unique=True), st.lists(st.characters(), unique=True))
def test_save_then_load_is_identity(tmp_path_factory, words, characters):
    file = tmp_path_factory.mktemp("vocabulary") / "vocabulary.json"
    vocabulary = Vocabulary(words=tuple(words), characters=tuple(characters))
    vocabulary.save(file)
    assert Vocabulary.load(file) == vocabulary
    assert Vocabulary.load(file).word_ids(words).tolist() == list(range(1, len(words) + 1))


def test_lone_surrogate_survives(tmp_path):
    vocabulary = Vocabulary(words=("a\ud800",), characters=("\ud800",))
    vocabulary.save(tmp_path)
    assert (tmp_path / "vocabulary.json").is_file()
    assert Vocabulary.load(tmp_path) == vocabulary


@pytest.mark.parametrize(
    ("words", "characters", "message"),
    [
        (("a", "a"), (), "words holds the same entry twice"),
        (("a", ""), (), "words must be texts"),
        ((1,), (), "words must be texts"),
        ((), ("ab",), "'ab' is not one character"),
        ((), ("a", "a"), "characters holds the same entry twice"),
        (["a"], (), "words must be texts"),
    ],
)
def test_bad_lists_are_refused(words, characters, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(words=words, characters=characters)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("nonsense", "is not JSON"),
        ("[]", "format_version"),
        ("{}", "format_version"),
        ('{"format_version": "1"}', "format_version"),
        ('{"format_version": 0, "words": [], "characters": []}', "expected lists"),
        ('{"format_version": 1, "words": {}, "characters": []}', "expected lists"),
        ('{"format_version": 1, "words": [[1]], "characters": []}', "words must be texts"),
    ],
)
def test_bad_file_is_refused(tmp_path, content, message):
    file = tmp_path / "vocabulary.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        Vocabulary.load(file)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Vocabulary.load(tmp_path)


def test_newer_file_asks_for_an_upgrade(tmp_path):
    (tmp_path / "vocabulary.json").write_text(json.dumps({"format_version": 7, "tokens": []}))
    with pytest.raises(BundleError, match=r"format 7 is newer than this runtime reads \(1\): upgrade qa-edge-runtime"):
        Vocabulary.load(tmp_path)
