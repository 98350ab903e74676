"""F1 against latency: what is refused before the first export, what the file says, and how the ratio is taken."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for module in ("torch", "safetensors", "onnx", "onnxruntime", "matplotlib"):
    pytest.importorskip(module)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "export")]

from trained_run import PAIRS, Trained  # noqa: E402

import size_curve  # noqa: E402
from qa_edge_runtime.errors import DataError  # noqa: E402


def variant(name: str, f1: float, difference: dict[str, Any]) -> dict[str, Any]:
    scores = {"exact_match": {"mean": f1 - 10}, "f1": {"mean": f1}}
    about = {"name": name, "said": f"said {name}", "seeds": [1, 0], "parameters": 1000}
    return {**about, "scores": {"dev": scores}, "difference": difference}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment's folder with two finished runs, and questions."""
    difference = {"dev": {"f1": {"difference": 0.012, "low": -0.004, "high": 0.02, "p_value": 0.2}}}
    results = {
        "baseline": "small",
        "size": "two passes",
        "tests": {"dev": {"on": "dev.json", "total": 1, "of": 1}},
        "variants": [variant("small", 60.0, {}), variant("large", 61.2, difference)],
    }
    for name in ("small", "large"):
        (tmp_path / "size" / f"{name}-seed0").mkdir(parents=True)
    (tmp_path / "size" / "results.json").write_text(json.dumps(results))
    question, context = PAIRS[0]
    paragraph = {"context": context, "qas": [{"id": "1", "question": question, "answers": []}]}
    (tmp_path / "squad.json").write_text(
        json.dumps({"version": "1.1", "data": [{"title": "a", "paragraphs": [paragraph]}]})
    )
    return tmp_path


def test_the_file_has_the_experiments_scores_and_the_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Trained(folder / "trained")
    made.export()
    bundle = made.folder / "tiny.qab"
    loaded = size_curve.Answerer.load
    asked: list[str] = []

    def load(bundle: Path, *, engine: str, precision: str, threads: int) -> Any:
        asked.append(precision)
        return loaded(bundle, engine=engine, threads=threads)

    monkeypatch.setattr(size_curve.Answerer, "load", load)
    monkeypatch.setattr(size_curve, "export_run", lambda run, engine, target: shutil.copytree(bundle, target))
    given = [str(folder / "size"), "--squad", str(folder / "squad.json"), "--engine", "onnx"]
    assert size_curve.main([*given, "-o", str(folder / "new" / "curve")]) == 0
    assert asked == ["int8", "int8"]
    found = json.loads((folder / "new" / "curve.json").read_text())
    assert [point["f1"] for point in found["points"]] == [60.0, 61.2]
    assert found["points"][0]["f1_difference"] is None
    assert found["points"][1]["f1_difference"] == {"difference": 1.2, "low": -0.4, "high": 2.0}
    assert all(point["median_ms"] > 0 for point in found["points"])
    assert found["points"][0]["cpu_ratio"] == 1.0
    assert found["timed_on"] == "1 questions of squad.json" and found["training"] == "two passes"
    assert (folder / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder) not in json.dumps(found)
    assert "said large" in capsys.readouterr().out


def test_what_cannot_be_timed_is_refused_in_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--squad", str(folder / "squad.json"), "-o", str(folder / "curve")]
    assert size_curve.main([str(folder), *given]) == 1
    assert "results.json" in capsys.readouterr().err
    assert size_curve.main([str(folder / "size"), *given, "--questions", "0"]) == 1
    assert "--questions is 0" in capsys.readouterr().err
    (folder / "size" / "large-seed0").rmdir()
    assert size_curve.main([str(folder / "size"), *given]) == 1
    assert "no run large-seed0" in capsys.readouterr().err
    assert not (folder / "curve.json").exists()


def test_an_export_that_fails_is_told_with_its_reason(folder: Path) -> None:
    with pytest.raises(DataError, match=r"cannot export .*small-seed0: .*"):
        size_curve.export_run(folder / "size" / "small-seed0", "onnx", folder / "none.qab")


def test_the_ratio_is_taken_question_by_question() -> None:
    base = np.random.default_rng(1).uniform(1, 100, 200)
    ratio, low, high = size_curve.ratio_interval(1.5 * base, base)
    assert ratio == pytest.approx(1.5) and low == pytest.approx(1.5) and high == pytest.approx(1.5)
