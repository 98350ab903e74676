"""Reads questions out of SQuAD JSON, as little as a device needs to measure itself; the full reader is the host's."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json


class SquadQuestion(NamedTuple):
    """A question on a text, with its reference answers, if it has any."""

    id: str
    question: str
    context: str
    answers: list[str]


def load_squad_questions(path: str | os.PathLike[str]) -> list[SquadQuestion]:
    """Read the questions in the order of the file; they need no answers.

    :param path: SQuAD JSON, v1.1 or v2.0; questions marked `is_impossible` are left out.
    :raises DataError: if the file is missing, is not JSON, is not of SQuAD's shape, holds a question id twice or no
        question that is not marked.
    """
    content = read_json(path, "SQuAD file")
    questions: list[SquadQuestion] = []
    seen: set[str] = set()
    where = "the file"
    try:
        for article_number, article in enumerate(_list(content, "data")):
            for paragraph_number, paragraph in enumerate(_list(article, "paragraphs")):
                where = f"article {article_number}, paragraph {paragraph_number}"
                context = _text(paragraph, "context")
                for item in _list(paragraph, "qas"):
                    identifier = _text(item, "id")
                    where = f"article {article_number}, paragraph {paragraph_number}, question {identifier!r:.80}"
                    if identifier in seen:
                        raise ValueError("an id that is there only once")
                    seen.add(identifier)
                    question = _text(item, "question")
                    if item.get("is_impossible") is True:
                        continue
                    answers = [_text(answer, "text") for answer in _list(item, "answers")] if "answers" in item else []
                    questions.append(SquadQuestion(identifier, question, context, answers))
            where = f"article {article_number + 1}"
    except ValueError as error:
        raise DataError(f"SQuAD file {path}: {where}: expected {error}; check the file") from error
    if not questions:
        raise DataError(f"SQuAD file {path} has no question that a text may answer; expected one at least")
    return questions


def _list(item: Any, name: str) -> list[Any]:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"a list {name!r}")
    return value


def _text(item: Any, name: str) -> str:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"a text {name!r}")
    return value
