"""`qa-edge bench`: charts of reports, comparison, what is refused before anything is measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_teacher import Workshop, ran, run

from qa_edge.latency_chart import draw_report
from qa_edge_runtime.comparison import Contender, compare_latency
from qa_edge_runtime.comparison_report import ComparisonReport
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.latency import measure_latency
from qa_edge_runtime.latency_report import LatencyReport

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "The main switch is behind the grey panel. The panel is in the hall, next to the stairs. "
PAIRS = [("Where is the switch?", TEXT * (1 + number)) for number in range(5)]


@pytest.fixture(scope="module")
def report(shop: Workshop) -> LatencyReport:
    return measure_latency(shop.bundle, PAIRS, repeat=2, minimum=4, paced_ms=0.1, cold_starts=0)


@pytest.fixture(scope="module")
def comparison(shop: Workshop) -> ComparisonReport:
    return compare_latency(Contender(path=shop.bundle), Contender(path=shop.bundle, threads=2), PAIRS, minimum=1)


def test_charts_are_what_their_suffix_says(report: LatencyReport, comparison: ComparisonReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, found in (("report", report), ("comparison", comparison)):
        draw_report(found, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        draw_report(found, tmp_path / f"{name}.SVG")
        assert "<svg" in (tmp_path / f"{name}.SVG").read_text()
    with pytest.raises(InputError, match=r"ends with '.pdf', expected .png or .svg"):
        draw_report(report, tmp_path / "report.pdf")


def test_charts_of_odd_reports(report: LatencyReport, tmp_path: Path) -> None:
    """A name that looks like a formula, many warnings, no paced queries, texts of every length."""
    pytest.importorskip("matplotlib")
    tokens = report.samples.context_tokens.copy()
    tokens[0], tokens[1] = 1, 100_000
    odd = replace(
        report,
        bundle="_a$b$c",
        warnings=("somebody else had the machine",) * 12,
        paced=None,
        samples=replace(report.samples, context_tokens=tokens),
    )
    draw_report(odd, tmp_path / "odd.svg")
    assert (tmp_path / "odd.svg").stat().st_size > 1000


def test_a_report_of_a_device_is_drawn_on_the_host(
    report: LatencyReport, tmp_path: Path, comparison: ComparisonReport
) -> None:
    pytest.importorskip("matplotlib")
    for found in (report, comparison):
        (tmp_path / "report.json").write_text(found.to_json())
        (tmp_path / "chart.svg").unlink(missing_ok=True)
        table = ran("bench", "--from", tmp_path / "report.json", "--chart", tmp_path / "chart.svg")
        assert "tokenise" in table and (tmp_path / "chart.svg").exists()
    assert json.loads(ran("bench", "--from", tmp_path / "report.json", "--json")) == json.loads(comparison.to_json())


def test_a_damaged_report_is_one_sentence(report: LatencyReport, tmp_path: Path) -> None:
    path, content = tmp_path / "report.json", json.loads(report.to_json())
    path.write_text(json.dumps({**content, "notes": ["", "a note"]}))
    assert "A note." in ran("bench", "--from", path)
    path.write_text(json.dumps({**content, "machine": {**content["machine"], "mhz": float("nan")}}))
    for more in ((), ("--json",)):
        result = run("bench", "--from", path, *more)
        assert result.exit_code == 1 and "machine.mhz is nan, expected a number" in result.stderr


def test_what_is_measured_or_shown_is_never_written_over(shop: Workshop, report: LatencyReport, tmp_path: Path) -> None:
    single, shown = tmp_path / "first.qab.zip", tmp_path / "report.json"
    ran("pack", shop.bundle, "-o", single)
    shown.write_text(report.to_json())
    quick = ("--squad", shop.dev, "--repeat", "9", "--cold-starts", "0", "--paced", "0")
    for arguments in ((single, *quick, "-o", single), (shop.bundle, *quick, "-o", shop.bundle / "cases.json")):
        result = run("bench", *arguments)
        assert result.exit_code == 1 and "which is never changed" in result.stderr
    assert "first" in ran("info", single) and "first" in ran("info", shop.bundle)


def test_measured_written_and_drawn_in_one_go(shop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    quick = ("--limit", "10", "--repeat", "10", "--paced", "0", "--cold-starts", "0")
    written, chart = tmp_path / "report.json", tmp_path / "chart.png"
    ran("bench", shop.bundle, "--squad", shop.dev, *quick, "-o", written, "--chart", chart)
    assert json.loads(written.read_text())["queries"] >= 100 and chart.stat().st_size > 10_000
    compared = ran("bench", shop.bundle, "--squad", shop.dev, *quick[:4], "--against-threads", "2", "--json")
    assert json.loads(compared)["kind"] == "comparison"


WRONG = [
    (2, "bench BUNDLE --from report.json", "either a bundle to measure, or --from"),
    (2, "bench --from report.json --repeat 5 --squad DEV", "leave --squad, --repeat out"),
    (2, "bench BUNDLE --paced -1", "--paced"),
    (2, "bench BUNDLE --paced nan", "nan is not a finite number"),
    (2, "bench BUNDLE BUNDLE --cold-starts 3", "leave --paced and --cold-starts out"),
    (2, "bench BUNDLE --articles", "--articles needs --squad"),
    (1, "bench BUNDLE BUNDLE", "both sides are"),
    (1, "bench BUNDLE missing", "does not exist"),
    (1, "bench BUNDLE --against-engine tflite", "has no graph for tflite"),
    (1, "bench BUNDLE --repeat 1 --limit 1", "make 1 queries, at least 100 needed"),
    (2, "bench BUNDLE --chart chart.pdf", "ends with '.pdf', expected .png or .svg"),
    (2, "bench BUNDLE --chart chart", "has no suffix, expected .png or .svg"),
    (1, "bench BUNDLE --chart missing/chart.png", "is not a folder; make it"),
    (1, "bench BUNDLE -o missing/report.json", "is not a folder; make it"),
    (1, "bench BUNDLE -o .", "it is a folder; name a file"),
    (1, "bench --from missing.json", "does not exist"),
    (1, "bench --from DEV", "is not a report; expected the JSON that bench writes"),
]


@pytest.mark.parametrize(("code", "line", "sentence"), WRONG, ids=[line for _, line, _ in WRONG])
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    code: int, line: str, sentence: str, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"BUNDLE": shop.bundle, "DEV": shop.dev}
    result = run(*(places.get(word, word) for word in line.split()))
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named_before_anything_is_measured(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    result = run("bench", shop.bundle, "--chart", tmp_path / "chart.png")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith('charts need Matplotlib: pip install "qa-edge[chart]"')
