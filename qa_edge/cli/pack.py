"""`qa-edge pack`: a bundle's folder to a single file that is opened in place, and back."""

from __future__ import annotations

import click

from qa_edge.cli.options import bundle_argument
from qa_edge.cli.output import json_option, print_json, wrong_usage


@click.command("pack", short_help="Write a bundle's folder as a single file, or back.")
@bundle_argument
@click.option(
    "-o",
    "--output",
    metavar="BUNDLE.qab.zip",
    required=True,
    help="Bundle to write: a single file if the name ends in .zip, else a folder.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@json_option
def command(bundle: str | None, output: str, force: bool, as_json: bool) -> None:
    """Write a bundle, that of qa-edge-models if none is named, in its other form, byte for byte, after checking it.

    The single file holds the bundle's files stored, not compressed: a runtime reads and maps them where they lie.
    """
    from qa_edge_runtime.bundle import copy_bundle
    from qa_edge_runtime.default_bundle import bundle_or_default

    with wrong_usage():
        size = copy_bundle(bundle_or_default(bundle), output, force=force)
    if as_json:
        print_json({"path": output, "size_bytes": size})
    else:
        click.echo(f"{output}: {size / 1e6:.2f} MB")
