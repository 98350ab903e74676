"""The report on a SQuAD file: every count against one worked out by hand or by brute force."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge.check import check_squad
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, read_squad


def question(identity: str, *answers: tuple[str, int], text: str = "Which?", impossible: bool = False) -> Question:
    found = tuple(Reference(text=answer, start=start) for answer, start in answers)
    return Question(id=identity, text=text, answers=found, impossible=impossible)


def squad(*paragraphs: Paragraph) -> Squad:
    return Squad(articles=(Article(title="Pots", paragraphs=paragraphs), Article(title="Empty")), sha256="ab")


SAMPLE = squad(
    Paragraph(
        context="a pot, a lid, a pot",
        questions=(
            question("stands", ("lid", 9), text="Which one?"),
            question("repeated", ("pot", 2), ("pot", 16)),
            question("off", ("lid", 8)),
            question("absent", ("pan", 2)),
            question("half", ("lid", 9), ("pot", 3)),
            question("negative", ("pot", -3)),
            question("beyond", ("pot", 17)),
            question("unlabelled"),
            question("impossible", impossible=True),
        ),
    ),
    Paragraph(context="dry it", questions=()),
    Paragraph(context="dry it", questions=(question("last", ("dry", 0)),)),
)


def test_counts() -> None:
    report = check_squad(SAMPLE)
    assert (report.version, report.sha256) == ("1.1", "ab")
    assert (report.articles, report.contexts) == (2, 3)
    assert (report.contexts_without_questions, report.duplicate_contexts) == (1, 1)
    assert (report.context_length_median, report.context_length_max) == (6.0, 19)
    assert (report.questions, report.impossible, report.unlabelled, report.trainable) == (10, 1, 1, 4)
    assert report.duplicate_questions == 7  # nine about the first context, two texts
    assert (report.question_length_max, report.answers, report.answer_length_max) == (10, 10, 3)
    assert (report.misplaced, report.misplaced_elsewhere, report.repeated) == (5, 4, 2)
    assert not report.clean


def test_misplaced_answers_are_quoted_with_what_was_found() -> None:
    examples = check_squad(SAMPLE).examples
    assert [(one.question_id, one.expected, one.found, one.nearest) for one in examples] == [
        ("off", "lid", " li", 9),
        ("absent", "pan", "pot", None),
        ("half", "pot", "ot,", 2),
        ("negative", "pot", "", 2),
        ("beyond", "pot", "ot", 16),
    ]
    assert {one.article for one in examples} == {"Pots"}
    report = check_squad(SAMPLE, examples=2)
    assert (len(report.examples), report.misplaced) == (2, 5)


def test_a_file_without_paragraphs_has_a_report() -> None:
    report = check_squad(Squad(articles=(Article(title="Nothing"),)))
    assert report.clean
    assert (report.articles, report.contexts, report.questions, report.context_length_max) == (1, 0, 0, 0)


@given(st.text("ab", min_size=1, max_size=12), st.text("ab", min_size=1, max_size=3), st.integers(-3, 14))
def test_one_answer_against_brute_force(context: str, text: str, start: int) -> None:
    report = check_squad(squad(Paragraph(context=context, questions=(question("q", (text, start)),))))
    places = [place for place in range(len(context)) if context[place : place + len(text)] == text]
    assert report.misplaced == (start not in places)
    assert report.clean == bool(report.trainable)
    assert report.misplaced_elsewhere == (start not in places and bool(places))
    assert report.repeated == (start in places and len(places) > 1)
    if not report.clean:
        nearest = report.examples[0].nearest
        assert (nearest is None) == (not places)
        if nearest is not None:
            assert nearest in places
            assert abs(nearest - start) == min(abs(place - start) for place in places)


@pytest.mark.slow
def test_squad_train_is_clean() -> None:
    folder = os.environ.get("QA_EDGE_DATA")
    if not folder:
        pytest.skip("QA_EDGE_DATA is not set")
    report = check_squad(read_squad(Path(folder) / "squad" / "train-v1.1.json"))
    assert (report.articles, report.contexts, report.questions, report.trainable) == (442, 18_896, 87_599, 87_599)
    assert report.clean and report.impossible == report.unlabelled == 0
