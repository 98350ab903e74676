from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_squad, write_json
from tiny_teacher import ran, run

from qa_edge.active.annotations import import_annotations, read_annotations
from qa_edge.active.label_studio import CONFIG, Region, parse_export, tasks
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, read_squad, with_questions, write_squad
from qa_edge_runtime.errors import DataError, InputError

CONTEXT = "A 🎉 party! The red kettle 🫖 of Anna is in Łódź. The kettle sings."


def utf16(text: str, character: int) -> int:
    """Where JavaScript counts a character of Python's."""
    return len(text[:character].encode("utf-16-le")) // 2


def result(start: int, end: int, text: str | None) -> dict[str, Any]:
    value: dict[str, Any] = {"start": start, "end": end, "labels": ["Answer"]}
    if text is not None:
        value["text"] = text
    return {"from_name": "answer", "to_name": "text", "type": "labels", "id": "aB3", "value": value}


def marked(context: str, answer: str, *, units: bool = True) -> dict[str, Any]:
    """A span of the first occurrence, in the browser's units."""
    start = context.index(answer)
    end = start + len(answer)
    return result(*((utf16(context, start), utf16(context, end)) if units else (start, end)), answer)


def none_there() -> dict[str, Any]:
    value = {"choices": ["No answer"]}
    return {"from_name": "no_answer", "to_name": "text", "type": "choices", "id": "x", "value": value}


def task(identity: Any, context: str, *said: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A task as Label Studio exports it; each of `said` is an annotator's result."""
    annotations = [
        {"id": 10 + number, "completed_by": number, "was_cancelled": False, "result": one}
        for number, one in enumerate(said)
    ]
    data = {"id": identity, "text": context, "question": "What?"}
    return {"id": 1, "data": data, "annotations": annotations, "predictions": [], **more}


def source_of(context: str = CONTEXT, *, questions: int = 3) -> Squad:
    asked = tuple(Question(id=f"q{number}", text=f"Question {number}?") for number in range(questions))
    return Squad(articles=(Article(title="A", paragraphs=(Paragraph(context=context, questions=asked),)),))


def imported(tmp_path: Path, *exported: dict[str, Any], source: Squad | None = None, **options: Any) -> Any:
    path = write_json(tmp_path / "export.json", list(exported))
    return import_annotations(source or source_of(), read_annotations(path), **options)


def answers(report: Any) -> dict[str, list[str]]:
    found = {}
    for _, paragraph, question in report.squad.items(impossible=True):
        assert all(answer.stands_in(paragraph.context) for answer in question.answers)
        found[question.id] = [answer.text for answer in question.answers]
    return found


@given(st.text(min_size=1, max_size=40), st.data())
def test_offsets_of_the_browser_and_of_python_are_both_read(context: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    text = context[start:end]
    browser = Region(start=utf16(context, start), end=utf16(context, end), text=text)
    python = Region(start=start, end=end, text=text)
    for region in (browser, python):
        place = region.in_context(context)
        if text.strip():
            # The same characters may stand at both readings of an offset: what is found is what was marked.
            assert place is not None
            assert context[slice(*place)] == text.strip()
        else:
            assert place is None
    without = Region(start=browser.start, end=browser.end, text=None).in_context(context)
    if text.strip():
        assert without is not None
        assert context[slice(*without)] == text.strip()


def test_offsets_are_first_read_as_their_writer_counts(tmp_path: Path) -> None:
    """Behind three emoji the characters of one reading are the same word at another place."""
    context = "😀😀😀 no no no, he said no."
    report = imported(tmp_path, task("q0", context, [result(7, 9, "no")]), source=source_of(context))
    (answer,) = next(q for _, _, q in report.squad.items()).answers
    assert (answer.text, answer.start) == ("no", 4)
    assert Region(start=7, end=9, text="no").in_context(context) == (7, 9)  # of a tool that counts characters


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_an_answer_over_two_lines_is_read_as_label_studio_writes_it(end: str, tmp_path: Path) -> None:
    context = f"Line one{end}second line two."
    said = f"one{end}second".replace("\r", "\\n").replace("\n", "\\n")
    start = context.index("one")
    report = imported(
        tmp_path, task("q0", context, [result(start, start + 9 + len(end), said)]), source=source_of(context)
    )
    assert answers(report) == {"q0": [f"one{end}second"]} and report.problems == ()


def test_what_is_marked_by_another_label_is_a_problem(tmp_path: Path) -> None:
    other = marked(CONTEXT, "Anna")
    other["from_name"], other["value"]["labels"] = "label", ["Short answer"]
    hyper = {**marked(CONTEXT, "Anna"), "type": "hypertextlabels", "from_name": "label"}
    hyper["value"] = {**hyper["value"], "hypertextlabels": ["Person"]}
    report = imported(
        tmp_path,
        task("q0", CONTEXT, [other]),
        task("q1", CONTEXT, [hyper]),
        task("q2", CONTEXT, [marked(CONTEXT, "Anna"), hyper]),
    )
    assert answers(report) == {"q2": ["Anna"]} and report.unanswered == 0
    assert [(one.kind, one.question_id) for one in report.problems] == [("other label", "q0"), ("other label", "q1")]
    assert "marked as Short answer, expected Answer" in report.problems[0].message


def test_half_of_a_character_is_no_answer() -> None:
    assert Region(start=3, end=9, text=None).in_context("A 🎉 party!") is None
    assert Region(start=2, end=400, text=None).in_context("A 🎉 party!") is None


def test_round_trip_by_label_studio(tmp_path: Path) -> None:
    """Select, label as the answers say, import: the answers are those of the labelled source."""
    labelled = tiny_squad()
    truth = {question.id: question.answers for _, _, question in labelled.items()}
    pool = tmp_path / "pool.json"
    write_squad(tmp_path / "labelled.json", labelled)
    data = json.loads((tmp_path / "labelled.json").read_text(encoding="utf-8"))
    for question in [q for article in data["data"] for p in article["paragraphs"] for q in p["qas"]]:
        question["answers"] = []
    before = write_json(pool, data).read_bytes()
    chosen = tmp_path / "tasks.json"
    ran("select", "--pool", pool, "--strategy", "random", "--count", 20, "-o", chosen, "--format", "label-studio")
    given_tasks = json.loads(chosen.read_text(encoding="utf-8"))
    assert len(given_tasks) == 20
    for one in given_tasks:
        assert set(one) == {"data"}
        (answer,) = truth[one["data"]["id"]]
        start, end = utf16(one["data"]["text"], answer.start), utf16(one["data"]["text"], answer.end)
        one["annotations"] = [{"completed_by": 1, "result": [result(start, end, answer.text)]}]
    export = write_json(tmp_path / "export.json", given_tasks)
    made = tmp_path / "made.json"
    report = json.loads(ran("labels", "import", export, "--source", pool, "-o", made, "--json"))
    assert (report["labelled"], report["problems"]) == (20, [])
    found = {question.id: question.answers for _, _, question in read_squad(made).items()}
    assert found == {one["data"]["id"]: truth[one["data"]["id"]] for one in given_tasks}
    assert pool.read_bytes() == before
    # What is labelled goes into the next round as --without, and its answers can be imported as SQuAD JSON too.
    rest = 108 - 20
    second = tmp_path / "second.json"
    ran(
        "select",
        "--pool",
        pool,
        "--strategy",
        "random",
        "--count",
        rest,
        "-o",
        second,
        "--without",
        made,
        "--near-duplicates",
    )
    assert not {q.id for _, _, q in read_squad(second).items()} & set(found)
    again = json.loads(ran("labels", "import", made, "--source", pool, "-o", tmp_path / "again.json", "--json"))
    assert again["labelled"] == 20
    assert read_squad(tmp_path / "again.json") == read_squad(made)


def test_tasks_hold_what_the_interface_shows() -> None:
    made = tasks(source_of(), ["q1", "q0"])
    assert [one["data"]["id"] for one in made] == ["q1", "q0"]
    for name in ("text", "question"):
        assert f'value="${name}"' in CONFIG
        assert made[0]["data"][name]
    assert ran("labels", "config") == CONFIG


def test_annotators_who_agree_and_annotators_who_do_not(tmp_path: Path) -> None:
    report = imported(
        tmp_path,
        task("q0", CONTEXT, [marked(CONTEXT, "The red kettle")], [marked(CONTEXT, "red kettle")]),
        task("q1", CONTEXT, [marked(CONTEXT, "Łódź")], [marked(CONTEXT, "Anna")]),
        task("q2", CONTEXT, [marked(CONTEXT, "Anna ")], [marked(CONTEXT, "Anna")], []),
    )
    assert answers(report) == {"q0": ["The red kettle"], "q2": ["Anna"]}
    (problem,) = report.problems
    assert (problem.kind, problem.question_id, problem.annotator) == ("conflict", "q1", "0, 1")
    assert "0: 'Łódź' at" in problem.message
    assert "1: 'Anna' at" in problem.message
    kept = imported(
        tmp_path,
        task("q1", CONTEXT, [marked(CONTEXT, "Łódź")], [marked(CONTEXT, "Anna")], [none_there()]),
        on_conflict="keep-all",
    )
    assert answers(kept) == {"q1": ["Łódź", "Anna"]}
    assert [one.kind for one in kept.problems] == ["conflict"]
    with pytest.raises(InputError, match="leave-out or keep-all"):
        imported(tmp_path, on_conflict="newest")


def test_a_text_without_an_answer(tmp_path: Path) -> None:
    report = imported(
        tmp_path,
        task("q0", CONTEXT, [none_there()], [none_there()]),
        task("q1", CONTEXT, [none_there()], [marked(CONTEXT, "Anna")]),
        task("q2", CONTEXT, [none_there(), marked(CONTEXT, "Anna")]),
    )
    assert answers(report) == {"q0": []}
    assert (report.labelled, report.impossible) == (1, 1)
    assert [(one.kind, one.question_id) for one in report.problems] == [("conflict", "q2"), ("conflict", "q1")]


def test_annotations_that_cannot_be_taken(tmp_path: Path) -> None:
    anna = utf16(CONTEXT, CONTEXT.index("Anna"))
    report = imported(
        tmp_path,
        task("nobody", CONTEXT, [marked(CONTEXT, "Anna")]),
        task(17, CONTEXT, [marked(CONTEXT, "Anna")]),
        task("q0", CONTEXT, [result(anna + 1, anna + 5, "Anna")]),
        task("q1", CONTEXT + " ", [marked(CONTEXT, "Anna")]),
        task("q2", CONTEXT, [result(5000, 5004, "Bert")]),
    )
    assert answers(report) == {}
    assert [(one.kind, one.question_id) for one in report.problems] == [
        ("unknown id", "nobody"),
        ("unknown id", "17"),
        ("answer not in its context", "q0"),
        ("other context", "q1"),
        ("answer not in its context", "q2"),
    ]
    assert f"it stands at {CONTEXT.index('Anna')}" in report.problems[2].message
    assert "it stands nowhere" in report.problems[4].message


def test_what_nobody_answered_stays_unlabelled(tmp_path: Path) -> None:
    skipped = task("q1", CONTEXT, [marked(CONTEXT, "Anna")])
    skipped["annotations"][0]["was_cancelled"] = True
    report = imported(tmp_path, task("q0", CONTEXT, []), skipped, task("q2", CONTEXT))
    assert (report.labelled, report.unanswered, report.problems) == (0, 1, ())


def test_what_the_source_says_counts(tmp_path: Path) -> None:
    source = imported(tmp_path, task("q0", CONTEXT, [marked(CONTEXT, "Anna")])).squad
    same = imported(tmp_path, task("q0", CONTEXT, [marked(CONTEXT, "Anna")]), source=source)
    assert answers(same) == {"q0": ["Anna"]}
    other = imported(tmp_path, task("q0", CONTEXT, [marked(CONTEXT, "Łódź")]), source=source)
    assert answers(other) == {}
    assert "the source: 'Anna'" in other.problems[0].message


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        ([], None),
        (3, "no list of tasks"),
        ([1], "no list of tasks"),
        ([{"id": 1, "text": "t", "answer": [], "annotator": 1}], "not JSON-MIN"),
        ([{"data": {}, "annotations": [{}]}], 'without a list "result"'),
        ([task("q", "c", [result("x", 2, "c")])], "has the offset 'x'"),  # type: ignore[arg-type]
        ([task("q", "c", [result(True, 2, "c")])], "has the offset True"),
        ([task("q", "c", [result(-1, 2, "c")])], None),
        ([task("q", "c", [result("0", "1", "c"), {}, 7])], None),  # type: ignore[arg-type,list-item]
        ([task("q", "c", [{"from_name": "x", "type": "labels", "value": {"labels": 3}}])], None),
        ([task("q", "c", [{"from_name": "x", "type": "labels", "value": {"labels": None}}])], None),
    ],
)
def test_exports_of_other_formats(exported: Any, expected: str | None) -> None:
    if expected is None:
        parse_export(exported, "export.json")
    else:
        with pytest.raises(DataError, match=expected):
            parse_export(exported, "export.json")


