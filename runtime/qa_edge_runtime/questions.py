"""Questions that a device measures itself with, from SQuAD JSON or a bundle's cases; the full reader is the host's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import read_json

# A conformance case on a shorter text is there to trip a tokenizer, not to be timed.
ORDINARY_WORDS = 60


class SquadQuestion(NamedTuple):
    """A question on a text, with its reference answers, if it has any."""

    id: str
    question: str
    context: str
    answers: list[str]


class BenchQuestions(NamedTuple):
    """(question, context) pairs to measure with, and in words where they come from."""

    pairs: list[tuple[str, str]]
    source: str


def bench_questions(
    bundle_path: str | os.PathLike[str],
    squad: str | os.PathLike[str] | None = None,
    *,
    limit: int = 200,
    articles: bool = False,
) -> BenchQuestions:
    """Questions to measure with: from a SQuAD file, evenly spread over it, else the bundle's cases.

    Of the cases only those on a text of 60 words or more are taken, if there are any.

    :param squad: answers are not needed.
    :param limit: at most so many; 0 takes all. Neighbours in SQuAD share a context, so a spread sample remembers fewer
        tokens than the file read in order would.
    :param articles: ask of the whole article instead of the paragraph.
    :raises InputError: if `limit` is negative, or `articles` is asked for without a SQuAD file.
    :raises DataError: if the SQuAD file cannot be used.
    :raises BundleError: if the bundle cannot be used.
    """
    if type(limit) is not int or limit < 0:
        raise InputError(f"limit is {limit!r:.40}, expected a whole number from 0")
    if squad is None:
        if articles:
            raise InputError("the bundle's cases belong to no articles; name a SQuAD file, or leave articles out")
        pairs, kind = _case_questions(bundle_path)
    else:
        pairs = [(question, text) for _, question, text, _ in load_squad_questions(squad, articles=articles)]
        kind = f"questions of {Path(squad).name}{', each on its whole article' if articles else ''}"
    count = len(pairs)
    if limit and limit < count:
        return BenchQuestions(
            [pairs[index * count // limit] for index in range(limit)], f"{limit} of {count} {kind}, evenly spread"
        )
    return BenchQuestions(pairs, f"{count} {kind}")


def _case_questions(bundle_path: str | os.PathLike[str]) -> tuple[list[tuple[str, str]], str]:
    every = [(case["question"], case["context"]) for case in Bundle.open(bundle_path).cases()]
    ordinary = [pair for pair in every if len(pair[1].split()) >= ORDINARY_WORDS]
    if ordinary:
        passages = len({context for _, context in ordinary})
        return ordinary, f"conformance cases of the bundle, on {passages} passages of {ORDINARY_WORDS} words or more"
    return every, f"conformance cases of the bundle, on texts below {ORDINARY_WORDS} words: ordinary ones take longer"


def load_squad_questions(path: str | os.PathLike[str], *, articles: bool = False) -> list[SquadQuestion]:
    """Read the questions in the order of the file; they need no answers.

    :param path: SQuAD JSON, v1.1 or v2.0; questions marked `is_impossible` are left out.
    :param articles: the context of a question is its whole article, paragraphs with an empty line between them.
    :raises DataError: if the file is missing, is not JSON, is not of SQuAD's shape, holds a question id twice or no
        question that is not marked.
    """
    content = read_json(path, "SQuAD file")
    questions: list[SquadQuestion] = []
    seen: set[str] = set()
    where = "the file"
    try:
        for article_number, article in enumerate(_list(content, "data")):
            paragraphs = _list(article, "paragraphs")
            whole = "\n\n".join(_text(paragraph, "context") for paragraph in paragraphs) if articles else None
            for paragraph_number, paragraph in enumerate(paragraphs):
                where = f"article {article_number}, paragraph {paragraph_number}"
                context = whole if whole is not None else _text(paragraph, "context")
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
