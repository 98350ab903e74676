"""The tables: what spaCy has, nothing else, and the same bytes each time."""

from __future__ import annotations

import json
import sys

import pytest

from qa_edge_export.tokenizer_tables import build_tokenizer_tables, write_tokenizer_tables
from qa_edge_runtime.errors import DataError, MissingExtraError
from qa_edge_runtime.tokenizer import Tokenizer

spacy = pytest.importorskip("spacy")


def test_tables_are_spacys():
    nlp = spacy.blank("en")
    tables = build_tokenizer_tables()
    assert tables["format_version"] == 1
    assert tables["spacy_version"] == spacy.__version__
    assert tables["language"] == "en"
    assert tables["prefix"] == nlp.tokenizer.prefix_search.__self__.pattern
    assert tables["suffix"] == nlp.tokenizer.suffix_search.__self__.pattern
    assert tables["infix"] == nlp.tokenizer.infix_finditer.__self__.pattern
    assert tables["url"] == nlp.tokenizer.url_match.__self__.pattern
    assert tables["token_match"] is None
    assert set(tables["exceptions"]) == set(nlp.tokenizer.rules)
    assert tables["exceptions"]["don't"] == ["do", "n't"]


def test_json_keeps_them_whole():
    tables = build_tokenizer_tables()
    assert json.loads(json.dumps(tables)) == tables


def test_same_bytes_each_time(tmp_path):
    write_tokenizer_tables(tmp_path / "a.json")
    write_tokenizer_tables(tmp_path / "b.json", spacy.blank("en"))
    content = (tmp_path / "a.json").read_bytes()
    assert content == (tmp_path / "b.json").read_bytes()
    assert content.isascii()
    assert len(content) < 200_000
    assert Tokenizer.load(tmp_path / "a.json").spacy_version == spacy.__version__


def test_users_exception_is_exported():
    nlp = spacy.blank("en")
    nlp.tokenizer.add_special_case("gimme", [{"ORTH": "gim"}, {"ORTH": "me"}])
    nlp.tokenizer.add_special_case("New York", [{"ORTH": "New York"}])
    tokenizer = Tokenizer(build_tokenizer_tables(nlp))
    for text in ("gimme!", "(gimme New York)", "New  York", "New\nYork New York's"):
        assert [token[:2] for token in tokenizer(text)] == [(token.text, token.idx) for token in nlp(text)]


def test_pattern_that_is_no_pattern_is_refused():
    nlp = spacy.blank("en")
    nlp.tokenizer.prefix_search = lambda text: None
    with pytest.raises(DataError, match="prefix_search is not the search of a plain pattern"):
        build_tokenizer_tables(nlp)


def test_pattern_with_flags_is_refused():
    import re

    nlp = spacy.blank("en")
    nlp.tokenizer.infix_finditer = re.compile("x", re.IGNORECASE).finditer
    with pytest.raises(DataError, match="infix_finditer"):
        build_tokenizer_tables(nlp)


def test_other_tokenizer_is_refused():
    with pytest.raises(DataError, match=r"'zh' is ChineseTokenizer.*use a language such as 'en'"):
        build_tokenizer_tables(spacy.blank("zh"))


def test_without_spacy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match=r'pip install "qa-edge\[train\]"'):
        build_tokenizer_tables()


def test_unwritable_target_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        write_tokenizer_tables(tmp_path / "missing" / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []
