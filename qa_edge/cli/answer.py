"""`qa-edge answer`: answers out of a text, by a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qa_edge.cli.options import bundle_argument, engine_options, finite
from qa_edge.cli.output import json_option, print_json, print_table
from qa_edge.progress import progress

if TYPE_CHECKING:
    from qa_edge_runtime.answers import Answer


@click.command("answer", short_help="Answer questions out of a text.")
@bundle_argument
@click.option("--question", help="One question; if not given, questions are read from standard input, one a line.")
@click.option("--context", help="The text to answer from.")
@click.option("--context-file", metavar="FILE", help="The same in a file, UTF-8; - is standard input.")
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Answers wanted, best first.")
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    callback=finite,
    default=0.0,
    show_default=True,
    help="Leave out answers that are less likely to be right; none may be left.",
)
@click.option(
    "--max-windows",
    type=click.IntRange(1),
    help="Of a long text, read only so many windows: those that share most with the question's words.",
)
@click.option("--sentences", is_flag=True, help="Print the sentence around each answer too.")
@engine_options
@json_option
def command(
    bundle: str | None,
    question: str | None,
    context: str | None,
    context_file: str | None,
    top_k: int,
    min_probability: float,
    max_windows: int | None,
    sentences: bool,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Answer out of a context of any length, with the bundle of qa-edge-models if none is named.

    A line holds the answer, its characters start-end in the context, and the probability that it is right to the word
    (- if the bundle has none fitted). With --json a line is an object.
    """
    if (context is None) == (context_file is None):
        raise click.UsageError("give the text either as --context or as --context-file")
    if question is None and context_file == "-":
        raise click.UsageError("standard input cannot be the context and the questions: give --question")
    if question is None and sys.stdin.isatty():
        raise click.UsageError("give --question, or questions on standard input, one a line")
    from qa_edge_runtime.answerer import Answerer
    from qa_edge_runtime.errors import InputError
    from qa_edge_runtime.files import is_utf8

    for name, given in (("--question", question), ("--context", context)):
        if given is not None and not is_utf8(given):
            raise click.UsageError(f"{name} is not UTF-8 as this terminal gives it; check the locale, or use a file")
    text = _read_file(str(context_file)) if context is None else context
    with Answerer.load(bundle, engine=engine, precision=precision, threads=threads) as answerer:
        passage = answerer.read(text)
        questions = _questions() if question is None else iter([(0, question)])
        asked = 0
        for line, one in questions:
            with _showing(min(passage.windows, max_windows or passage.windows)) as advance:
                try:
                    answers = passage.answers(
                        one,
                        top_k,
                        min_probability=min_probability,
                        max_windows=max_windows,
                        sentences=sentences,
                        progress=advance,
                    )
                except InputError as error:
                    raise InputError(f"standard input, line {line}: {error}" if line else str(error)) from error
            _print(one, answers, as_json, top_k)
            asked += 1
        if not asked:
            raise InputError("standard input holds no question; expected one a line")


@contextmanager
def _showing(windows: int) -> Iterator[Callable[[int, int], None] | None]:
    """Progress over the windows of a long text; nothing for a short one."""
    if windows == 1:
        yield None
        return
    with progress("read", windows) as advance:
        yield lambda done, count: advance(1)


def _print(question: str, answers: list[Answer], as_json: bool, top_k: int) -> None:
    if as_json:
        found: dict[str, Any] = {"question": question, **(asdict(answers[0]) if answers else {"text": None})}
        if top_k > 1:
            found["answers"] = [asdict(answer) for answer in answers]
        print_json(found, indent=None)
    elif top_k > 1:
        rows = [
            [answer.text, f"{answer.start}-{answer.end}", _likely(answer), f"{answer.span_probability:.4f}"]
            for answer in answers
        ]
        print_table(("answer", "characters", "probability", "among the spans"), rows, title=question)
        for answer in answers:
            if answer.sentence is not None:
                click.echo(f"{answer.start}-{answer.end}: {_in_line(answer.sentence.text)}")
    elif answers:
        # Tabs, and no table: questions may come one by one, and answers go on to cut or awk.
        answer = answers[0]
        fields = [_in_line(answer.text), f"{answer.start}-{answer.end}", _likely(answer)]
        click.echo("\t".join(fields + ([_in_line(answer.sentence.text)] if answer.sentence is not None else [])))
    else:
        click.echo("\t-\t-")


def _likely(answer: Answer) -> str:
    return "-" if answer.probability is None else f"{answer.probability:.4f}"


def _in_line(text: str) -> str:
    return " ".join(text.split())


def _questions() -> Iterator[tuple[int, str]]:
    """Questions of standard input with the numbers of their lines."""
    from qa_edge_runtime.errors import DataError

    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            question = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 in line {number}: {error.reason}") from error
        if question:
            yield number, question


def _read_file(path: str) -> str:
    """The file's characters as they are: offsets count carriage returns too."""
    from qa_edge_runtime.errors import DataError
    from qa_edge_runtime.files import decode_text

    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return decode_text(raw)
    except UnicodeDecodeError as error:
        raise DataError(f"context file {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except FileNotFoundError:
        raise DataError(f"context file {path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"context file {path} cannot be read: {error.strerror or error}") from error
