"""The curve of table sizes: what it refuses before the work, and what it leaves behind when it is interrupted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

for module in ("torch", "safetensors", "onnx", "onnxruntime", "matplotlib"):
    pytest.importorskip(module)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "export")]

from trained_run import PAIRS, Trained  # noqa: E402

import table_curve  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = Trained(tmp_path_factory.mktemp("curve"))
    made.export()
    question, context = PAIRS[0]
    answer = {"text": context[:10], "answer_start": 0}
    paragraph = {"context": context, "qas": [{"id": "1", "question": question, "answers": [answer]}]}
    data = {"version": "1.1", "data": [{"title": "invented", "paragraphs": [paragraph]}]}
    (made.folder / "squad.json").write_text(json.dumps(data))
    return made


def curve(trained: Trained, output: Path, *others: str, run: Path | None = None) -> int:
    given = [str(run or trained.run), str(trained.folder / "tiny.qab"), "--squad", str(trained.folder / "squad.json")]
    return table_curve.main([*given, "-o", str(output), "--words", "5", "3", *others])


def test_the_folder_is_made_and_the_file_says_what_ran(trained: Trained, tmp_path: Path) -> None:
    assert curve(trained, tmp_path / "new" / "deep" / "curve.1") == 0
    found = json.loads((tmp_path / "new" / "deep" / "curve.1.json").read_text())
    assert (found["engine"], found["precision"]) == ("onnx", "fp32") and found["package"].startswith("onnxruntime ")
    assert [(point["dtype"], point["words"]) for point in found["points"]] == [
        (dtype, words) for dtype in ("int8", "int4") for words in (3, 5)
    ]
    assert (tmp_path / "new" / "deep" / "curve.1.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in json.dumps(found)


def test_an_interrupt_keeps_the_points(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def point(*given: Any) -> dict[str, Any]:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"f1": 50.0}

    monkeypatch.setattr(table_curve, "measure_point", point)
    assert curve(trained, tmp_path / "curve") == 130
    assert json.loads((tmp_path / "curve.json").read_text())["points"] == [{"f1": 50.0}]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and errors[1].startswith("interrupted: ")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--words", "1000000"], "1,000,000 words was asked for"),
        (["--words", "0"], "--words has 0"),
        (["--engine", "tflite"], "no graph for tflite"),
        (["--precision", "int8"], "no graph for int8"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    others: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(table_curve, "measure_point", lambda *given: pytest.fail("it began"))
    assert curve(trained, tmp_path / "curve", *others) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_a_bundle_of_another_run_is_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Trained(tmp_path / "other", heads=2)
    assert curve(trained, tmp_path / "curve", run=other.run) == 1
    assert "the configuration of its student is another" in capsys.readouterr().err
    same_sizes = Trained(tmp_path / "same")
    same_sizes.spoil("token.projection.weight")
    assert curve(trained, tmp_path / "curve", run=same_sizes.run) == 1
    assert "its table holds other states than the run's weights give" in capsys.readouterr().err


def test_a_missing_matplotlib_is_said_first(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert curve(trained, tmp_path / "new" / "curve") == 1
    assert 'pip install "qa-edge[bench]"' in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
