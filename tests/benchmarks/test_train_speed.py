"""The speed of training: its parts add up, its variants are what they say, and wrong input is a sentence."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

for module in ("torch", "safetensors", "spacy", "accelerate"):
    pytest.importorskip(module)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "host")]

from tiny_models import write_tiny_squad, write_tiny_vectors  # noqa: E402

import train_speed  # noqa: E402
from qa_edge.prepare import PrepareSettings, prepare  # noqa: E402
from qa_edge.squad import read_squad  # noqa: E402


def test_time_goes_to_the_inner_part_alone() -> None:
    watch = train_speed.Stopwatch()
    inner = watch.wrap("inner", lambda: time.sleep(0.05))
    with watch.part("outer"):
        time.sleep(0.02)
        inner()
    assert 0.045 < watch.seconds["inner"] < 0.5 and 0.015 < watch.seconds["outer"] < 0.045


def test_parts_add_up_to_an_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squad = write_tiny_squad(tmp_path / "squad.json", articles=2)
    vectors = write_tiny_vectors(tmp_path / "vectors.txt", read_squad(squad))
    prepare(squad, tmp_path / "features", vectors_path=vectors, settings=PrepareSettings(heldout=0.0))
    features = ["--features", str(tmp_path / "features")]
    options = ["--variant", "labels-alone", "--batch-size", "2", "--rounds", "2", "--updates", "1", "--precision", "no"]
    train_speed.main([*features, *options, "-o", str(tmp_path / "speed.json")])
    found = json.loads((tmp_path / "speed.json").read_text())["variants"]["labels-alone"]
    assert set(found["parts_ms"]) == set(train_speed.PARTS)
    for part in ("data", "forward", "backward", "optimiser", "loss"):
        assert found["parts_ms"][part] > 0, part
    assert found["questions_an_hour"] == pytest.approx(2 * 3600e3 / found["update_ms"], rel=0.01)
    assert sum(found["parts_ms"].values()) == pytest.approx(found["update_ms"], rel=0.5)
    assert "labels-alone" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no teacher"):
        train_speed.main(features)
