"""`qa-edge export`: a trained student to a bundle, verified."""

from __future__ import annotations

from typing import Any

import click

from qa_edge.cli.options import finite
from qa_edge.cli.output import json_option, print_json, wrong_usage


@click.command("export", short_help="Write a bundle of a run, verified against torch.")
@click.argument("run", metavar="RUN")
@click.option("-o", "--output", metavar="BUNDLE.qab", required=True, help="Bundle to write.")
@click.option("--onnx", is_flag=True, help="Graphs for ONNX Runtime; so it is if no engine is named.")
@click.option("--tflite", is_flag=True, help="Graphs for LiteRT.")
@click.option("--int8", is_flag=True, help="Core graph in 8 bits; so it is if no precision is named.")
@click.option("--fp16", is_flag=True, help="Core graph with weights in 16 bits.")
@click.option("--fp32", is_flag=True, help="Core graph in full precision.")
@click.option("--ort", is_flag=True, help="ONNX graphs in the format of ONNX Runtime's mobile builds.")
@click.option(
    "--vocabulary-size", "--vocab-size", type=click.IntRange(0), help="Words in the bundle's table; all if not given."
)
@click.option(
    "--max-size",
    type=click.FloatRange(0),
    callback=finite,
    metavar="MB",
    help="As many words as fit; MB is 10^6 bytes.",
)
@click.option(
    "--text", metavar="FILE", help="SQuAD JSON or text to pick words from; the training contexts if not given."
)
@click.option("--words", metavar="FILE", help="A domain's own words, in the table at any rate.")
@click.option(
    "--table",
    type=click.Choice(["int4", "int8", "float16", "float32"]),
    default="int4",
    show_default=True,
    help="Numbers of the table.",
)
@click.option(
    "--calibration",
    type=click.Choice(["max", "percentile", "error", "dynamic"]),
    default="max",
    show_default=True,
    help="How int8 finds its scales; dynamic finds them at each call.",
)
@click.option(
    "--keep-float", metavar="LAYER", multiple=True, help="Layer of ONNX int8 to keep in float32; can be given again."
)
@click.option(
    "--margin",
    type=click.FloatRange(0),
    callback=finite,
    default=0.3,
    show_default=True,
    help="F1 that a smaller graph may cost.",
)
@click.option("--questions", metavar="DATA.json", help="Questions to verify on; held-out ones of the run if not given.")
@click.option("--calibrate-on", metavar="DATA.json", help="Questions for the scales; held-out ones if not given.")
@click.option(
    "--licence", "licences", metavar="NAME=TEXT", multiple=True, help='Such as data="CC BY 4.0"; can be given again.'
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@json_option
def command(
    run: str,
    output: str,
    onnx: bool,
    tflite: bool,
    int8: bool,
    fp16: bool,
    fp32: bool,
    ort: bool,
    vocabulary_size: int | None,
    max_size: float | None,
    text: str | None,
    words: str | None,
    table: str,
    calibration: str,
    keep_float: tuple[str, ...],
    margin: float,
    questions: str | None,
    calibrate_on: str | None,
    licences: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Write a bundle, after its answers were compared with the trained student's on real questions."""
    named = dict(_named(entry) for entry in licences)
    from qa_edge.bundle import export_run
    from qa_edge_export.report import format_report
    from qa_edge_export.settings import ExportSettings

    with wrong_usage():
        settings = ExportSettings(
            engines=_chosen({"onnx": onnx, "tflite": tflite}, "onnx"),
            precisions=_chosen({"int8": int8, "fp16": fp16, "fp32": fp32}, "int8"),
            table=table,
            words=vocabulary_size,
            max_size_bytes=None if max_size is None else int(max_size * 1e6),
            calibration=calibration,
            keep_float=frozenset(keep_float),
            ort=ort,
            f1_margin=margin,
        )
    report = export_run(
        run,
        output,
        settings=settings,
        questions_path=questions,
        calibration_path=calibrate_on,
        text_path=text,
        words_path=words,
        licences=named,
        force=force,
    )
    if not as_json:
        click.echo(format_report(report))
        return
    values: dict[str, Any] = {"path": str(report.path), "size_bytes": report.size_bytes, "files": dict(report.files)}
    values["graphs"] = {file: found.to_json() for file, found in report.graphs.items()}
    values["verification"] = None if report.bundle is None else report.bundle.to_json()
    print_json({**values, "words": report.words, "cases": report.cases, "seconds": report.seconds})


def _chosen(flags: dict[str, bool], default: str) -> tuple[str, ...]:
    return tuple(name for name, given in flags.items() if given) or (default,)


def _named(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise click.UsageError(f'--licence {text!r} is not NAME=TEXT, such as data="CC BY 4.0"')
    return name.strip(), value.strip()
