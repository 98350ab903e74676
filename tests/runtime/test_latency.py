from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import CASES, write_tiny_bundle

from qa_edge_runtime.__main__ import main
from qa_edge_runtime.answerer import StageTimes
from qa_edge_runtime.cold_start import ColdStart
from qa_edge_runtime.errors import BundleError, InputError
from qa_edge_runtime.latency import (
    NOTES,
    STAGES,
    LatencyReport,
    bench_questions,
    format_report,
    measure_latency,
    summarise_stages,
)
from qa_edge_runtime.machine import cpu_model, peak_memory_bytes

PAIRS = [(case["question"], case["context"]) for case in CASES]


@pytest.fixture(scope="module")
def report(tiny_path: Path) -> LatencyReport:
    return measure_latency(tiny_path, PAIRS, repeat=50, cold_starts=1)


def stage_times(tokenise: float, look_up: float, infer: float, decode: float) -> StageTimes:
    return StageTimes(
        tokenise_ms=tokenise,
        look_up_ms=look_up,
        infer_ms=infer,
        decode_ms=decode,
        context_tokens=100,
        question_tokens=10,
        distinct_tokens=80,
        unknown_tokens=30,
        remembered_tokens=20,
    )


def test_percentiles_and_shares_worked_out_by_hand() -> None:
    stages = summarise_stages([stage_times(1.0, 2.0, float(number), 1.0) for number in range(101)])
    assert tuple(stages) == STAGES
    assert (stages["infer"].p50_ms, stages["infer"].p90_ms, stages["infer"].p99_ms) == (50.0, 90.0, 99.0)
    assert (stages["total"].p50_ms, stages["total"].share) == (54.0, 1.0)
    assert stages["look_up"].share == pytest.approx(2 / 54)
    assert sum(stages[stage].share for stage in STAGES[:-1]) == pytest.approx(1.0)


def test_report_of_a_real_run(report: LatencyReport) -> None:
    assert (report.queries, report.questions, report.repeat) == (100, 2, 50)
    assert (report.engine, report.precision) == ("onnxruntime", "fp32")
    for latency in report.stages.values():
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
    # Passes begin with nothing remembered: the first question knows none of its new words, the second some of them.
    assert 0.3 < report.table_share < 0.9
    assert 0.0 < report.remembered_share < 1 - report.table_share
    cold = report.cold_start
    assert cold is not None
    assert 0 < cold.first_answer_ms < cold.total_ms
    assert 0 < cold.load_ms < cold.total_ms
    assert cold.peak_memory_bytes is None or 10e6 < cold.peak_memory_bytes < 500e6


def test_report_as_json_and_as_a_table(report: LatencyReport) -> None:
    content = json.loads(report.to_json())
    assert content["stages"]["total"]["p50_ms"] == report.stages["total"].p50_ms
    assert content["machine"]["cpu"]
    table = format_report(report)
    for part in (
        "tokenise",
        "look up",
        "infer",
        "decode",
        "total",
        "p50",
        "p90",
        "p99",
        "cold start",
        "1 thread;",
        "fp32 in onnxruntime ",
    ):
        assert part in table
    assert cpu_model() in table
    assert all(note[1:] in table for note in NOTES)
    assert max(map(len, table.splitlines())) < 220


def test_table_without_cold_start_and_with_more_threads(report: LatencyReport) -> None:
    table = format_report(replace(report, cold_start=None, threads=2))
    assert "2 threads;" in table
    assert "first answer" not in table
    cold = ColdStart(processes=3, total_ms=1.0, load_ms=0.5, first_answer_ms=0.2, peak_memory_bytes=None)
    assert "peak memory 0" not in format_report(replace(report, cold_start=cold))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (
            {"repeat": 49},
            "2 questions x 49 make 98 queries, at least 100 needed; give more questions, or repeat them 50",
        ),
        ({"repeat": 0}, "repeat is 0"),
        ({"repeat": 50, "warmup": -1}, "warmup is -1"),
        ({"repeat": 50, "cold_starts": True}, "cold_starts is True"),
        ({"repeat": 50, "threads": 0}, "threads is 0"),
    ],
)
def test_settings_that_make_no_measurement(tiny_path: Path, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as caught:
        measure_latency(tiny_path, PAIRS, **settings)
    assert part in str(caught.value)


def test_no_questions_at_all(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="0 questions"):
        measure_latency(tiny_path, [])


def test_questions_come_from_the_cases_or_spread_over_a_squad_file(tiny_path: Path, tmp_path: Path) -> None:
    found = bench_questions(tiny_path)
    assert found.pairs == PAIRS
    assert found.source.startswith("2 conformance cases of the bundle, on texts below 60 words")
    questions = [{"id": str(number), "question": f"Q{number}?"} for number in range(10)]
    squad = {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "Text.", "qas": questions}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    found = bench_questions(tiny_path, tmp_path / "squad.json", limit=5)
    assert found.source == "5 of 10 questions of squad.json, evenly spread"
    asked = [question for question, _ in found.pairs]
    assert asked == ["Q0?", "Q2?", "Q4?", "Q6?", "Q8?"]
    assert len(bench_questions(tiny_path, tmp_path / "squad.json", limit=0).pairs) == 10
    with pytest.raises(InputError, match="limit"):
        bench_questions(tiny_path, limit=-1)


def test_only_ordinary_cases_are_timed(tmp_path: Path) -> None:
    long = {"question": "Where?", "context": "The switch is grey. " * 15}
    write_tiny_bundle(tmp_path / "long.qab", files={"cases.json": json.dumps([*CASES, long]).encode()})
    found = bench_questions(tmp_path / "long.qab")
    assert found.pairs == [(long["question"], long["context"])]
    assert found.source == "1 conformance cases of the bundle, on 1 passages of 60 words or more"


def test_questions_that_no_argument_can_hold(tiny_path: Path) -> None:
    pairs = [("Where\x00 is it?", "The panel\x00 is grey."), ("What \ud800?", "The \udc00 switch.")]
    report = measure_latency(tiny_path, pairs, repeat=1, minimum=1, cold_starts=2, source="odd ones")
    assert report.cold_start is not None and "questions: odd ones" in format_report(report)


def test_bundle_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        measure_latency(tmp_path / "none.qab", PAIRS, repeat=50)


def test_peak_memory_is_this_process_and_not_its_parent() -> None:
    code = "from qa_edge_runtime.machine import peak_memory_bytes; print(peak_memory_bytes())"
    ballast = bytearray(300_000_000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = peak_memory_bytes()
    assert mine is None or (int(done.stdout) < 200_000_000 < len(ballast) <= mine)


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
        ["bench", "x", "--repeat", "0"],
        ["bench", "x", "--engine", "abacus"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_command_bench(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "qa_edge_runtime", "bench", str(tiny_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["queries"] == 100
