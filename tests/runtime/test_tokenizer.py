"""The pure-Python tokenizer against spaCy itself: every token and every offset."""

from __future__ import annotations

import json
import os
import pkgutil
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge_export.tokenizer_tables import build_tokenizer_tables
from qa_edge_runtime import tokenizer as tokenizer_module
from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.questions import load_squad_questions
from qa_edge_runtime.tokenizer import Token, Tokenizer

spacy = pytest.importorskip("spacy")
NLP = spacy.blank("en")
TABLES = json.loads(json.dumps(build_tokenizer_tables(NLP)))
TOKENIZER = Tokenizer(TABLES)
EXCEPTIONS = sorted(TABLES["exceptions"])
WHITE_SPACE = [chr(code) for code in range(0x3001) if chr(code).isspace()]


def spacy_tokens(text: str) -> list[Token]:
    return [Token(token.text, token.idx, token.idx + len(token.text)) for token in NLP(text)]


# Generated texts: each kind glues its own nasty material together.
# ruff: noqa: SIM905

WORDS = (
    "the Dr. U.S. cannot Can't don’t 10km 3.5% $5 e.g. a.m.! 9a.m. McDonald's C++ 7-3 x/y lor's-n it's ’s O'Neil"
).split()
SIGNS = [*"""!?.,;:'"()[]{}<>-_/\\|@#$%^&*+=~`…–—“”‘’«»„、。！？，；：・·§°€£¥₹©™½²()""", "...", "--", "''", "``"]
URLS = (
    "http://a.b.com/c?d=e&f=(g) www.example.org, x@y.co.uk. mailto:x@y ftp://1.2.3.4:80/ example.com/path- "
    "https://ü.de/ä user@host 10.0.0.1 git+ssh://h/p#q foo.bar.baz http://[::1]/ //cdn.net a.b-c.d"
).split()
EMOTICONS = (
    ":) :-) :( ;) :'( :D =D <3 </3 (-_-) ¯\\(ツ)/¯ ಠ_ಠ (╯°□°）╯︵┻━┻ :-))) (: 8-D xD XDD ^_^ O_o >.< ;-)) :-/"
).split()
THUMB, DARK, JOIN, AS_EMOJI = "\U0001f44d", "\U0001f3ff", "\u200d", "\ufe0f"
FAMILY = JOIN.join("\U0001f468\U0001f469\U0001f467\U0001f466")
FLAGS = ["\U0001f1e9\U0001f1ea", f"\U0001f3f3{AS_EMOJI}{JOIN}\U0001f308"]
EMOJI = [THUMB, THUMB + DARK, FAMILY, *FLAGS, f"\u2764{AS_EMOJI}", "\u260e", f"1{AS_EMOJI}\u20e3", f"©{AS_EMOJI}"]
SCRIPTS = [
    "中文字",
    "日本語の文。",
    "한국어",
    "العَرَبِيَّة،",
    "שָׁלוֹם",
    "हिन्दी।",
    "ไทย",
    "Ünïcödé",
    "é",
    "ﬁ",
    "Ⅷ",
    "ß",
    "İi",
    "𝔘𝔫𝔦",
    "১২৩",
    "٣٫٥",
]
INVISIBLE = [
    "\u200b",
    "\u200c",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u00ad",
    "\u202e",
    "\ufe0f",
    "\u0301",
    "\x00",
    "\x7f",
    "\x1b",
    "\ufffd",
]
POOLS = {
    "words": (WORDS, SIGNS),
    "white space": (WORDS, WHITE_SPACE, WHITE_SPACE, [" ", "  ", " \n ", "\r\n"]),
    "exceptions": (EXCEPTIONS, SIGNS, [" ", ""]),
    "URLs": (URLS, SIGNS, WORDS, [" "]),
    "emoticons": (EMOTICONS, SIGNS, EXCEPTIONS, [" ", ""]),
    "emoji": (EMOJI, EMOTICONS, WORDS, [" ", ""]),
    "scripts": (SCRIPTS, SIGNS, WORDS, EMOJI, [" ", ""]),
    "invisible": (INVISIBLE, WORDS, WHITE_SPACE, SIGNS),
    "everything": (WORDS, SIGNS, URLS, EMOTICONS, EMOJI, SCRIPTS, INVISIBLE, WHITE_SPACE, EXCEPTIONS, [" "], [" "]),
}


def random_characters(rng: random.Random) -> str:
    ranges = (
        (0, 0x7F),
        (0, 0x24F),
        (0x2000, 0x206F),
        (0x300, 0x6FF),
        (0x3000, 0xD7FF),
        (0x1F000, 0x1FAFF),
        (0, 0x10FFFF),
    )
    codes = (rng.randint(*rng.choice(ranges)) for _ in range(rng.randint(1, 30)))
    return "".join(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)


