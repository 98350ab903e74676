"""SQuAD v1.1 and v2.0 JSON: articles, contexts, questions and reference answers, read, checked and written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, read_hashed_json

BETWEEN_PARAGRAPHS = "\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A reference answer: its text, and the character of the context at which it is said to start."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """Character behind the last one, so that the range is half-open: ``[start, end)``."""
        return self.start + len(self.text)

    def stands_in(self, context: str) -> bool:
        """Tell whether ``context[start:end] == text``; training leaves out the answers of which this is false."""
        # str.startswith would count a negative start from the end of the context.
        return self.start >= 0 and context.startswith(self.text, self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question about a context. Without answers it is unlabelled, or impossible (SQuAD v2.0), never both."""

    id: str
    text: str
    answers: tuple[Reference, ...] = ()
    impossible: bool = False

    @property
    def unlabelled(self) -> bool:
        """Nobody has answered it yet: it can be distilled from the teacher, not scored."""
        return not self.answers and not self.impossible


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraph:
    """A context and the questions about it."""

    context: str
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Article:
    """A titled sequence of paragraphs."""

    title: str
    paragraphs: tuple[Paragraph, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Squad:
    """A SQuAD file: articles in file order, its version, and the SHA-256 of its bytes ("" if it was not read)."""

    articles: tuple[Article, ...]
    version: str = "1.1"
    sha256: str = ""

    def paragraphs(self) -> Iterator[tuple[int, Paragraph]]:
        """Yield (article index, paragraph) in file order, those without questions too."""
        for index, article in enumerate(self.articles):
            for paragraph in article.paragraphs:
                yield index, paragraph

    @property
    def answered(self) -> int:
        """Questions with a reference answer, those marked impossible apart."""
        return sum(bool(question.answers) for _, _, question in self.items())

    def items(self, *, impossible: bool = False) -> Iterator[tuple[int, Paragraph, Question]]:
        """Yield (article index, paragraph, question) in file order.

        :param impossible: yield the questions marked ``is_impossible`` too; they are kept apart by default.
        """
        for index, paragraph in self.paragraphs():
            for question in paragraph.questions:
                if impossible or not question.impossible:
                    yield index, paragraph, question

    @property
    def impossible(self) -> int:
        """Number of questions marked ``is_impossible``."""
        return sum(question.impossible for _, _, question in self.items(impossible=True))


def whole_articles(squad: Squad) -> Squad:
    """The same questions asked of their whole article: its paragraphs as one context, blank lines between them."""
    articles = []
    for article in squad.articles:
        questions: list[Question] = []
        begin = 0
        for paragraph in article.paragraphs:
            for question in paragraph.questions:
                answers = tuple(replace(answer, start=begin + answer.start) for answer in question.answers)
                questions.append(replace(question, answers=answers))
            begin += len(paragraph.context) + len(BETWEEN_PARAGRAPHS)
        context = BETWEEN_PARAGRAPHS.join(paragraph.context for paragraph in article.paragraphs)
        articles.append(replace(article, paragraphs=(Paragraph(context=context, questions=tuple(questions)),)))
    return replace(squad, articles=tuple(articles))


def with_questions(squad: Squad, change: Callable[[Question], Question]) -> Squad:
    """The same data with each question, those marked impossible too, put through `change`; contexts stay."""

    def changed(paragraph: Paragraph) -> Paragraph:
        return replace(paragraph, questions=tuple(map(change, paragraph.questions)))

    return replace(
        squad,
        articles=tuple(
            replace(article, paragraphs=tuple(map(changed, article.paragraphs))) for article in squad.articles
        ),
    )


def without_answers(squad: Squad) -> Squad:
    """The same questions as nobody has answered them yet."""
    unanswered = with_questions(squad, lambda question: replace(question, answers=(), impossible=False))
    return replace(unanswered, sha256="")


def read_squad(path: str | os.PathLike[str]) -> Squad:
    """Read SQuAD v1.1 or v2.0 JSON.

    ``plausible_answers`` of v2.0 are ignored. A question with no ``answers``, or an empty list of them, is unlabelled
    unless it is marked ``is_impossible``. Answers that do not stand at their offset are kept as they are: see
    `Reference.stands_in` and `qa_edge.check`.

    :raises DataError: if the file is missing, empty, not JSON or of another shape, if a context, question, id or answer
        is blank, or if a question id occurs twice; the message names article, paragraph and question id. Its indices
        count from 0, as in ``data[3] "Title", paragraphs[5], question "id"``.
    """
    return parse_squad(*read_hashed_json(path, "SQuAD file"), path)


def parse_squad(root: Any, sha256: str, path: str | os.PathLike[str]) -> Squad:
    """A SQuAD file's JSON that has been read already; see `read_squad`.

    :param sha256: of the file.
    """
    reader = _Reader(Path(path))
    where = str(path)
    top = reader.take_object(root, where)
    data = reader.take_list(top, "data", where)
    if not data:
        raise DataError(f'{where} holds no articles: "data" is an empty list')
    version = reader.take_text(top, "version", where) if "version" in top else "1.1"
    articles = tuple(reader.article(value, f"{where}: data[{index}]") for index, value in enumerate(data))
    return Squad(articles=articles, version=version, sha256=sha256)


def write_squad(path: str | os.PathLike[str], squad: Squad) -> None:
    """Write SQuAD JSON that `read_squad` reads back as the same articles; the file is whole or absent.

    :raises DataError: if it cannot be written; nothing is left behind.
    """
    atomic_write(path, squad_json(squad))


def squad_json(squad: Squad) -> str:
    """What `write_squad` writes: one line.

    ``is_impossible`` is there for every question if one of them is, or if the version is a 2.0.
    """
    marked = squad.version.lstrip("v").startswith("2") or squad.impossible > 0
    data = [
        {
            "title": article.title,
            "paragraphs": [
                {
                    "context": paragraph.context,
                    "qas": [_question_json(question, marked=marked) for question in paragraph.questions],
                }
                for paragraph in article.paragraphs
            ],
        }
        for article in squad.articles
    ]
    return json.dumps({"version": squad.version, "data": data}, ensure_ascii=False) + "\n"


def references(squad: Squad) -> dict[str, list[str]]:
    """Texts of the reference answers by question id, for scoring; questions without answers are left out."""
    return {
        question.id: [answer.text for answer in question.answers]
        for _, _, question in squad.items()
        if question.answers
    }


def _question_json(question: Question, *, marked: bool) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": answer.start} for answer in question.answers]
    value: dict[str, Any] = {"id": question.id, "question": question.text, "answers": answers}
    if marked:
        value["is_impossible"] = question.impossible
    return value


class _Reader:
    """Turns parsed JSON into dataclasses, and knows which question ids have been seen and where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[str, str] = {}

    def article(self, value: Any, where: str) -> Article:
        value = self.take_object(value, where)
        # Data of one's own often has no titles.
        title = self.take_text(value, "title", where) if value.get("title") not in (None, "") else ""
        if title:
            where = f"{where} {_quoted(title)}"
        return Article(
            title=title,
            paragraphs=tuple(
                self.paragraph(paragraph, f"{where}, paragraphs[{index}]")
                for index, paragraph in enumerate(self.take_list(value, "paragraphs", where))
            ),
        )

    def paragraph(self, value: Any, where: str) -> Paragraph:
        value = self.take_object(value, where)
        context = self.take_text(value, "context", where)
        return Paragraph(
            context=context,
            questions=tuple(
                self.question(question, where, index)
                for index, question in enumerate(self.take_list(value, "qas", where))
            ),
        )

    def question(self, value: Any, paragraph: str, index: int) -> Question:
        where = f"{paragraph}, qas[{index}]"
        value = self.take_object(value, where)
        identity = self.take_text(value, "id", where)
        where = f"{paragraph}, question {_quoted(identity)}"
        if identity in self.seen:
            raise DataError(f"{where}: the id occurs before, at {self.seen[identity]}; ids must be unique")
        # Without the file's name, which the message has already.
        self.seen[identity] = f"{paragraph}, qas[{index}]".removeprefix(f"{self.path}: ")
        text = self.take_text(value, "question", where)
        impossible = value.get("is_impossible", False)
        if not isinstance(impossible, bool):
            raise self.wrong(where, "is_impossible", "true or false", impossible)
        answers = tuple(
            self.answer(answer, f"{where}, answers[{number}]")
            for number, answer in enumerate(self.take_list(value, "answers", where) if "answers" in value else ())
        )
        if impossible and answers:
            raise DataError(f'{where}: "is_impossible" is true but "answers" has {len(answers)}; expected none')
        return Question(id=identity, text=text, answers=answers, impossible=impossible)

    def answer(self, value: Any, where: str) -> Reference:
        value = self.take_object(value, where)
        text = self.take_text(value, "text", where)
        start = value.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool):
            raise self.wrong(where, "answer_start", "a whole number (the answer's first character)", start)
        return Reference(text=text, start=start)

    def take_text(self, value: dict[str, Any], key: str, where: str) -> str:
        found = value.get(key)
        if not isinstance(found, str):
            raise self.wrong(where, key, "text", found)
        if not found.strip():
            raise DataError(f'{where}: "{key}" is {"blank" if found else "empty"}; give it text or take the entry out')
        try:
            found.encode("utf-8")
        except UnicodeEncodeError as error:
            # JSON can spell half of a surrogate pair (\ud800); no tokenizer and no file in UTF-8 can hold it.
            raise DataError(
                f'{where}: "{key}" holds half of a surrogate pair at character {error.start}; expected Unicode text'
            ) from error
        return found

    def take_list(self, value: dict[str, Any], key: str, where: str) -> list[Any]:
        found = value.get(key)
        if not isinstance(found, list):
            raise self.wrong(where, key, "a list", found)
        return found

    def take_object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"{where} is {_kind(value)}; expected a JSON object as in SQuAD v1.1 or v2.0")
        return value

    def wrong(self, where: str, key: str, expected: str, found: Any) -> DataError:
        what = "is missing or null" if found is None else f"is {_kind(found)}"
        return DataError(f'{where}: "{key}" {what}; expected {expected}, as in SQuAD v1.1 or v2.0')


def _quoted(text: str) -> str:
    """Quote a title or an id in a message of one line, whatever it holds."""
    return json.dumps(text, ensure_ascii=False)[:100]


def _kind(value: Any) -> str:
    """Name a JSON value's type in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
