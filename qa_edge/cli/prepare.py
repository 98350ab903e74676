"""`qa-edge prepare`: SQuAD JSON to features."""

from __future__ import annotations

from typing import Any

import click

from qa_edge.cli.options import vectors_path, with_prepare_settings
from qa_edge.cli.output import json_option, print_facts, print_json, wrong_usage


@click.command("prepare", short_help="Turn SQuAD JSON into features: tokens, ids, vectors.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD v1.1 or v2.0 JSON.")
@click.option("--vectors", metavar="FILE|none", help="GloVe text, .gz or .zip; none trains on characters alone.")
@click.option("--init", metavar="CHECKPOINT", help="Trained student to go on from: its words, vectors and characters.")
@click.option("-o", "--output", metavar="FEATURES", required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which articles are held out.")
@with_prepare_settings
@click.option("--force", is_flag=True, help="Replace a folder that exists.")
@json_option
def command(
    squad: str,
    vectors: str | None,
    init: str | None,
    output: str,
    seed: int,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Tokenise, number and check the questions of a SQuAD file; `distill --features` trains on the result."""
    from qa_edge.prepare import PrepareSettings, prepare

    if vectors is None and init is None:
        raise click.UsageError("Missing option '--vectors': give a file, or none")
    with wrong_usage():
        given = PrepareSettings(seed=seed, **settings)
    manifest = prepare(squad, output, vectors_path=vectors_path(vectors), init=init, settings=given, force=force)
    if as_json:
        print_json(manifest)
        return
    left_out = ("format_version", "settings")
    facts = {name.replace("_", " "): value for name, value in manifest.items() if name not in left_out}
    print_facts(facts, title=output)
