"""`python -m qa_edge_runtime bench`: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import core_graph, graph_specs, write_tiny_bundle

from qa_edge_runtime.bundle import copy_bundle
from qa_edge_runtime.cli import main
from qa_edge_runtime.progress_line import progress_line

QUICK = ("--paced", "0", "--cold-starts", "0", "--repeat", "50")


def test_the_program_prints_json_and_warns_on_standard_error(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "qa_edge_runtime", "bench", str(tiny_path), "--json", "--paced", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["queries"], report["paced"]["queries"], report["cold_start"]["processes"]) == (500, 100, 5)
    said = [line.removeprefix("warning: ") for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert said[: len(report["warnings"])] == report["warnings"]
    assert len(said) == (len(report["warnings"]) + 1 if report["warnings"] else 0)


def test_the_report_is_printed_and_written(tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert main(["bench", str(tiny_path), *QUICK, "-o", str(path)]) == 0
    table = capsys.readouterr().out
    assert "total" in table and "cold start 0" not in table and "total, paced" not in table
    assert json.loads(path.read_text())["queries"] == 100


def test_the_report_outlives_a_stream_that_cannot_be_written(tiny_path: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    command = [sys.executable, "-m", "qa_edge_runtime", "bench", str(tiny_path), *QUICK, "-o", str(tmp_path / "r.json")]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False).returncode == 1
    assert json.loads((tmp_path / "r.json").read_text())["queries"] == 100


def test_a_single_file_that_is_measured_is_never_written_over(tiny_path: Path, tmp_path: Path) -> None:
    single = tmp_path / "tiny.qab.zip"
    copy_bundle(tiny_path, single)
    before = single.read_bytes()
    for arguments in ([str(single)], [str(tiny_path), str(single)]):
        assert main(["bench", *arguments, "--repeat", "50", "-o", str(single)]) == 1
        assert single.read_bytes() == before


def test_a_comparison_by_precision_and_by_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, graphs = {"core.int8.onnx": core_graph(scale=2.0)}, graph_specs(onnx=["fp32", "int8"])
    for name in ("one.qab", "two.qab"):
        write_tiny_bundle(tmp_path / name, files=files, graphs=graphs)
    one, two = (str(tmp_path / name) for name in ("one.qab", "two.qab"))
    assert main(["bench", one, "--precision", "fp32", "--against-precision", "int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report[side]["precision"] for side in ("first", "second")] == ["fp32", "int8"]
    assert main(["bench", one, two, "--repeat", "50", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report[side]["file"] for side in ("first", "second")] == ["one.qab", "two.qab"]
    assert [report[side]["precision"] for side in ("first", "second")] == ["int8", "int8"]
    assert main(["bench", one, "--against-threads", "2", "--repeat", "50"]) == 0
    assert "times as fast as" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["BUNDLE", "--repeat", "49"], "98 queries, at least 100 needed"),
        (["BUNDLE", "BUNDLE"], "both sides are"),
        (["BUNDLE", "--against-precision", "int8"], "has no graph for int8"),
        (["BUNDLE", "missing"], "does not exist"),
        (["BUNDLE", "--against-engine", "tflite"], "has no graph for tflite"),
        (["BUNDLE", "BUNDLE", "--paced", "5"], "leave out --paced and --cold-starts"),
        (["BUNDLE", "--articles"], "belong to no articles"),
        (["BUNDLE", "--squad", "missing"], "does not exist"),
        (["BUNDLE", "-o", "missing/report.json"], "is not a folder; make it"),
        (["BUNDLE", "-o", "."], "it is a folder; name a file"),
        (["BUNDLE", "-o", "BUNDLE/manifest.json"], "is what was read, which is never changed"),
        (["BUNDLE", "BUNDLE", "--squad", "dev.json", "-o", "dev.json"], "is what was read, which is never changed"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments: list[str],
    part: str,
    tiny_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *(word.replace("BUNDLE", str(tiny_path)) for word in arguments)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and part in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--repeat", "0"],
        ["--engine", "abacus"],
        ["--against-engine", "abacus"],
        ["--paced", "-1"],
        ["--paced", "nan"],
        ["--paced", "inf"],
        ["--paced", "60001"],
        ["--against-threads", "65"],
        ["--cold-starts", "-1"],
        ["--limit", "none"],
        ["--chart", "x.png"],
        ["second", "third"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "x", *arguments])
    assert caught.value.code == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_of_a_terminal_and_nothing_elsewhere() -> None:
    clock = iter([0.0, 0.1, 1.0, 1.2, 2.0, 3.0])
    terminal = Terminal()
    show = progress_line("queries", terminal, clock=lambda: next(clock))
    for done in (1, 2, 3, 4, 5):
        show(done, 5)
    assert terminal.getvalue().split("\r") == [
        "",
        "queries 2 of 5, 2 s left\x1b[K",
        "queries 4 of 5, 0 s left\x1b[K",
        "\x1b[K",
    ]
    file = io.StringIO()
    progress_line("queries", file)(1, 5)
    assert file.getvalue() == ""
