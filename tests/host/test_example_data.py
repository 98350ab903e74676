"""The embedded example is well-formed SQuAD v1.1: counts, offsets, ids, blanks and duplicates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "qa_edge" / "example"
FILES = ("train.json", "dev.json")


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLE / name).read_text(encoding="utf-8"))
    return document


def paragraphs(name: str) -> list[dict[str, Any]]:
    return [paragraph for article in load(name)["data"] for paragraph in article["paragraphs"]]


def count_questions(name: str) -> int:
    return sum(len(paragraph["qas"]) for paragraph in paragraphs(name))


def test_there_is_enough_of_it() -> None:
    assert len(paragraphs("train.json")) >= 38
    assert len(paragraphs("dev.json")) >= 8
    assert count_questions("train.json") >= 200
    assert count_questions("dev.json") >= 40
    assert sum(len(paragraphs(name)) for name in FILES) >= 40


def test_source_gives_the_counts_and_the_licence() -> None:
    source = (EXAMPLE / "SOURCE.md").read_text(encoding="utf-8")
    for name in FILES:
        articles = len(load(name)["data"])
        phrase = f"{len(paragraphs(name))} contexts, {count_questions(name)} questions"
        assert phrase in source, f"SOURCE.md does not say '{phrase}' of {name} ({articles} articles)"
    assert "Apache-2.0" in source


@pytest.mark.parametrize("name", FILES)
def test_every_answer_stands_at_its_offset_on_word_boundaries(name: str) -> None:
    for paragraph in paragraphs(name):
        context = paragraph["context"]
        for question in paragraph["qas"]:
            assert question["answers"], question["id"]
            for answer in question["answers"]:
                start, text = answer["answer_start"], answer["text"]
                end = start + len(text)
                assert context[start:end] == text, question["id"]
                assert 1 <= len(text.split()) <= 12, question["id"]
                assert start == 0 or not context[start - 1].isalnum(), question["id"]
                assert end == len(context) or not context[end].isalnum(), question["id"]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_blank_and_no_context_asks_a_question_twice(name: str) -> None:
    for article in load(name)["data"]:
        assert article["title"].strip()
        assert 3 <= len(article["paragraphs"]) <= 5, article["title"]
    for paragraph in paragraphs(name):
        context = paragraph["context"]
        assert context == context.strip()
        assert 60 <= len(context.split()) <= 140, context[:40]
        texts = [question["question"] for question in paragraph["qas"]]
        assert len(texts) >= 5, context[:40]
        assert all(text.strip() == text and text for text in texts)
        assert len({text.lower() for text in texts}) == len(texts), context[:40]
        for question in paragraph["qas"]:
            assert all(answer["text"].strip() == answer["text"] != "" for answer in question["answers"])


def test_ids_are_unique_and_the_two_files_share_no_text() -> None:
    ids = [question["id"] for name in FILES for paragraph in paragraphs(name) for question in paragraph["qas"]]
    assert len(set(ids)) == len(ids)
    contexts = [paragraph["context"] for name in FILES for paragraph in paragraphs(name)]
    assert len(set(contexts)) == len(contexts)
    train, dev = ({article["title"] for article in load(name)["data"]} for name in FILES)
    assert not train & dev
