"""`qa-edge label`: a teacher's logits for every question."""

from __future__ import annotations

import os
from typing import Any

import click

from qa_edge.cli.options import LABEL, given, settings_options, sharing_options
from qa_edge.cli.output import json_option, log, print_facts, print_json, wrong_usage


@click.command("label", short_help="Compute a teacher's logits for every question.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD v1.1 or v2.0 JSON.")
@click.option("--teacher", metavar="NAME", required=True, help="Question-answering model of the hub, or a folder.")
@click.option("-o", "--output", metavar="LABELS", required=True, help="Folder to write, or to go on with.")
@settings_options(LABEL)
@click.option("--states", metavar="FEATURES", help="Keep reduced states of the teacher's layers at these tokens too.")
@click.option(
    "--states-share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Of the articles of FEATURES."
)
@click.option("--device", help="Where the teacher computes, such as cuda:0; the best there is if not given.")
@sharing_options("work")
@json_option
def command(
    squad: str,
    teacher: str,
    output: str,
    states: str | None,
    states_share: float,
    device: str | None,
    process: int,
    processes: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Store a teacher's start and end logits for all questions; what an earlier run has done is kept.

    With --states the questions that FEATURES train on are read once more, for distill --layers-weight; a share has the
    articles that an experiment's budget of that share has.
    """
    from qa_edge.labels import LabelSettings, label

    if device is None:
        from qa_edge.accelerator import open_processes

        device = str(open_processes().device)
    with wrong_usage():
        chosen = LabelSettings(**given(settings))

    def said(done: int, shards: int) -> None:
        log(f"{done} of {shards} shards")

    work: dict[str, Any] = {"settings": chosen, "device": device, "on_shard": said}
    work |= {"process": process, "processes": processes}
    folder = label(squad, teacher, output, **work)
    if states is not None:
        from qa_edge.states import label_states

        label_states(squad, teacher, output, states, share=states_share, **work)
    if process and "RANK" in os.environ:  # of those that a launcher started the first one prints
        return
    from qa_edge_runtime.files import read_json

    manifest = read_json(folder / "manifest.json", "label manifest")
    if as_json:
        print_json(manifest)
    else:
        print_facts({name.replace("_", " "): value for name, value in manifest.items()}, title=output)
