"""`qa-edge prepare`: SQuAD JSON to features."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from qa_edge.cli.options import PREPARE, given, own_split, settings_options, vectors_path
from qa_edge.cli.output import json_option, print_facts, print_json, wrong_usage


@click.command("prepare", short_help="Turn SQuAD JSON into features: tokens, ids, vectors.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD v1.1 or v2.0 JSON.")
@click.option("--vectors", metavar="FILE|none", help="GloVe text, .gz or .zip; none trains on characters alone.")
@click.option("--init", metavar="CHECKPOINT", help="Trained student to go on from: its words, vectors and characters.")
@click.option(
    "--features", metavar="FOLDER", help="Features of the same file: copy them, and add the copies of --noisy alone."
)
@click.option("-o", "--output", metavar="FEATURES", required=True, help="Folder to write.")
@click.option("--seed", type=int, help="Which articles are held out.  [default: 0]")
@settings_options(PREPARE)
@click.option("--force", is_flag=True, help="Replace a folder that exists.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    squad: str,
    vectors: str | None,
    init: str | None,
    features: str | None,
    output: str,
    seed: int | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Tokenise, number and check the questions of a SQuAD file; `distill --features` trains on the result."""
    from qa_edge.noisy_questions import add_noisy_questions
    from qa_edge.prepare import PrepareSettings, prepare

    if vectors is None and init is None and features is None:
        raise click.UsageError("Missing option '--vectors': give a file, or none")
    with wrong_usage():
        chosen = PrepareSettings(**{**own_split(init, squad), **given({"seed": seed, **settings})})
    if features is None:
        manifest = prepare(squad, output, vectors_path=vectors_path(vectors), init=init, settings=chosen, force=force)
    else:
        _require_alone(context)
        manifest = add_noisy_questions(features, squad, output, copies=chosen.noisy or 0, seed=chosen.seed, force=force)
    if as_json:
        print_json(manifest)
        return
    left_out = ("format_version", "settings")
    facts = {name.replace("_", " "): value for name, value in manifest.items() if name not in left_out}
    print_facts(facts, title=output)


def _require_alone(context: click.Context) -> None:
    """Of features that are there already only what `--noisy` adds can be chosen."""
    allowed = ("squad", "features", "output", "seed", "noisy", "force", "as_json")
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    others = [f"--{name.replace('_', '-')}" for name in given if name not in allowed]
    if others:
        raise click.UsageError(f"the features of --features stay as they are: leave out {', '.join(others)}")
    if "noisy" not in given:
        raise click.UsageError("--features copies features to add noisy questions: say how many of each by --noisy")
