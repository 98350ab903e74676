"""`python -m qa_edge_runtime`: answer, info, wrong usage, output that nobody reads; bench has tests of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import CASES

from qa_edge_runtime.cli import main

PAIRS = [(case["question"], case["context"]) for case in CASES]


def test_command_answers(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question, context = PAIRS[0]
    assert main(["answer", str(tiny_path), "--question", question, "--context", context, "--top-k", "2", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["answers"]) == 2
    for answer in content["answers"]:
        assert context[answer["start"] : answer["end"]] == answer["text"]
    assert content["times"]["load_ms"] > 0
    assert main(["answer", str(tiny_path), "--question", question, "--context", context]) == 0
    assert capsys.readouterr().out.split("\t")[0] == content["answers"][0]["text"]


def test_command_reads_a_file_and_names_what_is_wrong_with_it(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "context.txt"
    arguments = ["answer", str(tiny_path), "--question", "What?", "--context-file", str(file)]
    file.write_text("The panel is grey – mostly.", encoding="utf-8")
    assert main(arguments) == 0
    for content, part in ((b"", "context is empty"), (b" \n", "context is blank"), (b"caf\xe9", "is not UTF-8")):
        file.write_bytes(content)
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
    file.unlink()
    assert main(arguments) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_command_info(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_path)]) == 0
    text = capsys.readouterr().out
    assert all(
        part in text
        for part in ("tiny", "core graph, onnx, fp32", "core.fp32.onnx", "table_scales.npy", "not measured", "int8")
    )
    assert "10 rows of 6 numbers, int8 with a scale for each 3" in text
    assert main(["info", str(tiny_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format_version"] == 2
    assert main(["info", str(tmp_path / "none.qab")]) == 1
    assert capsys.readouterr().err.startswith("error: bundle ")


def test_command_takes_the_engine_and_precision_named(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question, context = PAIRS[0]
    arguments = ["answer", str(tiny_path), "--question", question, "--context", context]
    assert main([*arguments, "--engine", "onnx", "--precision", "fp32"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--precision", "int8"]) == 1
    assert "has no graph for int8, it has onnx in fp32" in capsys.readouterr().err


def test_output_that_cannot_be_written(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "qa_edge_runtime", "info", str(tiny_path)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "error: cannot write the result: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["answer"],
        ["answer", "x.qab", "--question", "?"],
        ["answer", "x.qab", "--question", "?", "--context", "c", "--min-probability", "2"],
        ["answer", "x.qab", "--question", "?", "--context", "c", "--min-probability", "nan"],
        ["answer", "x.qab", "--question", "?", "--context", "c", "--threads", "65"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_a_stream_that_the_caller_closed_is_empty(tiny_path: Path, closed: str) -> None:
    if os.name == "nt":
        pytest.skip("closed by a shell of Unix")
    words = {"stdin": "answer BUNDLE --question a --context-file - <&-", "stdout": "info BUNDLE >&-"}[closed]
    command = f"{sys.executable} -m qa_edge_runtime {words.replace('BUNDLE', str(tiny_path))}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if closed == "stdin" else 0)
    assert closed == "stdout" or "the context is empty" in done.stderr
