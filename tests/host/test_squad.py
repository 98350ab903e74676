"""The SQuAD reader: what it keeps, what it refuses and how it names the place."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_teacher import write_example_squad

from qa_edge.squad import (
    Article,
    Paragraph,
    Question,
    Reference,
    Squad,
    read_squad,
    references,
    whole_articles,
    write_squad,
)
from qa_edge_runtime.errors import DataError

V1: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "Kettle",
            "paragraphs": [
                {
                    "context": "The kettle holds 1.7 litres and boils in four minutes.",
                    "qas": [
                        {
                            "id": "k1",
                            "question": "How much does it hold?",
                            "answers": [
                                {"text": "1.7 litres", "answer_start": 17},
                                {"text": "1.7", "answer_start": 17},
                            ],
                        },
                        {"id": "k2", "question": "What boils?", "answers": [{"text": "kettle", "answer_start": 4}]},
                        {"id": "k3", "question": "How fast?", "answers": []},
                        {"id": "k4", "question": "How?"},
                    ],
                },
                {"context": "Empty it before moving it.", "qas": []},
            ],
        },
        {
            "title": "Town",
            "paragraphs": [
                {
                    "context": "The mill burned down in 1911.",
                    "qas": [{"id": "t1", "question": "When?", "answers": [{"text": "1911", "answer_start": 24}]}],
                }
            ],
        },
    ],
}


def save(folder: Path, value: Any) -> Path:
    path = folder / "data.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def changed(place: list[Any], value: Any) -> Any:
    """V1 with the value at a path of keys and indices replaced, or taken out if it is `...`."""
    root = copy.deepcopy(V1)
    at: Any = root
    for key in place[:-1]:
        at = at[key]
    if value is ...:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return root


PARAGRAPH = ["data", 0, "paragraphs", 0]
QUESTION = [*PARAGRAPH, "qas", 1]
ANSWER = [*QUESTION, "answers", 0]


def test_reads_articles_contexts_questions_and_answers_in_file_order(tmp_path: Path) -> None:
    path = save(tmp_path, V1)
    squad = read_squad(path)
    assert squad.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert squad.version == "1.1"
    assert [article.title for article in squad.articles] == ["Kettle", "Town"]
    assert [(index, question.id) for index, _, question in squad.items()] == [
        (0, "k1"),
        (0, "k2"),
        (0, "k3"),
        (0, "k4"),
        (1, "t1"),
    ]
    assert [(index, paragraph.context[:3]) for index, paragraph in squad.paragraphs()] == [
        (0, "The"),
        (0, "Emp"),
        (1, "The"),
    ]
    for _, paragraph, question in squad.items():
        for answer in question.answers:
            assert answer.stands_in(paragraph.context)
            assert paragraph.context[answer.start : answer.end] == answer.text


def test_questions_without_answers_are_unlabelled_and_not_scored(tmp_path: Path) -> None:
    squad = read_squad(save(tmp_path, V1))
    assert [question.id for _, _, question in squad.items() if question.unlabelled] == ["k3", "k4"]
    assert references(squad) == {"k1": ["1.7 litres", "1.7"], "k2": ["kettle"], "t1": ["1911"]}
    assert squad.impossible == 0


def test_impossible_questions_are_counted_and_kept_apart(tmp_path: Path) -> None:
    root = changed([*QUESTION, "answers"], [])
    question = root["data"][0]["paragraphs"][0]["qas"][1]
    question |= {"is_impossible": True, "plausible_answers": [{"text": "kettle", "answer_start": 4}]}
    root["version"] = "v2.0"
    squad = read_squad(save(tmp_path, root))
    assert squad.impossible == 1
    assert "k2" not in [question.id for _, _, question in squad.items()]
    assert "k2" not in references(squad)
    found = {question.id: question for _, _, question in squad.items(impossible=True)}
    assert found["k2"].impossible and found["k2"].answers == () and not found["k2"].unlabelled


def test_version_and_title_may_be_missing(tmp_path: Path) -> None:
    root = changed(["data", 0, "title"], ...)
    del root["version"]
    squad = read_squad(save(tmp_path, root))
    assert squad.articles[0].title == ""
    assert squad.version == "1.1"


def test_an_answer_off_its_offset_is_read_as_it_is(tmp_path: Path) -> None:
    for start in (-6, 5, 10_000):
        squad = read_squad(save(tmp_path, changed([*ANSWER, "answer_start"], start)))
        _, paragraph, question = list(squad.items())[1]
        assert question.answers == (Reference(text="kettle", start=start),)
        assert not question.answers[0].stands_in(paragraph.context)


def test_a_negative_start_does_not_count_from_the_end() -> None:
    assert not Reference(text="end", start=-3).stands_in("the end")


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        (["data"], ..., ['"data"', "missing"]),
        (["data"], {}, ['"data"', "an object", "a list"]),
        (["data"], [], ["no articles"]),
        (["version"], 2, ['"version"', "a number"]),
        (["data", 1], "x", ["data[1]", "text"]),
        (["data", 1, "title"], 3, ["data[1]", '"title"', "a number"]),
        (["data", 1, "paragraphs"], ..., ["data[1]", '"Town"', '"paragraphs"', "missing"]),
        (PARAGRAPH, None, ["data[0]", '"Kettle"', "paragraphs[0]", "null"]),
        ([*PARAGRAPH, "context"], ..., ["data[0]", '"Kettle"', "paragraphs[0]", '"context"', "missing"]),
        ([*PARAGRAPH, "context"], "", ["paragraphs[0]", '"context"', "empty"]),
        ([*PARAGRAPH, "context"], " \n\u3000", ["paragraphs[0]", '"context"', "blank"]),
        ([*PARAGRAPH, "context"], "half \ud83d pair", ["paragraphs[0]", '"context"', "surrogate"]),
        ([*PARAGRAPH, "qas"], ..., ["paragraphs[0]", '"qas"', "missing"]),
        ([*QUESTION], [], ["paragraphs[0]", "qas[1]", "a list"]),
        ([*QUESTION, "id"], ..., ["paragraphs[0]", "qas[1]", '"id"', "missing"]),
        ([*QUESTION, "id"], 7, ["paragraphs[0]", "qas[1]", '"id"', "a number"]),
        ([*QUESTION, "id"], "k1", ['question "k1"', "occurs before", "qas[0]"]),
        ([*QUESTION], {"id": "k\n2", "question": ""}, ['question "k\\n2"', '"question"', "empty"]),
        (["data", 1], {"title": "T" * 10_000}, ['data[1] "TTT', '"paragraphs"']),
        ([*QUESTION, "question"], ..., ["paragraphs[0]", 'question "k2"', '"question"', "missing"]),
        ([*QUESTION, "question"], "\t ", ["paragraphs[0]", 'question "k2"', '"question"', "blank"]),
        ([*QUESTION, "answers"], None, ['question "k2"', '"answers"', "null"]),
        ([*QUESTION, "answers"], "kettle", ['question "k2"', '"answers"', "text"]),
        ([*QUESTION, "is_impossible"], "no", ['question "k2"', '"is_impossible"', "text"]),
        ([*QUESTION, "is_impossible"], True, ['question "k2"', '"is_impossible"', '"answers"']),
        (ANSWER, "kettle", ['question "k2"', "answers[0]", "text"]),
        ([*ANSWER, "text"], ..., ['question "k2"', "answers[0]", '"text"', "missing"]),
        ([*ANSWER, "text"], "", ['question "k2"', "answers[0]", '"text"', "empty"]),
        ([*ANSWER, "answer_start"], ..., ['question "k2"', "answers[0]", '"answer_start"', "missing"]),
        ([*ANSWER, "answer_start"], "5", ['question "k2"', "answers[0]", '"answer_start"', "text"]),
        ([*ANSWER, "answer_start"], 5.0, ['question "k2"', "answers[0]", '"answer_start"', "a number"]),
        ([*ANSWER, "answer_start"], True, ['question "k2"', "answers[0]", '"answer_start"']),
    ],
)
def test_malformed_input_is_named_to_its_place(tmp_path: Path, place: list[Any], value: Any, parts: list[str]) -> None:
    path = save(tmp_path, changed(place, value))
    with pytest.raises(DataError) as caught:
        read_squad(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for part in [str(path), *parts]:
        assert part in message


@pytest.mark.parametrize("raw", [b"", b" \n", b"{", b"not json", b"\xff\xfe\xff", b"[" * 100_000, b"[]", b"3", b"null"])
def test_what_is_no_squad_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"data\.json"):
        read_squad(path)


def test_a_pipe_is_read_once_and_hashed_as_it_was(tmp_path: Path) -> None:
    path = write_example_squad(tmp_path / "data.json", articles=1)
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.write(writing, path.read_bytes()), os.close(writing))).start()
    assert read_squad(f"/dev/fd/{reading}").sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    os.close(reading)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_squad(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_squad(tmp_path)


def test_an_id_may_not_occur_in_two_articles(tmp_path: Path) -> None:
    root = changed(["data", 1, "paragraphs", 0, "qas", 0, "id"], "k1")
    with pytest.raises(DataError) as caught:
        read_squad(save(tmp_path, root))
    assert 'data[1] "Town", paragraphs[0], question "k1"' in str(caught.value)
    assert 'at data[0] "Kettle", paragraphs[0], qas[0]' in str(caught.value)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
drafts = st.lists(st.lists(st.tuples(words, st.lists(st.tuples(words, words, st.integers(-2, 20), st.integers(0, 2))))))


@given(drafts.filter(bool), st.sampled_from(["1.1", "v2.0"]))
@settings(max_examples=60, deadline=None)
def test_write_then_read_is_identity(tmp_path_factory: pytest.TempPathFactory, draft: Any, version: str) -> None:
    number = iter(range(10_000))
    articles = tuple(
        Article(
            title=f"Article {index}" if index else "",
            paragraphs=tuple(
                Paragraph(
                    context=context,
                    questions=tuple(
                        Question(
                            id=f"q{next(number)}",
                            text=text,
                            answers=(Reference(text=answer, start=start),) if kind == 0 else (),
                            impossible=kind == 2,
                        )
                        for text, answer, start, kind in questions
                    ),
                )
                for context, questions in paragraphs
            ),
        )
        for index, paragraphs in enumerate(draft)
    )
    path = tmp_path_factory.mktemp("squad") / "out.json"
    write_squad(path, Squad(articles=articles, version=version))
    again = read_squad(path)
    assert again.articles == articles
    assert again.version == version


def test_write_leaves_no_temporary_file_and_names_a_missing_folder(tmp_path: Path) -> None:
    squad = read_squad(save(tmp_path, V1))
    write_squad(tmp_path / "out.json", squad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "out.json"]
    with pytest.raises(DataError, match="cannot write"):
        write_squad(tmp_path / "nowhere" / "out.json", squad)


def test_v1_output_has_no_impossible_marks(tmp_path: Path) -> None:
    write_squad(tmp_path / "out.json", read_squad(save(tmp_path, V1)))
    assert "is_impossible" not in (tmp_path / "out.json").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "articles", "contexts", "questions"),
    [
        ("squad/train-v1.1.json", 442, 18_896, 87_599),
        ("squad/dev-v1.1.json", 48, 2_067, 10_570),
        ("adversarial/AddSent.json", None, None, 3_560),
        ("adversarial/AddOneSent.json", None, None, 1_787),
    ],
)
def test_the_published_counts(
    tmp_path: Path, name: str, articles: int | None, contexts: int | None, questions: int
) -> None:
    folder = os.environ.get("QA_EDGE_DATA")
    if not folder:
        pytest.skip("QA_EDGE_DATA is not set")
    squad = read_squad(Path(folder) / name)
    if articles is not None:
        assert len(squad.articles) == articles
        assert sum(1 for _ in squad.paragraphs()) == contexts
    assert sum(1 for _ in squad.items()) == len(references(squad)) == questions
    assert squad.impossible == 0
    assert all(
        answer.stands_in(paragraph.context) for _, paragraph, question in squad.items() for answer in question.answers
    )
    write_squad(tmp_path / "copy.json", squad)
    assert read_squad(tmp_path / "copy.json").articles == squad.articles


def test_whole_articles_hold_the_same_answers() -> None:
    def paragraph(context: str, *answers: str) -> Paragraph:
        return Paragraph(
            context=context,
            questions=tuple(
                Question(id=context + text, text=text, answers=(Reference(text=text, start=context.index(text)),))
                for text in answers
            ),
        )

    one, two = paragraph("a pot, a lid", "lid", "a pot"), paragraph("a pan", "pan")
    squad = Squad(articles=(Article(title="Pots", paragraphs=(one, two)), Article(title="None")), sha256="x")
    joined = whole_articles(squad)
    (context, questions) = (joined.articles[0].paragraphs[0].context, joined.articles[0].paragraphs[0].questions)
    assert context == "a pot, a lid\n\na pan"
    assert [question.id for question in questions] == [question.id for p in (one, two) for question in p.questions]
    assert all(answer.stands_in(context) for question in questions for answer in question.answers)
    assert joined.sha256 == "x"
