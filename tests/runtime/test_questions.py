"""The small SQuAD reader of the runtime."""

from __future__ import annotations

import json

import pytest

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions


def squad(*items, context="Bo ate figs."):
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": list(items)}]}]}


def item(identifier, *answers, **extra):
    texts = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": identifier, "question": f"{identifier}?", "answers": texts, **extra}


def load(tmp_path, content):
    file = tmp_path / "squad.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_squad_questions(file)


def test_questions_in_file_order_without_impossible_ones(tmp_path):
    content = squad(item("b", "Bo"), item("x", is_impossible=True), item("a", "figs", "Bo", is_impossible=False))
    assert load(tmp_path, content) == [
        SquadQuestion("b", "b?", "Bo ate figs.", ["Bo"]),
        SquadQuestion("a", "a?", "Bo ate figs.", ["figs", "Bo"]),
    ]


def test_questions_need_no_answers(tmp_path):
    found = load(tmp_path, squad({"id": "a", "question": "?"}, item("b")))
    assert [(question.id, question.answers) for question in found] == [("a", []), ("b", [])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[]", "expected a list 'data'"),
        ({"data": [3]}, "expected a list 'paragraphs'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "article 0, paragraph 0: expected a text 'context'"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 5}]}]}]}, "paragraph 0: expected a text 'id'"),
        (squad({"id": "q", "answers": []}), "question 'q': expected a text 'question'"),
        (squad({"id": "q", "question": "?", "answers": 3}), "question 'q': expected a list 'answers'"),
        (squad(item("q", "Bo"), item("q", "Bo")), "question 'q': expected an id that is there only once"),
        (squad({"id": "q", "question": "?", "answers": ["Bo"]}), "question 'q': expected a text 'text'"),
        (squad(item("q", is_impossible=True)), "no question that a text may answer"),
        ({"data": []}, "no question that a text may answer"),
    ],
)
def test_other_shapes_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_squad_questions(tmp_path / "none.json")
