"""What a token table does to answers, counted against the unfolded student."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

for module in ("torch", "safetensors", "onnx", "onnxruntime"):
    pytest.importorskip(module)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "export")]

from trained_run import PAIRS, Trained  # noqa: E402

import table_agreement  # noqa: E402


def test_tables_are_compared_with_the_unfolded_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Trained(tmp_path)
    made.export()
    paragraphs = [
        {
            "context": context,
            "qas": [{"id": str(number), "question": question, "answers": [{"text": context[:5], "answer_start": 0}]}],
        }
        for number, (question, context) in enumerate(PAIRS)
    ]
    squad = tmp_path / "squad.json"
    squad.write_text(json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}))
    given = [str(made.run), str(made.folder / "tiny.qab"), "--squad", str(squad), "-o", str(tmp_path / "found.json")]
    assert table_agreement.main(given) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["table"]: row for row in found["rows"]}
    assert list(rows) == ["none", "float32", "float16", "int8", "int4"]
    assert all(row["questions"] == len(PAIRS) for row in rows.values())
    assert rows["none"]["same_spans"] == rows["float32"]["same_spans"] == len(PAIRS)
    assert all(row["own_case_same"] <= row["own_case"] <= len(PAIRS) for row in rows.values())
    assert rows["float32"]["own_case_same"] == rows["float32"]["own_case"]
    medians = {name: row["median_logit_difference"] for name, row in rows.items()}
    # Words without a row of their own case differ in rows of floats too; rounding comes on top of that.
    assert medians["none"] == 0 < medians["float32"] < medians["int8"] < medians["int4"]
    assert f"float32  same {len(PAIRS)} of {len(PAIRS)}" in capsys.readouterr().out
    other = Trained(tmp_path / "other", heads=2)
    assert table_agreement.main([str(other.run), *given[1:]]) == 1
    assert "the configuration of its student is another" in capsys.readouterr().err
