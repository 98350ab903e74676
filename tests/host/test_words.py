"""Words of a text and of the training contexts, counted as the bundle's table needs them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_teacher import Workshop, ran, run

from qa_edge.bundle import word_counts
from qa_edge.features import Features
from qa_edge.squad import read_squad
from qa_edge.words import count_words_of_features, count_words_of_text, read_words
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary


def test_words_of_the_features_are_those_of_the_training_contexts(shop: Workshop) -> None:
    features = Features.open(shop.run / "features")
    tokenizer, expected = Tokenizer.load(shop.run), Counter[str]()
    for row in range(len(features.text_offsets) - 1):
        expected.update(token.text for token in tokenizer(features.context_text(row)))
    assert count_words_of_features(features) == expected


def test_words_of_a_squad_file_are_those_of_its_contexts_and_questions(shop: Workshop) -> None:
    tokenizer, expected = Tokenizer.load(shop.run), Counter[str]()
    for _, paragraph in read_squad(shop.dev).paragraphs():
        for text in (paragraph.context, *(question.text for question in paragraph.questions)):
            expected.update(token.text for token in tokenizer(text))
    assert count_words_of_text(shop.dev, tokenizer) == expected


def test_a_plain_text_and_a_list_of_words_are_read_by_line(shop: Workshop, tmp_path: Path) -> None:
    text = tmp_path / "manual.txt"
    text.write_text("The pump.\nThe valve, the pump.\n", encoding="utf-8")
    found = count_words_of_text(text, Tokenizer.load(shop.run))
    assert (found["The"], found["the"], found["pump"], found["."]) == (2, 1, 2, 2)
    text.write_text(" pump \n\nvalve\n", encoding="utf-8")
    assert read_words(text, Tokenizer.load(shop.run)) == ["pump", "valve"]
    text.write_text("New York\ndon't\npump\n", encoding="utf-8")
    assert read_words(text, Tokenizer.load(shop.run)) == ["New", "York", "do", "n't", "pump"]
    text.write_text("pump\nvalve\n", encoding="utf-8-sig")  # as editors of Windows write it
    assert read_words(text, Tokenizer.load(shop.run)) == ["pump", "valve"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_text_that_cannot_be_read_is_one_sentence(content: bytes | None, shop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"text\.txt"):
        count_words_of_text(path, Tokenizer.load(shop.run))
    result = run("export", shop.run, "--fp32", "-o", tmp_path / "x.qab", "--words", path)
    assert result.exit_code == 1 and "text.txt" in result.stderr and not (tmp_path / "x.qab").exists()


def test_without_features_the_most_frequent_words_of_the_vocabulary_come_first(shop: Workshop, tmp_path: Path) -> None:
    Vocabulary(words=("the", "pump", "valve"), characters=("a",)).save(tmp_path)
    counts, text = word_counts(tmp_path, None, Tokenizer.load(shop.run))
    assert "vocabulary" in text
    assert sorted(counts, key=lambda word: -counts[word]) == ["the", "pump", "valve"]


def test_a_domain_s_words_and_a_size_in_megabytes_reach_the_bundle(shop: Workshop, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("zyzzyva\n", encoding="utf-8")
    target = tmp_path / "small.qab"
    size = ("--max-size", "0.5", "--words", words, "--margin", "100")
    ran("export", shop.run, "--fp32", "-o", target, *size)
    held = json.loads((target / "vocabulary.json").read_text())["words"]
    assert held[0] == "zyzzyva"
    assert sum(file.stat().st_size for file in target.iterdir()) <= 500_000
    result = run("export", shop.run, "--fp32", "-o", tmp_path / "none.qab", "--max-size", "0.01")
    assert result.exit_code == 1 and "MB" in result.stderr and not (tmp_path / "none.qab").exists()


def test_development_questions_do_not_calibrate(shop: Workshop, tmp_path: Path) -> None:
    squad = json.loads(shop.dev.read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(squad, indent=3), encoding="utf-8")
    result = run("export", shop.run, "-o", tmp_path / "x.qab", "--calibrate-on", other)
    assert result.exit_code == 1 and "of the development contexts" in result.stderr
    result = run("export", shop.run, "-o", tmp_path / "x.qab", "--calibrate-on", shop.dev)
    assert result.exit_code == 1 and "development contexts" in result.stderr and not (tmp_path / "x.qab").exists()


def test_questions_that_are_verified_on_are_left_out_of_those_to_calibrate_on(shop: Workshop, tmp_path: Path) -> None:
    """SQuAD asks some questions of a text twice, under other ids."""
    held = shop.run / "heldout.json"
    verified = ("export", shop.run, "--onnx", "--int8", "--margin", "100", "--questions", held, "--calibrate-on")
    ran(*verified, shop.train, "-o", tmp_path / "both.qab")  # which holds the held-out articles too
    result = run(*verified, held, "-o", tmp_path / "no.qab")
    assert result.exit_code == 1 and "calibration questions are also verified on" in result.stderr
    assert not (tmp_path / "no.qab").exists()
