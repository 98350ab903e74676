"""`python -m qa_edge_runtime`: answer, bench and info where only the runtime is installed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import DataError, QaEdgeError
from qa_edge_runtime.graphs import ENGINES, PRECISIONS
from qa_edge_runtime.machine import peak_memory_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :return: the exit code: 0, or 1 after an error that was said in one line; wrong usage exits with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # An answer may hold characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except OSError as error:
        # The interpreter must not try to write again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that has left, as head does, needs no message
            sys.stderr.write(f"error: cannot write the result: {error.strerror or error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qa_edge_runtime", description="Answers questions out of a text.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    answer = commands.add_parser("answer", help="answer a question out of a context")
    answer.set_defaults(run=_answer)
    answer.add_argument("bundle")
    answer.add_argument("--question", required=True)
    source = answer.add_mutually_exclusive_group(required=True)
    source.add_argument("--context")
    source.add_argument("--context-file", metavar="FILE", help="UTF-8 text; - is standard input")
    answer.add_argument("--top-k", type=_from_one, default=1, metavar="N", help="answers wanted (1)")

    bench = commands.add_parser("bench", help="measure latency on real questions")
    bench.set_defaults(run=_bench)
    bench.add_argument("bundle")
    bench.add_argument(
        "--squad", metavar="FILE", help="questions to measure with; the bundle's ordinary cases if not given"
    )
    bench.add_argument(
        "--limit", type=_from_one, default=200, metavar="N", help="questions, spread over the file (200)"
    )
    bench.add_argument("--repeat", type=_from_one, metavar="N", help="passes; enough for 100 queries if not given")

    info = commands.add_parser("info", help="say what a bundle holds")
    info.set_defaults(run=_info)
    info.add_argument("bundle")

    for command in (answer, bench):
        command.add_argument("--engine", choices=ENGINES, help="the first that is installed if not given")
        command.add_argument(
            "--precision",
            choices=PRECISIONS,
            help="int8, fp16, fp32: the first in the bundle if not given, but no int8 in tflite-runtime",
        )
        command.add_argument("--threads", type=_from_one, default=1, metavar="N", help="threads of the engine (1)")
    for command in (answer, bench, info):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _answer(options: argparse.Namespace) -> None:
    context = options.context if options.context is not None else _read_text(options.context_file)
    began = time.perf_counter()
    with Answerer.load(
        options.bundle, engine=options.engine, precision=options.precision, threads=options.threads
    ) as answerer:
        loaded = time.perf_counter()
        answers = answerer.answers(options.question, context, top_k=options.top_k)
        answered = time.perf_counter()
    if not options.json:
        _print("\n".join(f"{answer.text}\t{answer.start}\t{answer.end}\t{answer.score:.4f}" for answer in answers))
        return
    times = {
        "load_ms": 1e3 * (loaded - began),
        "first_answer_ms": 1e3 * (answered - loaded),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    _print(json.dumps({"answers": [asdict(answer) for answer in answers], "times": times}))


def _bench(options: argparse.Namespace) -> None:
    from qa_edge_runtime.latency import MINIMUM_QUERIES, bench_questions, format_report, measure_latency

    pairs, source = bench_questions(options.bundle, options.squad, limit=options.limit)
    repeat = options.repeat or -(-MINIMUM_QUERIES // max(1, len(pairs)))
    report = measure_latency(
        options.bundle,
        pairs,
        engine=options.engine,
        precision=options.precision,
        threads=options.threads,
        repeat=repeat,
        source=source,
    )
    _print(report.to_json() if options.json else format_report(report))


def _info(options: argparse.Namespace) -> None:
    bundle = Bundle.open(options.bundle)
    if options.json:
        _print(bundle.manifest.to_json().rstrip())
        return
    manifest, table = bundle.manifest, bundle.manifest.table
    groups = f" with a scale for each {table.group_size}" if table.quantised else ""
    rows = {
        "name": manifest.name,
        "format": manifest.format_version,
        "created": f"{manifest.created} by qa-edge {manifest.qa_edge_version}, spaCy {manifest.spacy_version}",
        "size": f"{bundle.size_bytes / 1e6:.2f} MB",
        "table": f"{table.rows:,} rows of {table.hidden} numbers, {table.dtype}{groups}",
        "answers": f"up to {manifest.max_answer_tokens} tokens",
        "scores": json.dumps(manifest.scores) if manifest.scores else "not measured",
        "licences": json.dumps(manifest.licences, ensure_ascii=False) if manifest.licences else "not stated",
    }
    sizes = {name: f"{record.size_bytes / 1e6:>9.3f} MB" for name, record in manifest.files.items()}
    graphs = {graph.file: f"  {graph.role} graph, {graph.engine}, {graph.precision}" for graph in manifest.graphs}
    files = [f"  {name:<20}{size}{graphs.get(name, '')}" for name, size in sizes.items()]
    _print("\n".join([*(f"{name:<10}{value}" for name, value in rows.items()), "files", *files]))


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _read_text(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"context file {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"context file {path} cannot be read: {error.strerror or error}") from error


def _from_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