def generated_texts(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    kinds = list(POOLS.values())
    for number in range(count):
        kind = number % (len(kinds) + 2)
        if kind < len(kinds):
            yield "".join(rng.choice(rng.choice(kinds[kind])) for _ in range(rng.randint(1, 25)))
        elif kind == len(kinds):
            yield random_characters(rng)
        else:
            # A very long run of one or two things now and then; spaCy's own time grows with the square of its length.
            unit = rng.choice([*SIGNS, *WORDS, *EMOJI, *SCRIPTS, *WHITE_SPACE, *EMOTICONS])
            length = rng.choice([3, 10, 30] * 30 + [300])
            yield rng.choice(["", "a", "("]) + unit * length + rng.choice(["", "b", ")", rng.choice(SIGNS)])


def assert_like_spacy(texts: Iterator[str]) -> tuple[int, int]:
    """Number of texts and of tokens compared."""
    text_count = token_count = 0
    for text in texts:
        tokens = TOKENIZER(text)
        expected = spacy_tokens(text)
        assert tokens == expected, f"{text!r}: {tokens} is not spaCy's {expected}"
        text_count += 1
        token_count += len(tokens)
    return text_count, token_count


def test_generated_texts_as_spacy():
    texts, tokens = assert_like_spacy(generated_texts(4000, seed=1))
    assert texts == 4000
    assert tokens > 30_000


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_as_spacy(text):
    assert TOKENIZER(text) == spacy_tokens(text)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([*EXCEPTIONS, *SIGNS, *WORDS, *URLS, *WHITE_SPACE, *[" "] * 200]), max_size=12))
def test_glued_pieces_as_spacy(pieces):
    text = "".join(pieces)
    assert TOKENIZER(text) == spacy_tokens(text)


@pytest.mark.parametrize("exception", [0, 1, 2])
def test_each_exception_in_each_company(exception):
    for chunk in EXCEPTIONS[exception::3]:
        for pattern in ("{}", "({})", "a {} b", '"{}".', "{0}{0}", "{}!", "x-{}", "{},{}", " {}\n", "({}:)"):
            text = pattern.format(chunk, chunk)
            assert TOKENIZER(text) == spacy_tokens(text), text


@pytest.mark.parametrize(
    "text", ["", " ", "  ", "\n", "a", "a ", " a", "a  b", " \t a \n\n b  ", "\xa0", "a\xa0b", "\x1c\x1f x"]
)
def test_white_space_as_spacy(text):
    assert TOKENIZER(text) == spacy_tokens(text)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([*WHITE_SPACE, *[" "] * 30, *["a", ",", "b.", "can't", ":)"] * 8]), max_size=14))
def test_white_space_between_words_as_spacy(pieces):
    text = "".join(pieces)
    assert TOKENIZER(text) == spacy_tokens(text)


def test_white_space_is_what_the_module_says():
    documented = [0x9, 0xA, 0xB, 0xC, 0xD, *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)]
    documented += [0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
    assert [chr(code) for code in range(0x110000) if re.match(r"\s", chr(code))] == [chr(code) for code in documented]
    assert [chr(code) for code in range(0x110000) if chr(code).isspace()] == [chr(code) for code in documented]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_tokens_cover_all_but_single_blanks(text):
    end = 0
    for token in TOKENIZER(text):
        assert token.text == text[token.start : token.end] != ""
        assert text[end : token.start] in ("", " ")
        end = token.end
    assert text[end:] in ("", " ")


@pytest.mark.parametrize("language", ["de", "es", "el", "hu", "fa", "ru"])
def test_other_languages_as_spacy(language):
    assert_language_as_spacy(spacy.blank(language))


@pytest.mark.slow
def test_every_language_with_spacys_own_tokenizer_as_spacy():
    compared = []
    for module in filter(lambda module: module.ispkg, pkgutil.iter_modules(spacy.lang.__path__)):
        try:
            nlp = spacy.blank(module.name)
        except ImportError:  # no language, or one that needs another package
            continue
        if type(nlp.tokenizer) is spacy.tokenizer.Tokenizer:
            assert_language_as_spacy(nlp)
            compared.append(module.name)
    print(f"{len(compared)} languages: {' '.join(compared)}")
    assert len(compared) > 50


def assert_language_as_spacy(nlp):
    tables = build_tokenizer_tables(nlp)
    tokenizer = Tokenizer(tables)
    chunks = sorted(tables["exceptions"])
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choice(rng.choice([chunks, SIGNS, WORDS, SCRIPTS, [" "]])) for _ in range(12))
        assert [token[:2] for token in tokenizer(text)] == [(token.text, token.idx) for token in nlp(text)]


