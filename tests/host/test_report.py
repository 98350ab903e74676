from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from paper_runs import HARD, KD, cell, write, write_loop, write_run
from tiny_teacher import EXAMPLE, ran, run

from qa_edge.experiments.collect import find_runs
from qa_edge.experiments.paper import paper_tables, train_questions, whole_size
from qa_edge.experiments.report import paper_report
from qa_edge.experiments.report_plots import draw_figure_7
from qa_edge_runtime.errors import DataError

PEERS = Path(__file__).parents[2] / "docs" / "benchmarks" / "peers.json"
CELLS = {"1": 12, "2": 10, "3": 14, "4": 55, "5": 55, "6": 12, "7": 18, "8": 18}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed, f1 in enumerate((70.0, 71.0)):
        write_run(folder / f"kd/hard-seed{seed}", f1, train={**HARD, "epochs": 4, "seed": seed}, taught=False)
    # Fewer questions in all: it is not what fills the cell.
    write_run(folder / "tiny/hard-seed0", 30.0, train={**HARD, "epochs": 1}, share=0.02, questions=1700, taught=False)
    small = {"total": 500, "share": 0.25, "questions": 21_000, "others": {"AddSent": 40.0}}
    write_run(folder / "kd/rule-seed0", 73.0, train={**KD, "epochs": 4, "temperature": 2.0}, **small)
    write_run(folder / "kd/offset-seed0", 90.0, train={**KD, "alignment": "offset"})
    # On questions of a loop's cycle, by distill --questions: those that least confidence chose, and random ones.
    for strategy, score in (("least-confidence", 55.0), ("random", 99.0)):
        run_of = folder / f"joint/{strategy}"
        write_run(run_of, score, train={**HARD, "epochs": 3}, taught=False)
        cycle = folder / f"loops/{strategy}/cycle-004"
        write_loop(cycle.parent, strategy, {0.4: 66.0}, pool=1000)
        write(cycle / "metrics.json", {"share": 0.4})
        recipe = json.loads((run_of / "recipe.json").read_text())
        recipe["inputs"] = {"questions": {"path": str(cycle / "train.json"), "sha256": ""}}
        write(run_of / "recipe.json", recipe)
    write_run(folder / "table6/kd-chosen-seed0", 60.0, train=KD, chosen="least-confidence", questions=33_000)
    for seed, lift in enumerate((0.0, 2.0)):
        points = {0.01: 40.0 + lift, 0.1: 60.0 + lift, 0.4: 70.0 + lift}
        write_loop(folder / f"table4/least-confidence-seed{seed}", "least-confidence", points, seed=seed)
    write_loop(folder / "table4/random-seed0", "random", {0.01: 40.0, 0.1: 58.0})
    # What a loop trains in its cycles is no run of its own.
    write(folder / "table4/random-seed0/cycle-000/model/recipe.json", {"format_version": 1, "kind": "teach"})
    return folder


def test_the_papers_numbers_agree_with_its_own_text() -> None:
    """Differences and shares that sections 5.3 to 5.6 work out from the tables."""
    tables = paper_tables()
    two = {row.key: row.values for row in tables["2"].rows}
    assert two["kd-cubic:all"][0] - two["tinybert-4:all"][0] == pytest.approx(1.40, abs=0.02)
    assert two["kd-cubic:all"][1] - two["tinybert-4:all"][1] == pytest.approx(2.50, abs=0.02)
    assert two["kd-cubic:all"][0] - two["distilbert-4:all"][0] == pytest.approx(2.30, abs=0.02)
    exact, f1 = ({row.key: row.values for row in tables[number].rows} for number in ("4", "5"))
    assert exact["0.2"][1] / exact["1"][1] == pytest.approx(0.9383, abs=2e-4)
    assert exact["0.4"][1] / exact["1"][1] == pytest.approx(0.9808, abs=2e-4)
    assert f1["0.2"][1] / f1["1"][1] == pytest.approx(0.9602, abs=2e-4)
    assert f1["0.4"][1] / f1["1"][1] == pytest.approx(0.9904, abs=2e-4)
    assert exact["0.7"][1] - exact["1"][0] == pytest.approx(0.50) and f1["0.7"][1] - f1["1"][0] == pytest.approx(0.26)
    six = {row.key: row.values for row in tables["6"].rows}
    for place, difference in ((0, 4.74), (1, 6.24)):
        gained = six["kd-linear:chosen"][place] - six["base:chosen"][place]
        assert gained == pytest.approx(difference)
    seven = {row.key: row.values for row in tables["7"].rows}
    assert seven["kd-cubic:chosen"][0] / seven["base:all"][0] == pytest.approx(0.984, abs=1e-3)
    # Section 5.1: 107,785 questions on 536 articles, 46 articles and 9,616 questions of which are not published.
    assert train_questions() + (whole_size("dev") or 0) == 98_169
    assert [len(table.rows) * len(table.columns) for table in tables.values()] == [12, 20, 14, 55, 55, 12, 20, 20]


