"""`python -m qa_edge_runtime bench`: end-to-end latency of a bundle on real questions, or of two in turn."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from qa_edge_runtime.cli.options import add_bundle_argument, add_engine_options, add_json_option, from_one, threads
from qa_edge_runtime.default_bundle import bundle_or_default
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.graphs import ENGINES, PRECISIONS

if TYPE_CHECKING:
    from qa_edge_runtime.comparison_report import ComparisonReport
    from qa_edge_runtime.latency_report import LatencyReport


def add_parser(commands: Any) -> None:
    """Add the command to those of the parser."""
    command = commands.add_parser(
        "bench",
        help="measure latency on real questions",
        description="Answers real questions one by one and says what each stage took, in a tight loop and with pauses,"
        " cold start, memory, and what disturbed it. With a second bundle, or with --against-..., both answer in turn"
        " and their ratio is told.",
        epilog="Where qa-edge is installed, qa-edge bench --from REPORT.json --chart FILE.svg draws what -o wrote.",
    )
    command.set_defaults(run=run)
    add_bundle_argument(command)
    command.add_argument("against", nargs="?", help="a second bundle, to compare with")
    command.add_argument(
        "--squad", metavar="FILE", help="questions to measure with; the bundle's ordinary cases if not given"
    )
    command.add_argument(
        "--articles", action="store_true", help="ask of the whole article of the SQuAD file, not of the paragraph"
    )
    command.add_argument(
        "--limit", type=from_one, default=200, metavar="N", help="questions, spread over the file (200)"
    )
    command.add_argument("--repeat", type=from_one, metavar="N", help="passes; 5, or enough for 500 queries")
    command.add_argument(
        "--paced", type=_from_zero, metavar="MS", help="pause before each of 100 more queries (100); 0: none of them"
    )
    command.add_argument("--cold-starts", type=_whole_from_zero, metavar="N", help="fresh processes that are timed (5)")
    add_engine_options(command)
    command.add_argument("--against-engine", choices=ENGINES, help="compare with this engine")
    command.add_argument("--against-precision", choices=PRECISIONS, help="compare with this precision")
    command.add_argument("--against-threads", type=threads, metavar="N", help="compare with this many threads")
    add_json_option(command)
    command.add_argument("-o", "--output", metavar="REPORT.json", help="write the JSON there too, with every query")


def run(options: argparse.Namespace) -> None:
    """Measure; a table or JSON, and what disturbed the measurement on standard error."""
    from qa_edge_runtime.files import atomic_write, check_output_file, require_other_file
    from qa_edge_runtime.latency_table import format_report, warning_lines

    if options.output is not None:
        check_output_file(options.output)
        read = (options.squad, bundle_or_default(options.bundle), options.against)
        require_other_file(options.output, *filter(None, read))
    report = _measure(options)
    if options.output is not None:  # first: what took minutes outlives a full disk or a closed pipe
        atomic_write(options.output, report.to_json() + "\n")
    print(report.to_json() if options.json else format_report(report), flush=True)
    for line in warning_lines(report.warnings):
        print(line, file=sys.stderr)


def _measure(options: argparse.Namespace) -> LatencyReport | ComparisonReport:
    from qa_edge_runtime.comparison import Contender, compare_latency
    from qa_edge_runtime.latency import measure_latency as measure
    from qa_edge_runtime.latency import usual_passes
    from qa_edge_runtime.progress_line import progress_line
    from qa_edge_runtime.questions import bench_questions

    compared = any((options.against, options.against_engine, options.against_precision, options.against_threads))
    if compared and (options.paced is not None or options.cold_starts is not None):
        raise InputError("a comparison has neither a paced mode nor cold starts: leave out --paced and --cold-starts")
    bundle = bundle_or_default(options.bundle)
    pairs, source = bench_questions(bundle, options.squad, limit=options.limit, articles=options.articles)
    repeat = options.repeat or usual_passes(len(pairs))
    progress = progress_line("queries", sys.stderr)
    if not compared:
        return measure(
            bundle,
            pairs,
            engine=options.engine,
            precision=options.precision,
            threads=options.threads,
            repeat=repeat,
            paced_ms=100.0 if options.paced is None else options.paced,
            cold_starts=5 if options.cold_starts is None else options.cold_starts,
            source=source,
            progress=progress,
        )
    first = Contender(path=bundle, engine=options.engine, precision=options.precision, threads=options.threads)
    second = Contender(
        path=options.against or bundle,
        engine=options.against_engine or options.engine,
        precision=options.against_precision or options.precision,
        threads=options.against_threads or options.threads,
    )
    return compare_latency(first, second, pairs, repeat=repeat, source=source, progress=progress)


def _from_zero(text: str) -> float:
    from qa_edge_runtime.latency import MOST_PACED_MS

    value = float(text)
    if not 0 <= value <= MOST_PACED_MS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of milliseconds from 0 to {MOST_PACED_MS}")
    return value


def _whole_from_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value