def test_result_does_not_depend_on_earlier_texts(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_CACHE_CHUNKS", 50)
    used = Tokenizer(TABLES)
    texts = list(generated_texts(300, seed=2))
    for text in [*texts, *reversed(texts)]:
        assert used(text) == TOKENIZER(text)
        assert len(used._known) <= len(EXCEPTIONS) + 50


def test_cache_is_bounded():
    tokenizer = Tokenizer(TABLES)
    for number in range(25_000):
        tokenizer(f"word{number}")
    tokenizer("x" * 10_000)
    assert 0 < len(tokenizer._known) - len(EXCEPTIONS) <= 10_000
    assert max(map(len, tokenizer._known)) <= 64


def test_more_chunks_than_are_remembered_in_one_text(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_CACHE_CHUNKS", 7)
    text = "\n\n".join(generated_texts(300, seed=6))
    tokenizer = Tokenizer(TABLES)
    assert tokenizer(text) == spacy_tokens(text) == tokenizer(text)
    assert len(tokenizer._known) == len(EXCEPTIONS) + 7


def test_columns_hold_pythons_own_numbers():
    tokens = TOKENIZER("A (b),\n c.")
    assert {type(number) for number in (*tokens.starts, *tokens.ends)} == {int}
    assert [*zip(tokens.texts, tokens.starts, tokens.ends, strict=True)] == [*tokens]


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["a"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match="expected str"):
        TOKENIZER(text)


def test_without_the_shortcuts_the_tokens_are_the_same(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "spares_plain_words", lambda pattern: False)
    slow = Tokenizer(TABLES)
    assert TOKENIZER._is_plain("word")
    assert not slow._is_plain("word")
    assert slow._phrases == TOKENIZER._phrases
    for text in generated_texts(500, seed=7):
        assert slow(text) == TOKENIZER(text)


def test_threads_share_a_tokenizer(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_CACHE_CHUNKS", 20)
    shared = Tokenizer(TABLES)
    texts = list(generated_texts(200, seed=4))
    expected = [TOKENIZER(text) for text in texts]
    failures: list[str] = []

    def work(offset: int) -> None:
        for number in range(len(texts)):
            index = (number + offset) % len(texts)
            if shared(texts[index]) != expected[index]:
                failures.append(texts[index])

    threads = [threading.Thread(target=work, args=(50 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_lone_surrogate_is_a_character():
    assert [token.text for token in TOKENIZER("a \ud800 b")] == ["a", "\ud800", "b"]


def test_load_from_file_and_folder(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(TABLES))
    for path in (file, tmp_path, str(tmp_path)):
        loaded = Tokenizer.load(path)
        assert loaded("Don't go (now).") == spacy_tokens("Don't go (now).")
        assert (loaded.spacy_version, loaded.language) == (spacy.__version__, "en")


def test_newer_tables_ask_for_an_upgrade():
    with pytest.raises(BundleError, match=r"format 2 are newer than this runtime reads \(1\): upgrade qa-edge-runtime"):
        Tokenizer({"format_version": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": None}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"format_version": 0}, "format_version is 0"),
        ({"spacy_version": 3}, "spacy_version"),
        ({"language": None}, "language"),
        ({"prefix": ["a"]}, "prefix is missing or not a pattern"),
        ({"suffix": "("}, "suffix pattern is broken"),
        ({"infix": "[z-a]"}, "infix pattern is broken"),
        ({"exceptions": [1]}, "exceptions"),
        ({"exceptions": {"ab": ["a", "c"]}}, "'ab'"),
        ({"exceptions": {"ab": ["ab", ""]}}, "'ab'"),
        ({"exceptions": {"ab": "ab"}}, "'ab'"),
        ({"exceptions": {"": []}}, "''"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(change, message):
    with pytest.raises(DataError, match=message) as caught:
        Tokenizer({**TABLES, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["format_version", "spacy_version", "language", "url", "token_match", "exceptions"])
def test_missing_table_is_named(name):
    with pytest.raises(DataError, match=name):
        Tokenizer({key: value for key, value in TABLES.items() if key != name})


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("{", "is not JSON"), ("[]", "expected an object")])
def test_bad_file_is_refused(tmp_path, content, message):
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(file)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Tokenizer.load(tmp_path)


@pytest.mark.slow
def test_fifty_thousand_generated_texts_as_spacy():
    texts, tokens = assert_like_spacy(generated_texts(50_000, seed=5))
    print(f"{texts} generated texts, {tokens} tokens")
    assert texts == 50_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["squad/train-v1.1.json", "squad/dev-v1.1.json", "adversarial/AddSent.json", "adversarial/AddOneSent.json"]
)
def test_all_of_squad_as_spacy(name):
    if "QA_EDGE_DATA" not in os.environ:
        pytest.skip("needs QA_EDGE_DATA, the folder of real data")
    questions = load_squad_questions(Path(os.environ["QA_EDGE_DATA"]) / name)
    texts = dict.fromkeys(text for question in questions for text in (question.context, question.question))
    count, tokens = assert_like_spacy(iter(texts))
    print(f"{name}: {len(questions)} questions, {count} distinct texts, {tokens} tokens")
    assert count == len(texts) > 1000
