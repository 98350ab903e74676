"""Bundles of presets that are not trained: kept in a folder, built when they are missing, refused in a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "runtime")]

import peers  # noqa: E402
import preset_bundles  # noqa: E402

SIZES = {"word_dim": 2, "character_dim": 4, "characters": 28, "characters_per_word": 16}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"preset": "edge", **SIZES}))
    return folder


class Builder:
    """Builds tiny bundles in the place of those of presets, and remembers which."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def __call__(self, run: Path, preset: str, target: Path) -> None:
        pytest.importorskip("onnx")
        from tiny_bundle import write_tiny_bundle

        self.built.append(preset)
        student = {**json.loads((run / "config.json").read_text()), "preset": preset}
        write_tiny_bundle(target, student=student, force=True)


def test_bundles_are_built_once_and_again_for_a_run_of_other_sizes(run: Path, tmp_path: Path) -> None:
    build, said = Builder(), []
    found = preset_bundles.cached_bundles(run, tmp_path / "cache", said.append, build)
    assert build.built == list(found) == ["paper", "edge-small", "edge-tiny"] and len(said) == 3
    assert preset_bundles.cached_bundles(run, tmp_path / "cache", said.append, build) == found
    assert preset_bundles.cached_bundles(tmp_path / "absent", tmp_path / "cache", said.append, build) == found
    assert len(build.built) == len(said) == 3

    (run / "config.json").write_text(json.dumps({"preset": "edge", **SIZES, "word_dim": 3}))
    (found["paper"] / "cases.json").write_text("cut")
    preset_bundles.cached_bundles(run, tmp_path / "cache", said.append, build)
    assert build.built[3:] == ["paper", "edge-small", "edge-tiny"]
    (found["paper"] / "cases.json").write_text("cut")
    preset_bundles.cached_bundles(run, tmp_path / "cache", said.append, build)
    assert build.built[6:] == ["paper"]


def test_presets_run_as_contenders_with_random_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module)
    from test_peers import write_cached_peer

    write_cached_peer(tmp_path / "cache")
    monkeypatch.setattr(preset_bundles, "_build_apart", Builder())
    arguments = ["--quick", "--no-chart", "--peers", "BERT-tiny", "--presets", str(run)]
    arguments += ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    assert peers.main(arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "peers.json").read_text())
    labels = [f"{preset} (random weights)" for preset in preset_bundles.UNTRAINED]
    assert {row["name"] for row in found["rows"]} == {"BERT-tiny", *labels}
    assert found["arguments"]["presets"] == "run"
    assert str(tmp_path) not in json.dumps(found)
    assert f"**{labels[0]}**" in capsys.readouterr().out


def test_a_preset_that_does_not_exist_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preset_bundles.main([str(run), "edge-tiny", "giant", "-o", str(tmp_path / "out")]) == 1
    assert "no preset 'giant'; the presets are edge, edge-small, edge-tiny, paper" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_torch_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert preset_bundles.main([str(run), "edge-tiny", "-o", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert 'bundles of presets need torch: pip install "qa-edge[train,tflite]"' in errors and errors.count("\n") == 1
