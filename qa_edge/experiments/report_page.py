"""The report of the paper's tables as one HTML page with its pictures inside; it loads nothing from elsewhere."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qa_edge.experiments.report import Cell, PaperReport, Table
from qa_edge.experiments.report_plots import picture_key, report_figures
from qa_edge.experiments.report_text import (
    READING,
    TITLE,
    experiment_said,
    experiment_title,
    picture_notes,
    pictures_of,
    report_text,
    row_note,
)
from qa_edge.html_page import html_document, inline_svg
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write

PAGE, TEXT, PICTURES = "report.html", "report.md", "pictures"
_STYLE = """\
body { max-width: 980px }
th, td { padding: 0.25em 0.8em; vertical-align: top }
tr { break-inside: avoid }
@page { size: A4 landscape; margin: 12mm }
td { overflow-wrap: normal } td:first-child { white-space: nowrap } .wide { overflow-x: auto }
.note { text-align: left; color: #444b55; font-size: 0.9em } td.note, th.note { min-width: 14em }
td b { color: #c2410c } td small { color: #444b55; white-space: nowrap } td.missing, td.quoted { color: #6b7280 }
"""
ABOUT = (
    "Scores are those of SQuAD v1.1's official script, in per cent. Development data were used for these numbers alone,"
    " never for a choice. Paper: Boreshban, Mirbostani, Ghassem-Sani, Mirroshandel, Amiriparian, Improving Question"
    " Answering Performance Using Knowledge Distillation and Active Learning."
)
_EMPHASIS = re.compile(r"\*\*(.+?)\*\*")


def write_report(report: PaperReport, folder: str | Path) -> tuple[Path, Path]:
    """Write `report.md` with its pictures, and `report.html`, which holds its own; returns both.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises DataError: if the folder cannot be written.
    """
    target = Path(folder)
    figures = report_figures(report)
    pictures = target / PICTURES
    try:
        pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {pictures}: {error.strerror or error}; name another folder") from error
    names = {}
    for key, figure in figures.items():
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=150)
        atomic_write(pictures / f"{key}.png", stream.getvalue())
        names[key] = f"{PICTURES}/{key}.png"
    atomic_write(target / TEXT, report_text(report, names))
    atomic_write(target / PAGE, report_page(report, figures))
    return target / TEXT, target / PAGE


def report_page(report: PaperReport, figures: Mapping[str, Any]) -> str:
    """The page as HTML.

    :param figures: as `report_figures` gave them.
    """
    summary = f"<p><b>{html.escape(report.summary)}</b> Runs: {html.escape(report.source)}.</p>"
    parts = [f"<h1>{TITLE}</h1>", summary, _overview(report), f'<p class="rule">{_inline(READING)}</p>']
    for table in report.tables:
        parts += [f"<h2>Table {table.number}: {html.escape(table.title)}</h2>"]
        parts += [f'<p class="rule">{html.escape(table.caption)}</p>', _table(table)]
        parts += [f'<p class="note">{html.escape(note)}</p>' for note in table.notes]
        for key, title in pictures_of(table.number):
            if key in figures:
                parts += [f"<h3>{title}</h3>", inline_svg(figures[key], key)]
                parts += [f'<p class="rule">{html.escape(note)}</p>' for note in picture_notes(report, key)]
    if report.experiments:
        parts.append("<h2>Experiments</h2>")
    for found in report.experiments:
        parts.append(f"<h3>{html.escape(experiment_title(found))}</h3>")
        parts.append(f"<p>{_inline(experiment_said(found))}</p>")
        key = picture_key(found)
        if key in figures:
            parts.append(inline_svg(figures[key], key))
    return html_document(TITLE, parts, ABOUT, style=_STYLE)


def _overview(report: PaperReport) -> str:
    rows = "".join(
        f"<tr><td>Table {table.number}: {html.escape(table.title)}</td><td>{table.filled}</td>"
        f"<td>{table.missing}</td></tr>"
        for table in report.tables
    )
    return f"<table><tr><th></th><th>measured here</th><th>missing</th></tr>{rows}</table>"


def _table(table: Table) -> str:
    noted = any(row_note(row) for row in table.rows)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *table.headings))
    lines = [f"<tr>{head}{'<th class=note>here</th>' if noted else ''}</tr>"]
    for row in table.rows:
        cells = "".join(_cell(cell) for cell in row.cells)
        note = f'<td class="note">{html.escape(row_note(row))}</td>' if noted else ""
        lines.append(f"<tr><td>{html.escape(row.name)}</td>{cells}{note}</tr>")
    return "\n".join(['<div class="wide"><table>', *lines, "</table></div>"])


def _cell(cell: Cell) -> str:
    paper = cell.shown(cell.paper)
    if cell.quoted:
        return f'<td class="quoted">{paper}<br><small>published</small></td>'
    if cell.here is None:
        return f'<td class="missing">–<br><small>paper {paper}</small></td>'
    return f"<td><b>{cell.shown(cell.here)}</b><br><small>paper {paper} ({cell.difference})</small></td>"


def _inline(text: str) -> str:
    """Markdown's bold and italics as HTML."""
    bold = _EMPHASIS.sub(r"<b>\1</b>", html.escape(text))
    return re.sub(r"\*(.+?)\*", r"<i>\1</i>", bold)
