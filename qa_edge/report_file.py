"""The file that a report of an evaluation is written to: its suffix says which kind."""

from __future__ import annotations

import os
from pathlib import Path

from qa_edge.evaluation_report import EvaluationReport
from qa_edge_runtime.errors import InputError, MissingExtraError
from qa_edge_runtime.files import atomic_write, check_output_file

SUFFIXES = (".html", ".md", ".json")


def check_report_file(path: str | os.PathLike[str]) -> None:
    """Refuse, before any question is asked, a path that no report could be written to.

    :raises InputError: if its suffix is not one of `SUFFIXES`.
    :raises MissingExtraError: if it is a page and Matplotlib, which draws its pictures, is not installed.
    :raises DataError: if it is a folder, or its folder is not there or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"ends with {suffix!r}" if suffix else "has no suffix"
        raise InputError(f"report {path} {found}, expected .html, .md or .json")
    if suffix == ".html":
        from qa_edge.latency_chart import load_matplotlib

        try:
            load_matplotlib()
        except MissingExtraError as error:
            raise MissingExtraError(f"{error}; or name a .md or .json, which have none") from error
    check_output_file(path)


def write_report(path: str | os.PathLike[str], report: EvaluationReport) -> None:
    """Write a report as a page, as Markdown or as JSON, by the suffix.

    :raises InputError: and the others, as `check_report_file`.
    """
    check_report_file(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".html":
        from qa_edge.evaluation_page import evaluation_page

        text = evaluation_page(report)
    else:
        text = report.to_markdown() if suffix == ".md" else report.to_json()
    atomic_write(path, text)
