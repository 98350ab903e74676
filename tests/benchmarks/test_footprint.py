"""The report on the runtime's footprint: what it makes of samples, and what it measures here, in this environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "runtime")]

from tiny_bundle import write_tiny_bundle  # noqa: E402

import footprint  # noqa: E402
from qa_edge_runtime.errors import DataError  # noqa: E402

STEPS = ("started", "numpy", "import", "load", "first_answer", "more_answers")


def process(base: float, peak: float) -> dict[str, dict[str, float]]:
    return {step: {"wall_ms": base, "cpu_ms": base / 2, "peak_mb": peak} for step in STEPS}


def found(**changes: Any) -> dict[str, Any]:
    row = {
        "extra": "onnx",
        "bundle": "edge.qab",
        "import_ms": [40.0, 70.0, 50.0],
        "processes": [process(100.0, 80.0), process(900.0, 101.0), process(200.0, 90.0)],
        "engine": ["onnxruntime", "1.32.0"],
        "precision": "int8",
        "words": 71317,
        "table": "int4",
    }
    return {
        "date": "2026-01-02",
        "command": "python benchmarks/footprint.py edge.qab",
        "wheel": {"name": "qa_edge_runtime.whl", "size_bytes": 123_456},
        "installed": {"onnx": {"numpy": ("2.4.6", 50_000_000), "onnxruntime": ("1.32.0", 70_000_000)}, "old": None},
        "machine": {"cpu": "a processor", "cores": 2, "load_1_minute": 0.1, "python": "3.11.7"},
        "load_1_minute_after": 0.9,
        "rows": [row | changes],
    }


def test_medians_of_times_and_most_of_memory() -> None:
    figures = footprint.summarise(found()["rows"][0])
    assert figures == {
        "import_ms": 50.0,
        "import_cpu_ms": 100.0,
        "answer_ms": 400.0,
        "answer_cpu_ms": 200.0,
        "whole_ms": 1000.0,
        "whole_cpu_ms": 500.0,
        "first_mb": 101.0,
        "peak_mb": 101.0,
    }


def test_report_says_which_limit_is_missed() -> None:
    text = footprint.render(found())
    assert "Wheel: 123 kB (limit 200)" in text
    assert "| `onnx` | numpy 2.4.6, onnxruntime 1.32.0 | 120 |" in text
    assert "| `old` | no wheel for Python 3.11.7 | |" in text
    assert (
        "| ONNX Runtime 1.32.0, int8 | edge.qab: 71,317 words, int4 | 50 (100 of the processor, limit 60) |"
        " 400 (200 of the processor, limit 1000) | 1000 (500 of the processor) | 101 | 101 (limit 100, missed) |"
    ) in text
    assert "The machine was loaded" not in text
    assert "The machine was loaded" in footprint.render(found() | {"load_1_minute_after": 2.0})


def test_processes_are_measured_in_turn(tmp_path: Path) -> None:
    bundle = tmp_path / "tiny.qab"
    write_tiny_bundle(bundle)
    rows = footprint.measure({"onnx": Path(sys.executable)}, [bundle], repeat=1)
    assert len(rows) == 1  # the tiny bundle has no graph for the other engines
    (row,) = rows
    assert (row["extra"], row["engine"][0], row["precision"]) == ("onnx", "onnxruntime", "fp32")
    assert len(row["import_ms"]) == len(row["processes"]) == 1
    assert set(row["processes"][0]) == set(STEPS)
    assert all(value > 0 for value in footprint.summarise(row).values())
    json.dumps(rows)


def test_bundle_without_a_graph_for_an_engine_is_left_out(tmp_path: Path) -> None:
    bundle = tmp_path / "tiny.qab"
    write_tiny_bundle(bundle)
    assert footprint.measure({"tflite": Path("/nowhere")}, [bundle], repeat=1) == []


def test_process_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ended with 1: .*missing"):
        footprint.answer_once(Path(sys.executable), tmp_path / "missing.qab", ("Where?", "Here."), [])
