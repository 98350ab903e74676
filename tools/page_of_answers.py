"""Write a page of questions and answers that nobody selected: so many of each SQuAD file, evenly spread over it.

    python tools/page_of_answers.py --squad qa_edge/example/dev.json dev-v1.1.json --questions 20 -o docs/answers.md

Question i of N is number i * (questions of the file) // N: another model answers the same ones. The page shows each
with its text, its reference answers, what the bundle answered, how likely that is to be right, and whether it is.
Needs the runtime and one engine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ask_squad import spread

from qa_edge_runtime import Answer, Answerer, QaEdgeError
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, read_json
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions
from qa_edge_runtime.scoring import exact_match, f1

VERDICTS = ("right", "in part", "wrong")
# Heading, where the texts come from, and where their articles are; by a part of the name of the file and its folder.
SOURCES = {
    "example/": (
        "The embedded example",
        "Texts, questions and references are qa-edge's own (`qa_edge/example/SOURCE.md`), Apache-2.0. A question has"
        ' one reference here and three or more in SQuAD, so that "twenty minutes" may be right there and not here.',
        "",
    ),
    "/dev-v1.1": (
        "SQuAD, development set",
        "Texts, questions and references are those of SQuAD 1.1 (Rajpurkar, Zhang, Lopyrev, Liang 2016,"
        " <https://rajpurkar.github.io/SQuAD-explorer/>), CC BY-SA 4.0. The texts are paragraphs of the articles of"
        " English Wikipedia that are named above them, whole, with the answers in bold; this section has that licence.",
        "https://en.wikipedia.org/wiki/",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question with what the bundle made of it.

    :ivar title: of its article, as the file has it.
    :ivar verdict: one of `VERDICTS`: the same words as a reference, some of them, or none.
    """

    question: SquadQuestion
    title: str
    answer: Answer
    verdict: str


def ask(answerer: Answerer, squad: Path, count: int) -> list[Asked]:
    """Answer so many questions of a file.

    :raises DataError: if the file cannot be used, or one of the questions has no reference answer.
    """
    titles = {
        item["id"]: str(article.get("title", ""))
        for article in read_json(squad, "SQuAD file").get("data", ())
        for paragraph in article["paragraphs"]
        for item in paragraph["qas"]
    }
    asked = []
    for question in spread(load_squad_questions(squad), count):
        if not question.answers:
            raise DataError(
                f"SQuAD file {squad}: question {question.id} has no answers; expected a file with references"
            )
        answer = answerer.answer(question.question, question.context)
        if any(exact_match(answer.text, reference) for reference in question.answers):
            verdict = "right"
        else:
            verdict = "in part" if any(f1(answer.text, reference) for reference in question.answers) else "wrong"
        asked.append(Asked(question=question, title=titles[question.id], answer=answer, verdict=verdict))
    return asked


def page(answerer: Answerer, parts: Sequence[tuple[Path, Sequence[Asked]]], command: str) -> str:
    """The whole page in Markdown."""
    manifest = answerer.bundle.manifest
    every = [asked for _, part in parts for asked in part]
    counts = ", ".join(f"{sum(asked.verdict == verdict for asked in every)} {verdict}" for verdict in VERDICTS)
    files = " and ".join(f"{len(part)} from `{squad.name}`" for squad, part in parts)
    lines = [
        f"# {len(every)} questions, not selected",
        "",
        f"**{counts}.** {files}, evenly spread over each file: the rule picks them, not their answers.",
        "",
        "*Right*: the same words as a reference answer, by the official script's rules (case, punctuation and articles"
        " do not count). *In part*: some of its words. *P*: how likely the answer is to be right, as the"
        " model says itself.",
        "",
        f"Bundle `{manifest.name}` of {manifest.created}, {answerer.precision} in {answerer.engine_name}. Made by",
        "",
        f"    {command}",
        "",
    ]
    number = 0
    for squad, part in parts:
        heading, source, articles = _source(squad)
        lines += [f"## {heading}", "", source, ""]
        lines += ["| | question | answer | P | | reference |", "|---|---|---|---|---|---|"]
        first = number + 1
        for asked in part:
            number += 1
            lines.append(_row(number, asked))
        lines.append("")
        lines += _texts(first, part, articles)
    return "\n".join(lines).rstrip() + "\n"