def test_cells_are_filled_by_the_runs_that_are_there(runs: Path) -> None:
    report = paper_report(runs)
    assert cell(report, "2", "QANet (Base)") == (70.5, 80.09)
    assert cell(report, "2", "QANet (Base)", 1) == (60.5, 71.16)
    assert cell(report, "2", "QANet+KD+Cubic (Proposed)") == (None, 83.51)
    (base, kd) = (
        next(row for row in report.table("2").rows if row.name.startswith(n)) for n in ("QANet (", "QANet+KD (")
    )
    assert base.note == "4 passes over 83,000 questions; mean of 2 seeds" and base.cells[0].difference == "-9.59"
    # A part of the set, a budget and a setting other than the paper's are named.
    assert kd.note == (
        "4 passes over 21,000 questions (25 % of the articles of train-v1.1.json); T 2;"
        " scored on 500 questions of dev.json"
    )
    assert [row.cells[0].here for row in report.table("7").rows].count(40.0) == 1
    assert cell(report, "6", "QANet+KD (Proposed) 40%") == (60.0, 78.83)
    assert cell(report, "6", "QANet (Base) 40%") == (55.0, 74.77)
    assert cell(report, "6", "QANet (Base) 100%") == (70.5, 80.09)
    assert cell(report, "6", "BERTLARGE (Teacher) 40%") == (71.0, 89.57)
    assert cell(report, "4", "10 %", 1) == (51.0, 72.04) and cell(report, "5", "10 %", 0) == (58.0, 79.26)
    assert cell(report, "5", "40 %", 0) == (None, 86.51)
    # Students that were trained for longer than others are not put beside them without a word.
    assert "had from 84,000 to 332,000 questions, passes counted" in report.table("2").notes[0]
    assert report.table("8").notes == ()
    assert "pool of 8,000 questions; scored on 2,000 questions" in report.table("5").notes[0]
    assert {table.number: table.filled + table.missing for table in report.tables} == CELLS
    filled = {table.number: table.filled for table in report.tables}
    assert filled == {"1": 0, "2": 4, "3": 0, "4": 5, "5": 5, "6": 8, "7": 2, "8": 0}
    assert report.summary.startswith("24 of the 194 numbers") and "170 are missing" in report.summary
    assert all(cell.quoted for row in report.table("2").rows if row.published for cell in row.cells)


def test_a_run_that_went_on_from_another_counts_what_that_one_saw(runs: Path) -> None:
    write_run(runs / "on", 75.0, train={**HARD, "epochs": 1}, taught=False)
    recipe = json.loads((runs / "on" / "recipe.json").read_text())
    recipe |= {"inputs": {"init": {"path": str(runs / "kd" / "hard-seed0"), "sha256": ""}}, "student": {}}
    del recipe["train"]["others"]  # as runs of before that setting have it
    write(runs / "on" / "recipe.json", recipe)
    (row,) = (row for row in paper_report(runs).table("2").rows if row.name == "QANet (Base)")
    assert row.cells[0].here == 75.0
    assert row.note == ("1 pass over 83,000 questions, after 332,000 questions of the run that it went on from")
    # Hard labels that went on from a student with a teacher, or from one that nobody can look at, are no base.
    for before in (runs / "kd" / "rule-seed0", runs / "gone"):
        write(runs / "on" / "recipe.json", {**recipe, "inputs": {"init": {"path": str(before), "sha256": ""}}})
        assert cell(paper_report(runs), "2", "QANet (Base)") == (70.5, 80.09)
    write(runs / "on" / "recipe.json", {**recipe, "train": None})
    with pytest.raises(DataError, match="is not a run that this version can read"):
        paper_report(runs)


