"""`qa-edge teach`: fine-tune an encoder into a teacher."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from qa_edge.cli.options import TEACH, given, settings_options
from qa_edge.cli.output import is_main_process, json_option, log, print_facts, print_json, wrong_usage


@click.command("teach", short_help="Fine-tune an encoder into a teacher.")
@click.option("--encoder", metavar="NAME", required=True, help="Encoder of the hub, or a folder.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD JSON to train on.")
@click.option("--dev", metavar="DEV.json", help="SQuAD JSON to score the teacher on in the end.")
@click.option(
    "-o", "--output", metavar="TEACHER", required=True, help="Folder of the teacher, or of a run to go on with."
)
@settings_options(TEACH)
@click.option("--max-steps", type=click.IntRange(1), help="Stop after so many updates in all, to be gone on with.")
@json_option
def command(
    encoder: str, squad: str, dev: str | None, output: str, max_steps: int | None, as_json: bool, **settings: Any
) -> None:
    """Fine-tune an encoder on extractive questions; the same command goes on with an interrupted run."""
    from qa_edge.teach import teach
    from qa_edge.teach_settings import TeachSettings

    with wrong_usage():
        chosen = TeachSettings(**given(settings))
    report = teach(encoder, squad, output, dev_path=dev, settings=chosen, max_steps=max_steps, log=log)
    if not is_main_process():
        return
    if as_json:
        print_json(asdict(report))
        return
    facts: dict[str, object] = {"updates": f"{report.steps} of {report.total_steps}"} if report.total_steps else {}
    facts["state"] = "finished" if report.finished else "to be gone on with: run the same command"
    if report.scores is not None:
        facts["exact match"] = f"{report.scores['exact_match']:.2f}"
        facts["F1"] = f"{report.scores['f1']:.2f} on {report.scores['total']} questions of {report.scores['on']}"
    print_facts(facts, title=report.teacher)