def _source(squad: Path) -> tuple[str, str, str]:
    place = f"{squad.resolve().parent.name}/{squad.name}"
    found = [source for part, source in SOURCES.items() if part in place]
    return found[0] if found else (squad.name, f"Texts, questions and references are those of {squad.name}.", "")


def _row(number: int, asked: Asked) -> str:
    likely = "-" if asked.answer.probability is None else f"{asked.answer.probability:.2f}"
    distinct = list(dict.fromkeys(asked.question.answers))
    references = "" if asked.verdict == "right" else " / ".join(map(_plain, distinct))
    cells = (_plain(asked.question.question), _plain(asked.answer.text), likely, asked.verdict, references)
    return f"| {number} | {' | '.join(cells)} |"


def _texts(first: int, part: Sequence[Asked], articles: str) -> list[str]:
    """Each text once, below the numbers of its questions, with their answers in bold."""
    lines: list[str] = []
    by_text: dict[str, list[int]] = {}
    for offset, asked in enumerate(part):
        by_text.setdefault(asked.question.context, []).append(offset)
    for context, offsets in by_text.items():
        numbers = ", ".join(str(first + offset) for offset in offsets)
        spans = [(part[offset].answer.start, part[offset].answer.end) for offset in offsets]
        title = part[offsets[0]].title
        named = _plain(title.replace("_", " "))
        if articles:
            named = f"[{named}](<{articles}{title}>)"
        lines += [f"**{numbers}**, {named}:", "", f"> {_marked(context, spans)}", ""]
    return lines


def _marked(context: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text in one line, with the characters of the spans in bold; spans that overlap become one."""
    merged: list[list[int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    shown, done = "", 0
    for start, end in merged:
        shown += _escaped(context[done:start]) + f"<b>{_escaped(context[start:end])}</b>"
        done = end
    return " ".join((shown + _escaped(context[done:])).split())


def _plain(text: str) -> str:
    return " ".join(_escaped(text).split())


def _escaped(text: str) -> str:
    """Characters that mean something in Markdown mean themselves."""
    return re.sub(r"([\\`*_{}\[\]#|~<>$])", r"\\\1", text)


def _command(options: argparse.Namespace) -> str:
    """The command that makes the page again, from the root of the sources."""
    words = ["python tools/page_of_answers.py", "--squad", *map(_name, options.squad), "--questions", options.questions]
    for option in ("bundle", "engine", "output"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option}", _name(value) if option != "engine" else value]
    return " ".join(map(str, words))


def _name(path: Path) -> str:
    """A path below the working folder; a file elsewhere by its name alone."""
    whole, here = path.resolve(), Path.cwd().resolve()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else whole.name


def main() -> int:
    """Ask, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="if not given, the one of qa-edge-models")
    parser.add_argument("--squad", nargs="+", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--questions", type=int, default=20, metavar="N", help="of each file (20)")
    parser.add_argument("--engine")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE.md")
    options = parser.parse_args()
    if options.questions < 1:
        parser.error(f"--questions is {options.questions}, expected a whole number from 1")
    try:
        with Answerer.load(options.bundle, engine=options.engine) as answerer:
            parts = [(squad, ask(answerer, squad, options.questions)) for squad in options.squad]
            atomic_write(options.output, page(answerer, parts, _command(options)))
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for squad, part in parts:
        right = sum(asked.verdict == "right" for asked in part)
        sys.stdout.write(f"{squad.name}: {right} of {len(part)} right\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
