"""Results of experiments in the report: each with its own picture, and nothing that is not theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from paper_runs import write, write_loop
from tiny_teacher import ran, run

from qa_edge.experiments.report import paper_report
from qa_edge_runtime.errors import DataError

SET = {"documents": 1, "paragraphs": 2, "questions": 3}


def results(name: str, difference: float) -> dict[str, Any]:
    """What an experiment of two variants says, without what the report does not read."""
    score = {"exact_match": {"mean": 25.0}, "f1": {"mean": 35.0}}
    test = {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "p_value": 0.2}
    found = {"exact_match": test, "f1": test, "seeds": [0], "alpha": 0.05, "by_seed": {}}
    return {
        "format_version": 1,
        "experiment": name,
        "question": "Which?",
        "size": "a pass",
        "tests": {"dev": {"on": "dev.json", "total": 100, "of": 100}},
        "runs": {"finished": 2, "planned": 2},
        "baseline": "one",
        "variants": [
            {"name": "one", "said": "one", "scores": {"dev": score}, "difference": {}},
            {"name": "two", "said": "two", "scores": {"dev": score}, "difference": {"dev": found}},
        ],
        "curves": None,
    }


def test_each_experiment_has_its_own_picture(tmp_path: Path) -> None:
    places = ("a/kd", "b/kd", "a-kd", "curves", "figure-7", "wild <i> \\g<1>")
    runs = tmp_path / "runs"
    write_loop(runs / "loop", "random", {0.1: 60.0})
    ran("report", "--runs", runs, "-o", tmp_path / "before")
    for number, place in enumerate(places):
        write(runs / place / "results.json", results("kd", 0.1 * number))
    ran("report", "--runs", runs, "-o", tmp_path / "after")
    text = (tmp_path / "after" / "report.md").read_text(encoding="utf-8")
    for name in ("curves", "figure-7"):
        picture = f"pictures/{name}.png"
        assert (tmp_path / "after" / picture).read_bytes() == (tmp_path / "before" / picture).read_bytes()
    sections = text[text.index("## Experiments") :].split("### ")[1:]
    shown = {re.search(r"\(in (.+)\)", one)[1]: one for one in sections}  # type: ignore[index]
    assert sorted(shown) == sorted(places)
    pictures = set()
    for number, place in enumerate(places):
        assert f"EM {10 * number:+.2f}" in shown[place].replace("EM 0.00", "EM +0.00")
        (name,) = re.findall(r"!\[Differences\]\(([\w/.-]+)\)", shown[place])
        pictures.add((tmp_path / "after" / name).read_bytes())
    assert len(pictures) == len(places)
    page = (tmp_path / "after" / "report.html").read_text(encoding="utf-8")
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)) and page.count("<svg") == 2 + len(places)
    targets = set(re.findall(r'(?:url\(|href=")#([^")]+)', page))
    assert targets <= set(identifiers)


@pytest.mark.parametrize("text", ['{"accuracy": 0.9}', "[1, 2]", "no JSON", '{"format_version": 3, "rows": []}'])
def test_results_of_something_else_are_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    assert paper_report(tmp_path).experiments == ()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("kd/results.json", {"format_version": 1, "experiment": "kd"}),
        ("kd/results.json", {**results("kd", 0.1), "format_version": 2}),
        ("kd/results.json", {**results("kd", 0.1), "variants": [{}]}),
        ("kd/results.json", {**results("kd", 0.1), "runs": {}}),
        ("table1/counts.json", {"dev": {"on": "dev.json"}}),
        ("table1/counts.json", {"dev": {**SET, "on": "dev.json", "questions": "many"}}),
        ("table1/counts.json", [SET]),
        ("table3/peers.json", {"format_version": 1, "rows": [{"length": 384, "kind": "end to end"}]}),
    ],
)
def test_a_damaged_file_of_ours_is_one_sentence(place: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path / "runs" / "kd" / "recipe.json", {"format_version": 1, "kind": "experiment"})
    write(tmp_path / "runs" / place, value)
    found = run("report", "--runs", tmp_path / "runs", "-o", tmp_path / "out")
    assert found.exit_code == 1 and found.stderr.count("\n") == 1 and place in found.stderr
    with pytest.raises(DataError):
        paper_report(tmp_path / "runs")


def test_counts_as_they_are_written(tmp_path: Path) -> None:
    write(tmp_path / "table1" / "counts.json", {"dev": {**SET, "on": "dev.json"}})
    (row,) = (row for row in paper_report(tmp_path).table("1").rows if row.note)
    assert [cell.here for cell in row.cells] == [1, 2, 3] and json.dumps(row.note) == '"counted in dev.json"'