def test_figure_7_says_whose_bars_are_whose_when_its_first_row_was_not_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_run(tmp_path / "kd/rule-seed0", 73.0, train={**KD, "epochs": 4})
    legend = draw_figure_7(paper_report(tmp_path)).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["the paper", "these runs"]


def test_a_loop_whose_learner_is_of_another_version_is_named(tmp_path: Path) -> None:
    learner = {"kind": "teacher", "encoder": "minilm", "settings": {}}  # the name alone
    write_loop(tmp_path / "random-0", "random", {0.01: 40.0, 0.1: 58.0}, learner=learner)
    with pytest.raises(DataError, match="random-0 is not a run that this version can read"):
        paper_report(tmp_path)


def test_links_to_runs_are_followed_and_none_counts_twice(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "gathered").mkdir()
    for name in ("first", "again"):
        (tmp_path / "gathered" / name).symlink_to(runs / "kd", target_is_directory=True)
    (tmp_path / "gathered" / "round").symlink_to(tmp_path / "gathered", target_is_directory=True)
    found, _ = find_runs(tmp_path / "gathered")
    assert found == find_runs(runs / "kd")[0] and found


def test_a_folder_without_runs_is_all_missing(tmp_path: Path) -> None:
    report = paper_report(tmp_path)
    assert sum(table.filled for table in report.tables) == 0
    assert sum(table.missing for table in report.tables) == sum(CELLS.values())
    result = run("report", "--runs", tmp_path / "nothing", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "is no folder" in result.stderr


def test_times_are_ratios_to_bert_base(tmp_path: Path) -> None:
    report = paper_report(tmp_path, peers=PEERS)
    times = {
        (row["name"], row["precision"], row["detail"]): row
        for row in json.loads(PEERS.read_text())["rows"]
        if row["length"] == 384 and row["kind"] == "end to end"
    }
    base = times["BERT-base", "fp32", "raw"]["median_ms"]
    here, paper = cell(report, "3", "TinyBERT4", 1)
    assert paper == 9.4 and here == pytest.approx(base / times["TinyBERT 4", "fp32", "raw"]["median_ms"])
    own = min(
        row["median_ms"] for (name, precision, _), row in times.items() if name[:5] == "paper" and precision == "fp32"
    )
    assert cell(report, "3", "QANet+KD (Proposed)", 1)[0] == pytest.approx(base / own)
    assert cell(report, "3", "QANet (Base)")[0] == pytest.approx(1.176067)
    assert "random weights" in report.table("3").notes[0]


class Links(HTMLParser):
    """What a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "img"):
            self.loaded.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_holds_all_that_it_shows(runs: Path, tmp_path: Path) -> None:
    counted = ran(
        *("experiment", "table1", "--runs", runs, "--squad", EXAMPLE / "train.json", "--dev", EXAMPLE / "dev.json")
    )
    assert "299" in counted
    ran("experiment", "table3", "--runs", runs, "--peers", PEERS)
    shown = ran("report", "--runs", runs, "-o", tmp_path / "report")
    assert "44 of the 194 numbers" in shown
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert all(one.startswith("#") for one in links.loaded) and page.count("<svg") == 2
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    head = text[: text.index("## Table 1")]
    assert "44 of the 194 numbers" in head and "150 are missing" in head
    assert "| **70.50** / 80.09 (-9.59) | **60.50** / 71.16 (-10.66) |" in text
    assert "| – / 83.51 | – / 75.20 |" in text and "88.34, published" in text
    assert str(tmp_path) not in page + text
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
