"""What `qa-edge info` makes of manifests that hold less, or other things, than export writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_teacher import Workshop

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
pytest.importorskip("onnx")

from tiny_bundle import graph_spec, write_tiny_bundle

from qa_edge.cli.info import command

WHOLE = {"questions": 9, "equal_spans": 8, "largest_difference": 0.25}


@pytest.mark.parametrize(
    ("fields", "core", "expected"),
    [
        ({}, {}, ["not measured", "no\n"]),
        ({"scores": {"f1": 80.0}}, {}, ["not measured"]),
        ({"scores": {"f1": 80.0, "exact_match": 70}}, {}, ["exact match 70.00, F1 80.00\n"]),
        ({"scores": {"f1": 80.0, "exact_match": 70, "total": 9, "on": "dev"}}, {}, ["F1 80.00 on 9 questions of dev"]),
        ({"verification": WHOLE}, {}, ["8 of 9 answers", "logits 2.5e-01\n"]),
        ({"verification": {**WHOLE, "engine": "onnx", "precision": "int8"}}, {}, ["2.5e-01 (onnx int8)"]),
        ({}, {"scores": {}}, ["core.fp32.onnx"]),
        ({}, {"scores": {"f1": 81}}, ["81.00"]),
    ],
)
def test_info_shows_what_is_there(
    tmp_path: Path, fields: dict[str, Any], core: dict[str, Any], expected: list[str]
) -> None:
    graphs = [replace(graph_spec("core"), verification=core), graph_spec("token")]
    write_tiny_bundle(tmp_path / "tiny.qab", graphs=graphs, **fields)
    found = CliRunner().invoke(command, [str(tmp_path / "tiny.qab")], catch_exceptions=False)
    assert found.exit_code == 0
    for text in expected:
        assert text in found.output


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_is_json_in_any_encoding(shop: Workshop, encoding: str) -> None:
    words = (sys.executable, "-m", "qa_edge", "answer", shop.bundle, "--json", "--question", "Who is it?")
    command = [str(word) for word in (*words, "--context", "Zoë \U0001f600 Müller and Łukasz are here.")]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}, check=True
    )
    found = json.loads(done.stdout.decode(encoding))
    assert found["text"] in "Zoë \U0001f600 Müller and Łukasz are here."
