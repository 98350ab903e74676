"""`qa-edge report`: the paper's tables and figure beside what the runs of a folder give."""

from __future__ import annotations

import click

from qa_edge.cli.output import json_option, print_json, print_table


@click.command("report", short_help="The paper's tables, with these runs beside its numbers.")
@click.option("--runs", metavar="FOLDER", required=True, help="Folder with runs, of experiments or any others.")
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder to write report.md and report.html to.")
@click.option("--peers", metavar="FILE", help="JSON of benchmarks/peers.py, for Table 3.")
@json_option
def command(runs: str, output: str, peers: str | None, as_json: bool) -> None:
    """Write the paper's Tables 1 to 8 and Figure 7 from whatever runs there are.

    A number that has not been measured stays empty, and is counted at the top. Of several runs for one number those
    that trained on most questions count, the mean over their seeds.
    """
    from dataclasses import asdict

    from qa_edge.experiments.report import paper_report
    from qa_edge.experiments.report_page import write_report

    found = paper_report(runs, peers=peers)
    text, page = write_report(found, output)
    if as_json:
        print_json({"summary": found.summary, "tables": [asdict(table) for table in found.tables]})
        return
    rows = [[f"Table {table.number}", table.title, str(table.filled), str(table.missing)] for table in found.tables]
    print_table(("", "", "measured here", "missing"), rows, title=f"{text}, {page}\n{found.summary}")
