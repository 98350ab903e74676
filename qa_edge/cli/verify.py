"""`qa-edge verify`: whether this machine answers as the trained student does."""

from __future__ import annotations

import click

from qa_edge.cli.options import bundle_argument, engine_options
from qa_edge.cli.output import json_option, print_json


@click.command("verify", short_help="Run a bundle's conformance cases on this machine.")
@bundle_argument
@engine_options
@json_option
def command(bundle: str | None, engine: str | None, precision: str | None, threads: int, as_json: bool) -> None:
    """Run the conformance cases of a bundle, that of qa-edge-models if none is named, on all its graphs or those named.

    One line a graph says whether it answers here as the trained student does; if one does not, the exit code is 1.
    """
    from qa_edge_runtime.conformance import format_result, refuse_differences, results_to_json, verify_bundle
    from qa_edge_runtime.default_bundle import bundle_or_default

    path = bundle_or_default(bundle)
    results = verify_bundle(path, engine=engine, precision=precision, threads=threads)
    if as_json:
        print_json(results_to_json(results))
    else:
        click.echo("\n".join(map(format_result, results)))
    refuse_differences(path, results)
