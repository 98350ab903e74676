"""`qa-edge check`: what a SQuAD file holds, and which answers training cannot use."""

from __future__ import annotations

from dataclasses import asdict

import click

from qa_edge.cli.output import json_option, print_facts, print_json, print_table


@click.command("check", short_help="Count what a SQuAD file holds and find misplaced answers.")
@click.argument("squad", metavar="DATA.json")
@click.option("--examples", type=click.IntRange(0), default=5, show_default=True, help="Misplaced answers to quote.")
@json_option
def command(squad: str, examples: int, as_json: bool) -> None:
    """Read SQuAD JSON (v1.1 or v2.0), count what it holds, and find the answers that do not stand at their offset."""
    from qa_edge.check import check_squad
    from qa_edge.squad import read_squad

    report = check_squad(read_squad(squad), examples=examples)
    values = asdict(report)
    if as_json:
        print_json(values)
        return
    quoted = values.pop("examples")
    print_facts({name.replace("_", " "): value for name, value in values.items()}, title=squad)
    if quoted:
        rows = [
            [one["question_id"], str(one["start"]), one["expected"][:40], one["found"][:40], str(one["nearest"])]
            for one in quoted
        ]
        columns = ("question", "start", "expected there", "found there", "stands at")
        print_table(columns, rows, title=f"misplaced answers ({len(quoted)} of {report.misplaced})")
