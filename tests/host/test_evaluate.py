"""Answers of a teacher, as `evaluate` scores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_edge.evaluate import predict_with_teacher
from qa_edge.squad import Article, Paragraph, Question, Squad

if TYPE_CHECKING:
    from qa_edge.teacher import Teacher


def test_a_context_of_which_the_teacher_reads_nothing(tiny_teacher: Teacher) -> None:
    contexts = ("\u200b", "The machine is grey.")
    paragraphs = tuple(
        Paragraph(context=context, questions=(Question(id=str(number), text="What is grey?"),))
        for number, context in enumerate(contexts)
    )
    squad = Squad(articles=(Article(title="T", paragraphs=paragraphs),))
    answers = predict_with_teacher(tiny_teacher, squad)
    assert answers["0"] == "" and answers["1"] and answers["1"] in "The machine is grey."
