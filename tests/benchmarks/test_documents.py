"""What a long text, a kept passage and the way around the network cost: measured here on a tiny bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

for module in ("onnx", "onnxruntime"):
    pytest.importorskip(module)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "runtime")]

from tiny_bundle import write_tiny_bundle  # noqa: E402

import documents  # noqa: E402
import outside_network  # noqa: E402


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    """Twelve contexts of 150 words, one question each."""
    paragraphs = []
    for number in range(12):
        context = " ".join(f"w{(number * word) % 89}" for word in range(150))
        answers = [{"text": "w0", "answer_start": 0}]
        questions = [{"id": str(number), "question": f"What is w{number}?", "answers": answers}]
        paragraphs.append({"context": context, "qas": questions})
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}))
    return path


def test_a_document_and_kept_passages_are_timed(
    tmp_path: Path, squad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "tiny.qab")
    given = [str(tmp_path / "tiny.qab"), "--squad", str(squad), "--questions", "3", "--rounds", "2", "--short", "10"]
    assert documents.main([*given, "--kept-rounds", "2", "-o", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["rows"]
    assert row["engine"].startswith("onnxruntime ") and row["document"]["windows"] > 2
    counts = {name: len(samples) for name, samples in row["document"]["seconds"].items()}
    assert counts == {"read": 2, "both": 2, "best_windows": 3, "all_windows": 2}
    # The round that brings the words into the caches is not among them.
    assert {name: len(samples) for name, samples in row["kept_ms"].items()} == {"kept": 20, "string": 20}
    assert min(min(samples) for samples in row["kept_ms"].values()) > 0
    assert f"| {row['engine']} | {row['document']['windows']} |" in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(found)


def test_the_way_around_the_network_is_timed(tmp_path: Path, squad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_bundle(tmp_path / "tiny.qab")
    given = [str(tmp_path / "tiny.qab"), "--squad", str(squad), "--rounds", "1", "-o", str(tmp_path / "found.json")]
    assert outside_network.main(given) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["questions"]["new texts"]["questions"] == 12
    for name in ("new texts", "known texts"):
        assert 0 < found["questions"][name]["least_sum_ms"] <= found["questions"][name]["sum_ms"]
    assert "150-token context and question, ms" in capsys.readouterr().out


def test_too_few_texts_of_the_length_are_refused(
    tmp_path: Path, squad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "tiny.qab")
    content = json.loads(squad.read_text())
    del content["data"][0]["paragraphs"][9:]
    squad.write_text(json.dumps(content))
    for main in (documents.main, outside_network.main):
        assert main([str(tmp_path / "tiny.qab"), "--squad", str(squad), "-o", str(tmp_path / "found.json")]) == 1
        assert "has 9 contexts of about 150 tokens, expected at least 10" in capsys.readouterr().err
    assert not (tmp_path / "found.json").exists()
