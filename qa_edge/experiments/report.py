"""The paper's tables with what the runs of a folder give beside each number: filled, missing and quoted cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_edge.active.curve import Loop, mean_points
from qa_edge.experiments.collect import Filled, Measured, best, best_loops, find_runs, walk
from qa_edge.experiments.counted import COUNTS, PEERS, read_counts, read_peers
from qa_edge.experiments.deviations import loop_notes
from qa_edge.experiments.lineage import NEAR
from qa_edge.experiments.paper import PaperRow, PaperTable, figure_7, paper_tables
from qa_edge.experiments.results import RESULTS, read_results
from qa_edge.experiments.results_page import conclusion, curve_conclusion
from qa_edge_runtime.errors import DataError

PEER_LENGTH, PEER_KIND, PEER_PRECISION = 384, "end to end", "fp32"
UNEVEN = 1.05
"""Students whose training differs by more than this factor are not put beside each other without a word."""
_STUDENTS = ("paper", "edge")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of the paper, and what was measured here.

    :ivar here: None where nothing was run.
    :ivar quoted: the paper's number is another model's published score, which nothing here is expected to repeat.
    """

    paper: float
    here: float | None = None
    quoted: bool = False
    decimals: int = 2

    @property
    def missing(self) -> bool:
        """Whether a run could fill it, and none does."""
        return self.here is None and not self.quoted

    @property
    def difference(self) -> str:
        """Here less the paper's, signed; empty without a number here."""
        if self.here is None:
            return ""
        shown = f"{self.here - self.paper:+,.{self.decimals}f}"
        return shown if float(shown.replace(",", "")) else shown[1:]

    def shown(self, value: float) -> str:
        """A number of this cell as text."""
        return f"{value:,.{self.decimals}f}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table; `note` says what was run for it."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""
    published: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """One of the paper's tables.

    :ivar notes: what holds for all its numbers here.
    """

    number: str
    title: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def filled(self) -> int:
        """Cells with a number of ours."""
        return sum(cell.here is not None for row in self.rows for cell in row.cells)

    @property
    def missing(self) -> int:
        """Cells that a run could fill and none does."""
        return sum(cell.missing for row in self.rows for cell in row.cells)


@dataclass(frozen=True, kw_only=True)
class PaperReport:
    """All tables, and the results of the experiments.

    :ivar source: name of the folder of runs.
    :ivar experiments: what each `results.json` holds, with its `conclusion` and its `place` below the folder.
    """

    source: str
    tables: tuple[Table, ...]
    loops: tuple[Loop, ...]
    experiments: tuple[Mapping[str, Any], ...]

    @property
    def summary(self) -> str:
        """How much of it is there, in a sentence."""
        filled, missing = sum(one.filled for one in self.tables), sum(one.missing for one in self.tables)
        return (
            f"{filled} of the {filled + missing} numbers of the paper's tables that this toolkit can measure are"
            f" measured here; {missing} are missing."
        )

    @property
    def figure_rows(self) -> list[Row]:
        """The rows that Figure 7 draws."""
        figure = figure_7()
        keys = [row.key for row in paper_tables()[figure.table].rows]
        return [self.table(figure.table).rows[keys.index(key)] for key in figure.rows]

    def table(self, number: str) -> Table:
        """A table by its number."""
        return next(table for table in self.tables if table.number == number)


def paper_report(runs: str | Path, *, peers: str | Path | None = None) -> PaperReport:
    """Gather the report of a folder of runs.

    :param peers: JSON of benchmarks/peers.py; what `experiment table3` kept if not given.
    :raises DataError: if the folder or a file in it cannot be read.
    """
    folder = Path(runs)
    measured, loops = find_runs(folder)
    used = best_loops(loops)
    counts = read_counts(folder / COUNTS) if (folder / COUNTS).exists() else {}
    path = Path(peers) if peers is not None else folder / PEERS
    times = read_peers(path) if peers is not None or path.exists() else None
    tables = []
    for number, paper in paper_tables().items():
        if number == "1":
            tables.append(_counts(paper, counts))
        elif number == "3":
            tables.append(_speed(paper, times))
        elif number in ("4", "5"):
            tables.append(_curves(paper, used, [loop for loop in loops if loop not in used]))
        else:
            tables.append(_models(paper, measured))
    experiments = []
    for path, files in walk(folder):
        results = read_results(path) if RESULTS in files else None
        if results is not None:
            experiments.append({**results, **_said(path, results), "place": path.relative_to(folder).as_posix()})
    return PaperReport(
        source=folder.resolve().name, tables=tuple(tables), loops=tuple(used), experiments=tuple(experiments)
    )


def _said(path: Path, results: Mapping[str, Any]) -> dict[str, str]:
    """An experiment's conclusion.

    :raises DataError: if its numbers are not there.
    """
    try:
        said = [conclusion(results)] if results["variants"] else []
        said += [curve_conclusion(results)] if results["curves"] else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path / RESULTS} is damaged ({error!r}): run the experiment's command again") from error
    return {"conclusion": " ".join(said)}


