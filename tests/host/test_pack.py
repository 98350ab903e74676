"""`qa-edge pack` and what other commands make of a single file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
pytest.importorskip("onnx")

from tiny_bundle import CONTEXT, QUESTION, write_tiny_bundle

from qa_edge.cli import main
from qa_edge.evaluate import model_kind


def run(*arguments: str | Path, code: int = 0) -> Result:
    found = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert found.exit_code == code, found.output
    return found


def test_a_bundle_is_packed_and_unpacked(tmp_path: Path) -> None:
    folder, single, back = (tmp_path / name for name in ("tiny.qab", "tiny.qab.zip", "back.qab"))
    write_tiny_bundle(folder)
    assert f"{single}: 0.01 MB" in run("pack", folder, "-o", single).output
    told = json.loads(run("pack", single, "-o", back, "--json").output)
    assert told == {"path": str(back), "size_bytes": sum(file.stat().st_size for file in folder.iterdir())}
    for file in folder.iterdir():
        assert (back / file.name).read_bytes() == file.read_bytes()
    assert "pass --force" in run("pack", folder, "-o", single, code=1).output
    run("pack", folder, "-o", single, "--force")
    assert "into itself" in run("pack", single, "-o", single, "--force", code=2).output
    assert "does not exist" in run("pack", tmp_path / "none.qab", "-o", tmp_path / "new.zip", code=1).output
    assert not (tmp_path / "new.zip").exists()


def test_other_commands_take_a_single_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    single = tmp_path / "tiny.qab.zip"
    write_tiny_bundle(single)
    assert "int8" in run("info", single).output
    assert model_kind(single) == "bundle"
    answered = json.loads(run("answer", single, "--question", QUESTION, "--context", CONTEXT, "--json").output)
    answer = answered[0] if isinstance(answered, list) else answered
    assert CONTEXT[answer["start"] : answer["end"]] == answer["text"]
