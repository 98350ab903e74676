"""`qa-edge export`: a trained student to a bundle, verified."""

from __future__ import annotations

from typing import Any

import click

from qa_edge.cli.output import json_option, print_json


@click.command("export", short_help="Write a bundle of a run, verified against torch.")
@click.argument("run", metavar="RUN")
@click.option("--onnx", is_flag=True, default=True, help="For ONNX Runtime, the only engine yet.")
@click.option("-o", "--output", metavar="BUNDLE.qab", required=True, help="Bundle to write.")
@click.option("--questions", metavar="DATA.json", help="Questions to verify on; held-out ones of the run if not given.")
@click.option(
    "--licence", "licences", metavar="NAME=TEXT", multiple=True, help='Such as data="CC BY 4.0"; can be given again.'
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@json_option
def command(
    run: str, onnx: bool, output: str, questions: str | None, licences: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Write a bundle, after its answers were found equal to the trained student's on real questions."""
    named = dict(_named(text) for text in licences)
    from qa_edge.bundle import export_run
    from qa_edge_export.export import format_report

    report = export_run(run, output, questions_path=questions, licences=named, force=force)
    if not as_json:
        click.echo(format_report(report))
        return
    values: dict[str, Any] = {"path": str(report.path), "size_bytes": report.size_bytes, "files": dict(report.files)}
    values["verification"] = None if report.verification is None else report.verification.to_json()
    print_json({**values, "cases": report.cases, "seconds": report.seconds})


def _named(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise click.UsageError(f'--licence {text!r} is not NAME=TEXT, such as data="CC BY 4.0"')
    return name.strip(), value.strip()
