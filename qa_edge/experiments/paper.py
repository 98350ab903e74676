"""The paper's tables and figure, as printed: `paper_tables.json` is the one place that holds its numbers."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

FILE = "paper_tables.json"
_CITATION = re.compile(r" \([^()]* et al\., \d{4}\)")
_NUMBER = re.compile(r"[\d,]+(?:\.\d+)?×?")


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a table.

    :ivar key: what fills it; see `qa_edge.experiments.report`.
    :ivar name: as printed, without the reference behind it.
    :ivar values: one a column.
    :ivar published: whose published score it is, where the paper quotes one.
    """

    key: str
    name: str
    values: tuple[float, ...]
    published: str | None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper.

    :ivar number: as printed.
    :ivar title: in a few words, and `caption` the paper's own.
    :ivar columns: names of the columns of numbers; `headings` as printed, where those are others.
    :ivar metric: that its numbers are, where all are of one.
    :ivar data: set that its models are scored on, where that is not the development set.
    """

    number: str
    title: str
    caption: str
    columns: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    metric: str | None
    data: str

    def row(self, key: str) -> PaperRow:
        """The first row of a key."""
        return next(row for row in self.rows if row.key == key)


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """Figure 7, whose numbers are those of two rows of a table."""

    title: str
    caption: str
    table: str
    rows: tuple[str, ...]


@functools.cache
def paper_tables() -> dict[str, PaperTable]:
    """All tables by number."""
    return {number: _table(number, found) for number, found in _read()["tables"].items()}


@functools.cache
def figure_7() -> PaperFigure:
    """The figure."""
    found = _read()["figure_7"]
    return PaperFigure(**{**found, "rows": tuple(found["rows"])})


def train_questions() -> int:
    """Questions of SQuAD v1.1's training set (Table 1)."""
    return int(paper_tables()["1"].row("train").values[-1])


def whole_size(data: str) -> int | None:
    """Questions of a test set of the paper; None of another set."""
    return next((int(row.values[-1]) for row in paper_tables()["1"].rows if row.key == data), None)


def _read() -> dict[str, Any]:
    return dict(json.loads(resources.files("qa_edge.experiments").joinpath(FILE).read_text(encoding="utf-8")))


def _table(number: str, found: dict[str, Any]) -> PaperTable:
    columns = tuple(found["columns"])
    return PaperTable(
        number=number,
        title=found["title"],
        caption=found["caption"],
        columns=columns,
        headings=tuple(found.get("headings", columns)),
        rows=tuple(_row(row, len(columns)) for row in found["rows"]),
        metric=found.get("metric"),
        data=found.get("data", "dev"),
    )


def _row(found: dict[str, Any], columns: int) -> PaperRow:
    """A printed line: a name, then as many numbers as there are columns."""
    words = found["line"].split()
    numbers = words[-columns:]
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        raise ValueError(f"line {found['line']!r} does not end in {columns} numbers")
    return PaperRow(
        key=found["key"],
        name=_CITATION.sub("", " ".join(words[:-columns])),
        values=tuple(float(number.rstrip("×").replace(",", "")) for number in numbers),
        published=found.get("published"),
    )
