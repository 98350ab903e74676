"""Two sides in turn: who is asked when, what the ratio is, what is refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import CASES, core_graph, graph_specs, write_tiny_bundle

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.comparison import Contender, compare_latency
from qa_edge_runtime.comparison_report import ComparisonReport, read_report, side_names
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.latency_table import format_report
from qa_edge_runtime.onnx_engine import OnnxEngine

PAIRS = [(case["question"], case["context"]) for case in CASES]


@pytest.fixture(scope="module")
def two_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in two precisions, whose answers are the same."""
    path = tmp_path_factory.mktemp("two") / "two.qab"
    write_tiny_bundle(path, files={"core.int8.onnx": core_graph(scale=2.0)}, graphs=graph_specs(onnx=["fp32", "int8"]))
    return path


@pytest.fixture(scope="module")
def report(two_path: Path) -> ComparisonReport:
    sides = [Contender(path=two_path, precision=precision) for precision in ("fp32", "int8")]
    return compare_latency(*sides, PAIRS, repeat=50, source="cases")


def test_both_sides_are_timed_on_the_same_queries(report: ComparisonReport) -> None:
    assert (report.queries, report.first.precision, report.second.precision) == (100, "fp32", "int8")
    for side in (report.first, report.second):
        np.testing.assert_array_equal(side.samples.question, [0, 1] * 50)
        assert side.engine == "onnxruntime" and side.bundle_bytes > 0
    ratios = report.second.samples.total_ms / report.first.samples.total_ms
    assert report.ratio == pytest.approx(np.median(ratios))
    assert report.ratio_interval[0] <= report.ratio <= report.ratio_interval[1]
    assert len(report.passes_ratio) == 50
    assert [(entry.stage, entry.point) for entry in report.ratios] == [
        ("tokenise", 50),
        ("look_up", 50),
        ("infer", 50),
        ("decode", 50),
        ("total", 50),
        ("total", 90),
        ("total", 99),
    ]
    assert report.same_answers == 1.0


def test_who_is_first_changes_and_a_slower_side_is_seen(two_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    answer = Answerer.answer

    def remember(self: Answerer, question: str, context: str, **settings: Any) -> Any:
        order.append(self.precision)
        return answer(self, question, context, **settings)

    monkeypatch.setattr(Answerer, "answer", remember)
    sides = [Contender(path=two_path, precision=precision) for precision in ("fp32", "int8")]
    seen: list[tuple[int, int]] = []
    compare_latency(
        *sides, PAIRS, repeat=2, minimum=1, warmup=0, progress=lambda done, whole: seen.append((done, whole))
    )
    assert order == ["fp32", "int8", "int8", "fp32", "int8", "fp32", "fp32", "int8"]
    assert seen == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_a_side_that_takes_longer_by_a_known_time(two_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 core graph sleeps 3 ms before it runs."""
    make, run, slow = OnnxEngine.__init__, OnnxEngine.run, []

    def remember(self: OnnxEngine, model: Any, spec: Any, **settings: Any) -> None:
        make(self, model, spec, **settings)
        if (spec.role, spec.precision) == ("core", "int8"):
            slow.append(self)

    def run_slowly(self: OnnxEngine, inputs: Any) -> Any:
        if any(self is engine for engine in slow):
            time.sleep(0.003)
        return run(self, inputs)

    monkeypatch.setattr(OnnxEngine, "__init__", remember)
    monkeypatch.setattr(OnnxEngine, "run", run_slowly)
    sides = [Contender(path=two_path, precision=precision) for precision in ("int8", "fp32")]
    report = compare_latency(*sides, PAIRS, repeat=10, minimum=1)
    assert np.median(report.first.samples.infer_ms - report.second.samples.infer_ms) > 2.5
    assert report.ratio < 0.7
    # Nobody computed while it slept.
    assert report.processor_ratio is not None and report.processor_ratio > report.ratio


def test_a_comparison_reads_as_a_table_and_comes_back_from_json(report: ComparisonReport, tmp_path: Path) -> None:
    table = format_report(report)
    for part in ("A  ", "B  ", "total p99", "B / A", "times as fast as", "the same answer to 100.0%", "infer p50"):
        assert part in table
    assert max(map(len, table.splitlines())) < 220
    path = tmp_path / "comparison.json"
    path.write_text(report.to_json())
    found = read_report(path)
    assert found.to_json() == report.to_json() and format_report(found) == table
    content = json.loads(report.to_json())
    assert (content["format_version"], content["kind"]) == (1, "comparison")
    for change, part in (
        ({"ratio": 0.0}, "ratio is not above 0"),
        ({"ratios": [{"stage": "dance", "point": 50, "ratio": 1, "interval": [1, 1]}]}, "of 'dance'"),
        ({"passes_ratio": []}, "passes_ratio is empty"),
        ({"second": None}, "second is missing"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(DataError, match=part):
            read_report(path)


def test_the_faster_side_is_named(report: ComparisonReport) -> None:
    half = replace(report, ratio=0.5, ratio_interval=(0.4, 0.625))
    assert "int8 is 2.00 (1.60-2.50) times as fast as fp32" in format_report(half)
    twice = replace(report, ratio=2.0, ratio_interval=(1.9, 2.1))
    assert "fp32 is 2.00 (1.90-2.10) times as fast as int8" in format_report(twice)


def test_sides_are_named_by_what_differs(report: ComparisonReport) -> None:
    first = report.first
    names = [
        (replace(first, bundle="other"), ("two", "other")),
        (replace(first, file="copy.qab"), ("two.qab", "copy.qab")),
        (replace(first, engine="ai-edge-litert", precision="int8"), ("fp32 onnxruntime", "int8 ai-edge-litert")),
        (replace(first, threads=2), ("1 thread", "2 threads")),
        (first, ("two (first)", "two (second)")),
    ]
    for second, expected in names:
        assert side_names(replace(report, second=second)) == expected


def test_one_bundle_twice_is_refused(two_path: Path) -> None:
    with pytest.raises(InputError, match=r"both sides are .* in int8 in onnxruntime with 1 thread: name another"):
        compare_latency(Contender(path=two_path), Contender(path=two_path, precision="int8"), PAIRS, repeat=50)
    with pytest.raises(InputError, match="98 queries, at least 100 needed"):
        compare_latency(Contender(path=two_path), Contender(path=two_path, precision="fp32"), PAIRS, repeat=49)
