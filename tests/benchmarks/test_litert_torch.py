"""The comparison with litert-torch, a stand-in in its place: what the table says, and the line on what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "export")]

import litert_torch_comparison  # noqa: E402
import litert_torch_graphs  # noqa: E402

FOUND: dict[str, Any] = {
    "date": "2026-01-02",
    "student": {"preset": "edge"},
    "context_tokens": 384,
    "question_tokens": 20,
    "inputs": 3,
    "calibration_questions": 200,
    "largest_logit": 12.3,
    "packages": {"litert-torch": "0.10.0", "onnxruntime": None},
    "machine": {"cpu": "a processor", "cores": 2, "load_1_minute": 0.1, "load_1_minute_after": 0.9},
    "rows": [
        {
            "writer": "litert-torch",
            "precision": "fp32",
            "made_cpu_s": 41.04,
            "size_bytes": 5_000_000,
            "largest_difference": 0.0000061,
            "wall_ms": [60.0, 90.0, 66.0],
            "cpu_ms": [60.0, 61.0, 58.0],
        },
        {
            "writer": "qa_edge_export",
            "precision": "fp32",
            "made_cpu_s": 0.52,
            "size_bytes": 3_800_000,
            "largest_difference": 0.00001,
            "wall_ms": [30.0, 31.0, 29.0],
            "cpu_ms": [30.0, 30.0, 29.0],
        },
    ],
}


def test_the_table_gives_medians_and_ratios_of_processor_time() -> None:
    lines = litert_torch_comparison.format_table(FOUND).splitlines()
    assert lines[2] == "| litert-torch | fp32 | 41.0 | 5.00 | 60.0 | 66.0 | 58.0 | 1.00 | 6.1e-06 |"
    assert lines[3] == "| qa_edge_export | fp32 | 0.5 | 3.80 | 30.0 | 30.0 | 29.0 | 2.00 | 1e-05 |"
    assert len({line.count("|") for line in lines[:4]}) == 1 and lines[4] == "" and len(lines) == 6
    for said in (
        "384 context and 20 question",
        "up to 1.10 times",
        "load 0.1 before, 0.9 after",
        "litert-torch 0.10.0;",
    ):
        assert said in lines[5]


def test_a_missing_litert_torch_is_one_sentence_that_names_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    assert litert_torch_comparison.main([str(tmp_path / "absent"), "-o", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "needs litert_torch;" in errors
    assert errors.endswith("none of the extras of qa-edge: pip install torch==2.13.0 litert-torch==0.10.0\n")
    assert not (tmp_path / "out").exists()
    for file in (ROOT / "pyproject.toml", ROOT / "runtime" / "pyproject.toml"):
        assert "litert-torch" not in file.read_text(encoding="utf-8")


def test_a_question_is_cut_or_repeated_and_a_context_cut() -> None:
    for tokens in (7, 20, 33):
        states = {
            side: np.arange(n * 4.0, dtype=np.float32).reshape(n, 4)
            for side, n in (("context", 390), ("question", tokens))
        }
        fixed = litert_torch_graphs.fixed_lengths(states)
        assert {name: len(array) for name, array in fixed.items()} == {
            "context": 384,
            "question": 20,
            "context_position": 384,
            "question_position": 20,
        }
        assert (fixed["context"] == states["context"][:384]).all()
        assert all((fixed["question"][n] == states["question"][n % tokens]).all() for n in range(20))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for module in ("torch", "onnx", "onnxruntime", "ai_edge_litert"):
        pytest.importorskip(module)
    from random_student import random_student, tiny_config, write_run

    def article(length: int) -> dict[str, Any]:
        context = " ".join(["the grey switch is behind a panel"] * (length // 7 + 1))
        questions = [
            {
                "id": f"{length}-{n}",
                "question": f"where is the switch {n}",
                "answers": [{"text": "the", "answer_start": 0}],
            }
            for n in range(2)
        ]
        return {"title": str(length), "paragraphs": [{"context": context, "qas": questions}]}

    folder = write_run(tmp_path / "run", random_student(tiny_config()))
    content = {"version": "1.1", "data": [article(40), article(400)]}
    (folder / "heldout.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_graphs_are_compared_with_the_student_and_timed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qa_edge_export.checkpoint import read_checkpoint

    given = {}

    class Converted:
        def export(self, path: str) -> None:
            litert_torch_graphs.write_core(read_checkpoint(run), "fp32", (), Path(path))

    def convert(module: Any, *, sample_kwargs: dict[str, Any]) -> Converted:
        sys.stdout.write("[START] Convert\n")
        given.update({name: tuple(tensor.shape) for name, tensor in sample_kwargs.items()})
        assert {name: tuple(logits.shape) for name, logits in module(**sample_kwargs).items()} == {
            "start_logits": (384,),
            "end_logits": (384,),
        }
        return Converted()

    monkeypatch.setitem(sys.modules, "litert_torch", SimpleNamespace(convert=convert))
    assert litert_torch_comparison.main([str(run), "--rounds", "2", "-o", str(tmp_path / "out")]) == 0
    assert given == {"context": (384, 16), "question": (20, 16)}
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "litert-torch.md").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "litert-torch.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["inputs"] == found["calibration_questions"] == 2 and str(tmp_path) not in text
    rows = {(row["writer"], row["precision"]): row for row in found["rows"]}
    assert [len(row["cpu_ms"]) for row in rows.values()] == [2, 2, 2]
    # Our graph is checked against the formulas elsewhere: that the module agrees says that the module is right.
    assert rows["qa_edge_export", "fp32"]["largest_difference"] < 1e-4 * found["largest_logit"]
    assert rows["qa_edge_export", "int8"]["largest_difference"] > rows["qa_edge_export", "fp32"]["largest_difference"]


def test_a_run_without_a_long_context_is_one_sentence(run: Path) -> None:
    from qa_edge_runtime.errors import InputError

    squad = json.loads((run / "heldout.json").read_text(encoding="utf-8"))
    (run / "heldout.json").write_text(json.dumps({**squad, "data": squad["data"][:1]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"no held-out context of .* has 384 tokens"):
        litert_torch_graphs.read_inputs(run)
