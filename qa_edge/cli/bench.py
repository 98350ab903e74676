"""`qa-edge bench`: end-to-end latency of a bundle on real questions, or of two in turn: table, JSON and chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qa_edge.cli.options import bundle_argument, engine_options, finite
from qa_edge.cli.output import json_option, log, wrong_usage

if TYPE_CHECKING:
    from qa_edge_runtime.comparison_report import ComparisonReport
    from qa_edge_runtime.latency_report import LatencyReport

# What a report that was measured elsewhere may be shown with.
_SHOWING = ("report_path", "chart", "as_json")


@click.command("bench", short_help="Measure a bundle's latency on real questions, or compare two.")
@bundle_argument
@click.argument("against", metavar="[AGAINST.qab]", required=False)
@click.option(
    "--squad", metavar="DEV.json", help="Questions to measure with; the bundle's ordinary cases if not given."
)
@click.option("--articles", is_flag=True, help="Ask of the whole article of the SQuAD file, not of the paragraph.")
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="Questions, spread over the file."
)
@click.option("--repeat", type=click.IntRange(1), help="Passes; 5, or enough for 500 queries, if not given.")
@click.option(
    "--paced",
    type=click.FloatRange(0, 60_000),
    callback=finite,
    metavar="MS",
    help="Pause before each of 100 more queries; 0 leaves them out.  [default: 100]",
)
@click.option("--cold-starts", type=click.IntRange(0), help="Fresh processes that are timed.  [default: 5]")
@engine_options
@click.option("--against-engine", type=click.Choice(["onnx", "tflite"]), help="Compare with this engine.")
@click.option("--against-precision", type=click.Choice(["int8", "fp16", "fp32"]), help="Compare with this precision.")
@click.option("--against-threads", type=click.IntRange(1, 64), help="Compare with this many threads.")
@json_option
@click.option("-o", "--output", metavar="REPORT.json", help="Write the JSON there too, with every query.")
@click.option("--chart", metavar="FILE", help="Draw distribution and time against length: .png or .svg.")
@click.option("--from", "report_path", metavar="REPORT.json", help="Show what was measured before, or on a device.")
@click.pass_context
def command(context: click.Context, report_path: str | None, chart: str | None, as_json: bool, **options: Any) -> None:
    """Answer real questions one by one: p50, p90, p99 of each stage, tight loop and paced, by length, cold start.

    Without a bundle, that of qa-edge-models is measured. With a second one, or with --against-..., both answer in turn
    and their ratio is told.
    """
    from qa_edge_runtime.comparison_report import read_report
    from qa_edge_runtime.default_bundle import bundle_or_default
    from qa_edge_runtime.files import atomic_write, check_output_file, require_other_file
    from qa_edge_runtime.latency_table import format_report, warning_lines

    if options["bundle"] is not None and report_path is not None:
        raise click.UsageError("Give either a bundle to measure, or --from REPORT.json, not both.")
    if chart is not None:
        from qa_edge.latency_chart import check_chart_path, load_matplotlib

        with wrong_usage():
            check_chart_path(chart)
        load_matplotlib()
    if options["output"] is not None:
        check_output_file(options["output"])
        read = (options["squad"], report_path or bundle_or_default(options["bundle"]), options["against"])
        require_other_file(options["output"], *filter(None, read))
    if report_path is None:
        report = _measure(**{name: value for name, value in options.items() if name != "output"})
    else:
        _refuse_settings(context)
        report = read_report(report_path)
    if options["output"] is not None:  # first: what took minutes outlives a full disk or a closed pipe
        atomic_write(options["output"], report.to_json() + "\n")
    click.echo(report.to_json() if as_json else format_report(report))
    for line in warning_lines(report.warnings):
        log(line)
    if chart is not None:
        from qa_edge.latency_chart import draw_report

        draw_report(report, chart)


def _measure(
    *,
    bundle: str | None,
    against: str | None,
    squad: str | None,
    articles: bool,
    limit: int,
    repeat: int | None,
    paced: float | None,
    cold_starts: int | None,
    engine: str | None,
    precision: str | None,
    threads: int,
    against_engine: str | None,
    against_precision: str | None,
    against_threads: int | None,
) -> LatencyReport | ComparisonReport:
    import sys

    from qa_edge_runtime.comparison import Contender, compare_latency
    from qa_edge_runtime.default_bundle import bundle_or_default
    from qa_edge_runtime.latency import measure_latency, usual_passes
    from qa_edge_runtime.progress_line import progress_line
    from qa_edge_runtime.questions import bench_questions

    compared = any((against, against_engine, against_precision, against_threads))
    if compared and (paced is not None or cold_starts is not None):
        raise click.UsageError(
            "A comparison has no paced mode and no cold starts: leave --paced and --cold-starts out."
        )
    if articles and squad is None:
        raise click.UsageError("--articles needs --squad: the bundle's cases belong to no articles.")
    path = bundle_or_default(bundle)
    questions = bench_questions(path, squad, limit=limit, articles=articles)
    passes = repeat or usual_passes(len(questions.pairs))
    progress = progress_line("queries", sys.stderr)
    if not compared:
        return measure_latency(
            path,
            questions.pairs,
            engine=engine,
            precision=precision,
            threads=threads,
            repeat=passes,
            paced_ms=100.0 if paced is None else paced,
            cold_starts=5 if cold_starts is None else cold_starts,
            source=questions.source,
            progress=progress,
        )
    first = Contender(path=path, engine=engine, precision=precision, threads=threads)
    second = Contender(
        path=against or path,
        engine=against_engine or engine,
        precision=against_precision or precision,
        threads=against_threads or threads,
    )
    return compare_latency(first, second, questions.pairs, repeat=passes, source=questions.source, progress=progress)


def _refuse_settings(context: click.Context) -> None:
    """What says how to measure means nothing to a report that is there already."""
    given = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in _SHOWING
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        and context.params.get(parameter.name or "") is not None
    ]
    if given:
        raise click.UsageError(f"--from shows a report as it is: leave {', '.join(given)} out.")
