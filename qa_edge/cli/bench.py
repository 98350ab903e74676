"""`qa-edge bench`: end-to-end latency of a bundle on real questions."""

from __future__ import annotations

import click

from qa_edge.cli.options import engine_options
from qa_edge.cli.output import json_option


@click.command("bench", short_help="Measure a bundle's latency on real questions.")
@click.argument("bundle", metavar="BUNDLE.qab")
@click.option(
    "--squad", metavar="DEV.json", help="Questions to measure with; the bundle's ordinary cases if not given."
)
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="Questions, spread over the file."
)
@click.option("--repeat", type=click.IntRange(1), help="Passes; enough for 100 queries if not given.")
@click.option(
    "--cold-starts", type=click.IntRange(0), default=5, show_default=True, help="Fresh processes that are timed."
)
@engine_options
@json_option
def command(
    bundle: str,
    squad: str | None,
    limit: int,
    repeat: int | None,
    cold_starts: int,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Answer real questions one by one: p50, p90, p99 of each stage, cold start, peak memory, the machine named."""
    from qa_edge_runtime.latency import MINIMUM_QUERIES, bench_questions, format_report, measure_latency

    questions = bench_questions(bundle, squad, limit=limit)
    passes = repeat or -(-MINIMUM_QUERIES // max(1, len(questions.pairs)))
    report = measure_latency(
        bundle,
        questions.pairs,
        engine=engine,
        precision=precision,
        threads=threads,
        repeat=passes,
        cold_starts=cold_starts,
        source=questions.source,
    )
    click.echo(report.to_json() if as_json else format_report(report))
