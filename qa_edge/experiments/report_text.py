"""The report of the paper's tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from qa_edge.experiments.paper import figure_7
from qa_edge.experiments.report import Cell, PaperReport, Row, Table
from qa_edge.experiments.report_plots import picture_key
from qa_edge.experiments.results_page import markdown_table

READING = (
    "A cell is *here / the paper (difference)*; – stands for what has not been run. A part of a data set and a budget"
    " other than the paper's are named in the row. Peers' scores are published ones, as the paper quotes them."
)
TITLE = "The paper's tables beside these runs"


def report_text(report: PaperReport, pictures: Mapping[str, str]) -> str:
    """The report as Markdown.

    :param pictures: file of each picture by its key, as `report_figures` has them.
    """
    parts = [f"# {TITLE}", f"**{report.summary}** Runs: `{report.source}`.", overview(report), READING]
    for table in report.tables:
        parts += [
            f"## Table {table.number}: {table.title}",
            f"Paper: *{table.caption}*",
            _markdown(table),
            *table.notes,
        ]
        for key, title in pictures_of(table.number):
            if key in pictures:
                parts.append(f"![{title}]({pictures[key]})")
                parts += picture_notes(report, key)
    if report.experiments:
        parts.append("## Experiments")
    for found in report.experiments:
        parts += [f"### {experiment_title(found)}", experiment_said(found)]
        if picture_key(found) in pictures:
            parts.append(f"![Differences]({pictures[picture_key(found)]})")
    return "\n\n".join(parts) + "\n"


def overview(report: PaperReport) -> str:
    """Filled and missing cells of each table."""
    rows = [["Table", "", "measured here", "missing"]]
    rows += [[table.number, table.title, str(table.filled), str(table.missing)] for table in report.tables]
    return markdown_table(rows)


def pictures_of(number: str) -> tuple[tuple[str, str], ...]:
    """Key and title of the pictures that belong to a table."""
    return {"2": (("figure-7", "Figure 7"),), "5": (("curves", "Learning curves"),)}.get(number, ())


def picture_notes(report: PaperReport, key: str) -> list[str]:
    """What the runs of a picture are, where its table has several sorts of them."""
    if key != "figure-7":
        return []
    said = [f"{row.name}: {row.note or 'not run'}" for row in report.figure_rows]
    return [f"{figure_7().caption} These runs: {'. '.join(said)}."]


def experiment_title(found: Mapping[str, object]) -> str:
    """Name and question of an experiment, and its folder where that has another name."""
    place = "" if found["place"] == found["experiment"] else f" (in {found['place']})"
    return f"{found['experiment']}: {found['question']}{place}"


def experiment_said(found: Mapping[str, object]) -> str:
    """Size and conclusion of an experiment."""
    runs = found["runs"]
    assert isinstance(runs, Mapping)
    unfinished = (
        f" **{runs['finished']} of {runs['planned']} runs are finished.**" if runs["finished"] < runs["planned"] else ""
    )
    return f"{found['size']}.{unfinished} {found['conclusion']}".strip()


def cell_text(cell: Cell) -> str:
    """A cell in one line."""
    if cell.quoted:
        return f"{cell.shown(cell.paper)}, published"
    if cell.here is None:
        return f"– / {cell.shown(cell.paper)}"
    return f"**{cell.shown(cell.here)}** / {cell.shown(cell.paper)} ({cell.difference})"


def row_note(row: Row) -> str:
    """What was run for a row."""
    return f"published: {row.published}" if row.published else row.note


def _markdown(table: Table) -> str:
    noted = any(row_note(row) for row in table.rows)
    rows = [["", *table.headings, *(["here"] if noted else [])]]
    for row in table.rows:
        rows.append([row.name, *(cell_text(cell) for cell in row.cells), *([row_note(row)] if noted else [])])
    return markdown_table(rows)