def test_annotations_come_through_a_pipe(tmp_path: Path) -> None:
    answered = tmp_path / "answered.json"
    anna = (Reference(text="Anna", start=CONTEXT.index("Anna")),)
    write_squad(answered, with_questions(source_of(), lambda one: replace(one, answers=anna)))
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answered.read_bytes())
        found = read_annotations(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
    assert [(one.question_id, [region.text for region in one.regions]) for one in found] == [
        (f"q{number}", ["Anna"]) for number in range(3)
    ]


def test_the_command_reports_problems_and_keeps_its_inputs(tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    write_squad(source, source_of())
    before = source.read_bytes()
    bad = task("nobody", CONTEXT, [marked(CONTEXT, "Anna")])
    export = write_json(tmp_path / "e.json", [bad, task("q0", CONTEXT, [marked(CONTEXT, "Anna")])])
    made = tmp_path / "made.json"
    done = run("labels", "import", export, "--source", source, "-o", made)
    assert done.exit_code == 1
    assert "unknown id" in done.stdout
    assert "1 annotations were not taken" in done.stderr
    assert [q.id for _, _, q in read_squad(made).items()] == ["q0"]
    for taken in (source, export):
        refused = run("labels", "import", export, "--source", source, "-o", taken, "--force")
        assert refused.exit_code == 1
        assert "never changed" in refused.stderr
    assert source.read_bytes() == before
    assert run("labels", "import", export, "--source", source, "-o", made).exit_code == 2
    nothing = run("labels", "import", write_json(tmp_path / "n.json", [bad]), "--source", source, "-o", made, "--force")
    assert nothing.exit_code == 1
    assert "labels no question" in nothing.stderr
