"""`qa-edge answer`: answers out of a text, by a bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qa_edge.cli.options import engine_options
from qa_edge.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from qa_edge_runtime.answerer import Answer


@click.command("answer", short_help="Answer questions out of a text.")
@click.argument("bundle", metavar="BUNDLE.qab")
@click.option("--question", help="One question; if not given, questions are read from standard input, one a line.")
@click.option("--context", help="The text to answer from.")
@click.option("--context-file", metavar="FILE", help="The same in a file, UTF-8; - is standard input.")
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Answers wanted, best first.")
@engine_options
@json_option
def command(
    bundle: str,
    question: str | None,
    context: str | None,
    context_file: str | None,
    top_k: int,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Answer out of a context, with the characters [start, end) of the answer in it, and a score.

    The score is the span's probability among all spans of the context. With --json a line is an object.
    """
    if (context is None) == (context_file is None):
        raise click.UsageError("give the text either as --context or as --context-file")
    if question is None and context_file == "-":
        raise click.UsageError("standard input cannot be the context and the questions: give --question")
    if question is None and sys.stdin.isatty():
        raise click.UsageError("give --question, or questions on standard input, one a line")
    from qa_edge_runtime.answerer import Answerer
    from qa_edge_runtime.errors import InputError

    text = _read_file(str(context_file)) if context is None else context
    with Answerer.load(bundle, engine=engine, precision=precision, threads=threads) as answerer:
        questions = _questions() if question is None else iter([question])
        asked = 0
        for one in questions:
            _print(one, answerer.answers(one, text, top_k=top_k), as_json, top_k)
            asked += 1
        if not asked:
            raise InputError("standard input holds no question; expected one a line")


def _print(question: str, answers: list[Answer], as_json: bool, top_k: int) -> None:
    if as_json:
        best: dict[str, Any] = {"question": question, **asdict(answers[0])}
        if top_k > 1:
            best["answers"] = [asdict(answer) for answer in answers]
        print_json(best, indent=None)
    elif top_k > 1:
        rows = [[answer.text, f"{answer.start}-{answer.end}", f"{answer.score:.4f}"] for answer in answers]
        print_table(("answer", "characters", "score"), rows, title=question)
    else:
        # Tabs, and no table: questions may come one by one, and answers go on to cut or awk.
        answer = answers[0]
        line = " ".join(answer.text.split())
        click.echo(f"{line}\t{answer.start}-{answer.end}\t{answer.score:.4f}")


def _questions() -> Iterator[str]:
    from qa_edge_runtime.errors import DataError

    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            question = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 in line {number}: {error.reason}") from error
        if question:
            yield question


def _read_file(path: str) -> str:
    """The file's characters as they are: offsets count carriage returns too."""
    from qa_edge_runtime.errors import DataError

    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"context file {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except FileNotFoundError:
        raise DataError(f"context file {path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"context file {path} cannot be read: {error.strerror or error}") from error
