"""`python -m qa_edge_runtime answer`: answer a question out of a context."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.answers import Answer
from qa_edge_runtime.cli.options import add_bundle_argument, add_engine_options, add_json_option, from_one, share
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import decode_text, is_utf8
from qa_edge_runtime.machine import peak_memory_bytes


def add_parser(commands: Any) -> None:
    """Add the command to those of the parser."""
    command = commands.add_parser("answer", help="answer a question out of a context")
    command.set_defaults(run=run)
    add_bundle_argument(command)
    command.add_argument("--question", required=True)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--context")
    source.add_argument("--context-file", metavar="FILE", help="UTF-8 text; - is standard input")
    command.add_argument("--top-k", type=from_one, default=1, metavar="N", help="answers wanted (1)")
    command.add_argument(
        "--min-probability", type=share, default=0.0, metavar="P", help="leave out answers less likely to be right (0)"
    )
    command.add_argument(
        "--max-windows", type=from_one, metavar="N", help="read only the N parts of a long text that share most words"
    )
    command.add_argument("--sentences", action="store_true", help="print the sentence around each answer too")
    add_engine_options(command)
    add_json_option(command)


def run(options: argparse.Namespace) -> None:
    """Answer, and print an answer a line, or JSON with the times that it took.

    A line holds the answer, its first character, the one after its last, the probability that it is right (- if the
    bundle has none fitted), and the sentence around it if that was asked for, with tabs between them.
    """
    for name, given in (("--question", options.question), ("--context", options.context)):
        if given is not None and not is_utf8(given):
            raise InputError(f"{name} is not UTF-8 as this terminal gives it; check the locale, or use --context-file")
    context = options.context if options.context is not None else _read_text(options.context_file)
    began = time.perf_counter()
    with Answerer.load(
        options.bundle, engine=options.engine, precision=options.precision, threads=options.threads
    ) as answerer:
        loaded = time.perf_counter()
        answers = answerer.answers(
            options.question,
            context,
            top_k=options.top_k,
            min_probability=options.min_probability,
            max_windows=options.max_windows,
            sentences=options.sentences,
        )
        answered = time.perf_counter()
    if not options.json:
        for answer in answers:
            print(_line(answer))
        return
    times = {
        "load_ms": 1e3 * (loaded - began),
        "first_answer_ms": 1e3 * (answered - loaded),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    print(json.dumps({"answers": [asdict(answer) for answer in answers], "times": times}))


def _line(answer: Answer) -> str:
    likely = "-" if answer.probability is None else f"{answer.probability:.4f}"
    fields = [" ".join(answer.text.split()), str(answer.start), str(answer.end), likely]
    if answer.sentence is not None:
        fields.append(" ".join(answer.sentence.text.split()))
    return "\t".join(fields)


def _read_text(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return decode_text(raw)
    except UnicodeDecodeError as error:
        raise DataError(f"context file {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"context file {path} cannot be read: {error.strerror or error}") from error