def _table(paper: PaperTable, rows: Sequence[Row], notes: Sequence[str] = ()) -> Table:
    return Table(
        number=paper.number,
        title=paper.title,
        caption=paper.caption,
        headings=paper.headings,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _counts(paper: PaperTable, counts: Mapping[str, Any]) -> Table:
    rows = []
    for row in paper.rows:
        found = counts.get(row.key)
        cells = [
            Cell(paper=value, here=None if found is None else found[column], decimals=0)
            for column, value in zip(paper.columns, row.values, strict=True)
        ]
        rows.append(Row(name=row.name, cells=tuple(cells), note="" if found is None else f"counted in {found['on']}"))
    return _table(paper, rows)


def _models(paper: PaperTable, measured: Sequence[Measured]) -> Table:
    """Tables 2, 6, 7 and 8: F1 and EM of a model."""
    found = {row.key: best(measured, row.key, paper.data) for row in paper.rows}
    students = [one.cost for key, one in found.items() if one and one.cost and not key.startswith("teacher")]
    low, high = min(students, default=0), max(students, default=0)
    notes = []
    if high > UNEVEN * low:
        notes.append(
            f"Training differs: the students here had from {low:,.0f} to {high:,.0f} questions, passes counted. What"
            " two rows differ in is that too."
        )
    return _table(paper, [_model(row, found[row.key]) for row in paper.rows], notes)


def _model(row: PaperRow, found: Filled | None) -> Row:
    quoted = row.published is not None
    here = (None, None) if found is None or quoted else (found.f1, found.exact_match)
    cells = tuple(Cell(paper=value, here=mine, quoted=quoted) for value, mine in zip(row.values, here, strict=True))
    note = ""
    if found is not None and not quoted:
        seeds = [f"mean of {found.seeds} seeds"] if found.seeds > 1 else []
        note = "; ".join([*found.notes, *seeds])
    return Row(name=row.name, cells=cells, note=note, published=row.published)


def _speed(paper: PaperTable, peers: Mapping[str, Any] | None) -> Table:
    """Table 3, from times of single questions; those of peers were taken with random weights."""
    if peers is None:
        return _table(
            paper, [Row(name=r.name, cells=tuple(Cell(paper=v, decimals=1) for v in r.values)) for r in paper.rows]
        )
    times = [row for row in peers["rows"] if (row["length"], row["kind"]) == (PEER_LENGTH, PEER_KIND)]
    base = _fastest(times, "BERT-base", PEER_PRECISION)
    rows = []
    for row in paper.rows:
        found = _student(times, PEER_PRECISION) if row.key == "student" else _fastest(times, row.key, PEER_PRECISION)
        if found is None or base is None:
            rows.append(Row(name=row.name, cells=tuple(Cell(paper=value, decimals=1) for value in row.values)))
            continue
        here = (found["parameters"] / 1e6, base["median_ms"] / found["median_ms"])
        cells = tuple(Cell(paper=v, here=h, decimals=1) for v, h in zip(row.values, here, strict=True))
        rows.append(
            Row(name=row.name, cells=cells, note=f"{found['name']}, {found['detail']}: {found['median_ms']:.1f} ms")
        )
    machine = peers.get("machine", {}).get("cpu", "an unnamed machine")
    notes = [
        f"Here: one question at a time, {PEER_KIND}, {PEER_LENGTH} word pieces, {PEER_PRECISION},"
        f" {peers.get('threads', 1)} thread on {machine}; the paper counts batches a second. Networks of peers have"
        " random weights: their times are measured, their answers are not.",
    ]
    quantised = _fastest(times, "edge", "int8")
    if quantised is not None and base is not None:
        notes.append(
            f"The student that ships (edge, int8, {quantised['detail']}) takes {quantised['median_ms']:.1f} ms:"
            f" {base['median_ms'] / quantised['median_ms']:.1f} times BERT-base's speed."
        )
    return _table(paper, rows, notes)


def _fastest(times: Sequence[Mapping[str, Any]], name: str, precision: str) -> Mapping[str, Any] | None:
    """The fastest engine or export of a model; our presets' names may have a remark behind them."""
    found = [
        row
        for row in times
        if row["precision"] == precision and (row["name"] == name or row["name"].startswith(f"{name} ("))
    ]
    return min(found, key=lambda row: row["median_ms"], default=None)


def _student(times: Sequence[Mapping[str, Any]], precision: str) -> Mapping[str, Any] | None:
    return next((found for name in _STUDENTS if (found := _fastest(times, name, precision)) is not None), None)


def _curves(paper: PaperTable, loops: Sequence[Loop], others: Sequence[Loop]) -> Table:
    """Tables 4 and 5: a score by strategy and share of the labels.

    :param others: loops that fill no cell, of which a note speaks.
    """
    assert paper.metric is not None
    rows, fewer = [], []
    seeds = {strategy: sum(loop.strategy == strategy for loop in loops) for strategy in paper.columns}
    for row in paper.rows:
        cells = []
        for strategy, heading, value in zip(paper.columns, paper.headings, row.values, strict=True):
            points = mean_points([loop for loop in loops if loop.strategy == strategy], paper.metric)
            found = min(points, key=lambda point: abs(point.share - float(row.key)), default=None)
            near = found is not None and abs(found.share - float(row.key)) < NEAR
            cells.append(Cell(paper=value, here=found.mean if found is not None and near else None))
            if found is not None and near and found.seeds < seeds[strategy]:
                fewer.append(f"{heading} at {100 * float(row.key):g} % {found.seeds}")
        rows.append(Row(name=f"{100 * float(row.key):g} %", cells=tuple(cells)))
    notes = []
    if loops:
        counts = zip(paper.headings, seeds.values(), strict=True)
        said = ", ".join(f"{name} {count}" for name, count in counts if count)
        only = f"; of fewer, and not to be compared with the others: {', '.join(fewer)}" if fewer else ""
        notes.append(f"Here: {'; '.join(loop_notes(loops[0]))}. Loops (seeds): {said}{only}.")
    if others:
        sorts = dict.fromkeys(
            f"{'; '.join(loop_notes(loop)[:2])}, to {100 * max(loop.points):.4g} %" for loop in others
        )
        notes.append(f"Left out, not being comparable: {'. '.join(sorts)}.")
    return _table(paper, rows, notes)
