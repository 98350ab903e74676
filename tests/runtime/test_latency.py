"""Measuring one bundle: what is timed, what is refused, how the report reads as a table and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import CASES, write_tiny_bundle

from qa_edge_runtime.cold_start import ColdStart
from qa_edge_runtime.comparison_report import read_report
from qa_edge_runtime.errors import BundleError, DataError, InputError
from qa_edge_runtime.latency import measure_latency, usual_passes
from qa_edge_runtime.latency_report import NOTES, LatencyReport
from qa_edge_runtime.latency_samples import STAGES, LatencySamples
from qa_edge_runtime.latency_table import format_report
from qa_edge_runtime.machine import cpu_model
from qa_edge_runtime.questions import bench_questions

PAIRS = [(case["question"], case["context"]) for case in CASES]


@pytest.fixture(scope="module")
def report(tiny_path: Path) -> LatencyReport:
    return measure_latency(tiny_path, PAIRS, repeat=50, cold_starts=2, paced_ms=0.5)


def test_report_of_a_real_run(report: LatencyReport) -> None:
    assert (report.queries, report.questions, report.repeat) == (100, 2, 50)
    assert (report.engine, report.precision) == ("onnxruntime", "fp32")
    for latency in report.stages.values():
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        assert latency.p50_interval_ms[0] <= latency.p50_ms <= latency.p50_interval_ms[1]
    # Passes begin with nothing remembered: the first question knows none of its new words, the second some of them.
    assert 0.3 < report.table_share < 0.9
    assert 0.0 < report.remembered_share < 1 - report.table_share
    cold = report.cold_start
    assert cold is not None
    assert 0 < cold.first_answer_ms < cold.total_ms
    assert 0 < cold.load_ms < cold.total_ms
    assert len(cold.totals_ms) == cold.processes == 2
    assert cold.peak_memory_bytes is None or 10e6 < cold.peak_memory_bytes < 500e6
    assert len(report.passes_p50_ms) == 50
    assert sum(found.queries for found in report.by_length) == 100


def test_every_query_of_the_run_is_in_the_samples(report: LatencyReport) -> None:
    samples = report.samples
    assert len(samples) == 100
    np.testing.assert_array_equal(samples.question, [0, 1] * 50)
    np.testing.assert_array_equal(samples.pass_number, np.repeat(np.arange(50), 2))
    np.testing.assert_allclose(np.percentile(samples.total_ms, 90), report.stages["total"].p90_ms)
    assert set(samples.context_tokens.tolist()) == {9, 13}


def test_paced_queries_are_asked_between_the_passes(report: LatencyReport) -> None:
    paced = report.paced
    assert paced is not None and (paced.queries, paced.gap_ms) == (100, 0.5)
    # Both questions alike, some after each pass; none is in the figures of the tight loop.
    assert np.bincount(paced.samples.question).tolist() == [50, 50]
    assert sorted(set(paced.samples.pass_number.tolist())) == list(range(50))
    assert paced.ratio_interval[0] <= paced.ratio <= paced.ratio_interval[1]


def test_few_paced_queries_are_spread_over_many_questions(tiny_path: Path) -> None:
    pairs = [(f"What is {number}?", "The panel is grey.") for number in range(8)]
    seen: list[tuple[int, int]] = []
    found = measure_latency(
        tiny_path,
        pairs,
        minimum=4,
        paced_ms=0.01,
        cold_starts=0,
        repeat=3,
        progress=lambda *place: seen.append(place),
    )
    assert found.paced is not None
    assert sorted(found.paced.samples.question.tolist()) == [0, 2, 4, 6]
    assert seen == [(done, 28) for done in range(1, 29)]


def test_report_as_json_and_as_a_table(report: LatencyReport) -> None:
    content = json.loads(report.to_json())
    assert (content["format_version"], content["kind"]) == (1, "latency")
    assert content["stages"]["total"]["p50_ms"] == report.stages["total"].p50_ms
    assert content["machine"]["cpu"]
    assert max(map(len, report.to_json().splitlines())) > 500  # a column of samples is one line
    table = format_report(report)
    for part in (*STAGES, "p50", "p90", "p99", "cold start", "1 thread\n", "fp32 in onnxruntime ", "governor", "paced"):
        assert part.replace("_", " ") in table
    assert cpu_model() in table
    assert all(note[1:] in table for note in NOTES)
    assert max(map(len, table.splitlines())) < 220


def test_a_report_is_read_as_it_was_written(report: LatencyReport, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    found = read_report(path)
    assert found.to_json() == report.to_json()
    assert format_report(found) == format_report(report)
    rare = replace(report, paced=None, cold_start=None, machine={**report.machine, "mhz": None, "governor": None})
    path.write_text(rare.to_json())
    assert read_report(path).to_json() == rare.to_json()


def removed(content: dict[str, Any], name: str) -> None:
    del content[name]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: c.clear(), "is not a report; expected the JSON that bench writes"),
        (lambda c: c.update(format_version=2), "has format 2, this version reads 1"),
        (lambda c: c.update(kind="song"), "is of kind 'song'"),
        (lambda c: removed(c, "stages"), "stages is missing, expected an object"),
        (lambda c: removed(c["stages"], "infer"), "stages names tokenise, look_up, decode, total, expected"),
        (lambda c: c["stages"]["total"].update(p50_ms="fast"), "stages.total.p50_ms is 'fast', expected a number"),
        (lambda c: c["stages"]["total"].update(p50_interval_ms=[1]), "has 1 entries, expected 2"),
        (lambda c: c["stages"]["total"].update(p50_ms=float("nan")), "stages.total.p50_ms is nan"),
        (lambda c: c.update(queries=1.5), "queries is 1.5, expected a whole number"),
        (lambda c: c.update(by_length=[3]), "by_length[0] is 3, expected an object"),
        (lambda c: c.update(passes_p50_ms=[]), "passes_p50_ms is empty"),
        (lambda c: removed(c["machine"], "mhz"), "machine.mhz is missing"),
        (lambda c: c["cold_start"].update(totals_ms=[]), "cold_start.totals_ms is empty"),
        (lambda c: c.update(samples=3), "samples is int"),
        (lambda c: removed(c["samples"], "infer_ms"), "samples.infer_ms is missing"),
        (lambda c: c["samples"]["infer_ms"].pop(), "not all of one length"),
        (lambda c: c["samples"]["question"].__setitem__(0, 10**30), "samples.question holds a number beyond"),
        (lambda c: c["samples"]["infer_ms"].__setitem__(0, -1), "samples.infer_ms holds a number"),
    ],
)
def test_what_is_no_report_is_refused(change: Any, part: str, report: LatencyReport, tmp_path: Path) -> None:
    content = json.loads(report.to_json())
    change(content)
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_report(tmp_path / "report.json")
    assert part in str(caught.value)


def test_table_without_cold_start_and_with_more_threads(report: LatencyReport) -> None:
    table = format_report(replace(report, cold_start=None, paced=None, threads=2))
    assert "2 threads\n" in table
    assert "first answer" not in table and "total, paced" not in table
    cold = ColdStart(
        processes=3, total_ms=1.0, load_ms=0.5, first_answer_ms=0.2, totals_ms=(0.5, 1.0, 2.0), peak_memory_bytes=None
    )
    assert "peak memory 0" not in format_report(replace(report, cold_start=cold))


def test_warnings_stand_in_table_and_json(report: LatencyReport) -> None:
    loud = replace(report, warnings=("other processes had 80% of the processor's cores",))
    assert "warning: other processes had 80%" in format_report(loud)
    assert "not worth quoting" in format_report(loud)
    assert json.loads(loud.to_json())["warnings"] == list(loud.warnings)
    assert "warning" not in format_report(replace(report, warnings=()))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (
            {"repeat": 49},
            "2 questions x 49 make 98 queries, at least 100 needed; give more questions, or repeat them 50",
        ),
        ({"repeat": 0}, "repeat is 0"),
        ({"repeat": 50, "warmup": -1}, "warmup is -1"),
        ({"repeat": 50, "minimum": 0}, "minimum is 0"),
        ({"repeat": 50, "cold_starts": True}, "cold_starts is True"),
        ({"repeat": 50, "paced_ms": -1}, "paced_ms is -1"),
        ({"repeat": 50, "paced_ms": float("nan")}, "paced_ms is nan"),
        ({"repeat": 50, "threads": 0}, "threads is 0"),
    ],
)
def test_settings_that_make_no_measurement(tiny_path: Path, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as caught:
        measure_latency(tiny_path, PAIRS, **settings)
    assert part in str(caught.value)


def test_ninety_nine_queries_are_refused(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="99 questions x 1 make 99 queries, at least 100 needed"):
        measure_latency(tiny_path, [PAIRS[0]] * 99)
    assert [usual_passes(count) for count in (0, 1, 12, 100, 200)] == [500, 500, 42, 5, 5]


def test_no_questions_at_all(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="0 questions"):
        measure_latency(tiny_path, [])


def test_questions_come_from_the_cases_or_spread_over_a_squad_file(tiny_path: Path, tmp_path: Path) -> None:
    found = bench_questions(tiny_path)
    assert found.pairs == PAIRS
    assert found.source.startswith("2 conformance cases of the bundle, on texts below 60 words")
    questions = [{"id": str(number), "question": f"Q{number}?"} for number in range(10)]
    paragraphs = [{"context": "Text.", "qas": questions}, {"context": "More.", "qas": []}]
    squad = {"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    found = bench_questions(tiny_path, tmp_path / "squad.json", limit=5)
    assert found.source == "5 of 10 questions of squad.json, evenly spread"
    asked = [question for question, _ in found.pairs]
    assert asked == ["Q0?", "Q2?", "Q4?", "Q6?", "Q8?"]
    assert len(bench_questions(tiny_path, tmp_path / "squad.json", limit=0).pairs) == 10
    with pytest.raises(InputError, match="limit"):
        bench_questions(tiny_path, limit=-1)
    found = bench_questions(tiny_path, tmp_path / "squad.json", articles=True)
    assert found.pairs[0] == ("Q0?", "Text.\n\nMore.") and found.source.endswith("each on its whole article")
    with pytest.raises(InputError, match="belong to no articles"):
        bench_questions(tiny_path, articles=True)


def test_only_ordinary_cases_are_timed(tmp_path: Path) -> None:
    long = {"question": "Where?", "context": "The switch is grey. " * 15}
    write_tiny_bundle(tmp_path / "long.qab", files={"cases.json": json.dumps([*CASES, long]).encode()})
    found = bench_questions(tmp_path / "long.qab")
    assert found.pairs == [(long["question"], long["context"])]
    assert found.source == "1 conformance cases of the bundle, on 1 passages of 60 words or more"


def test_texts_beyond_one_window_have_bins_of_their_own(tiny_path: Path) -> None:
    long = ("Where is the switch?", "The main switch is behind the grey panel. " * 120)
    report = measure_latency(tiny_path, [PAIRS[0], long], repeat=2, minimum=1, cold_starts=0)
    assert [(found.from_tokens, found.to_tokens, found.queries) for found in report.by_length] == [
        (1, 64, 2),
        (801, 1600, 2),
    ]
    assert report.context_tokens_max == 120 * 9


def test_questions_that_no_argument_can_hold(tiny_path: Path) -> None:
    pairs = [("Where\x00 is it?", "The panel\x00 is grey."), ("What \ud800?", "The \udc00 switch.")]
    report = measure_latency(tiny_path, pairs, repeat=1, minimum=1, cold_starts=2, source="odd ones")
    assert report.cold_start is not None and "warm-up): odd ones" in format_report(report)


def test_bundle_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        measure_latency(tmp_path / "none.qab", PAIRS, repeat=50)


def test_samples_are_columns_of_one_length() -> None:
    column = [1, 2]
    columns = dict.fromkeys(LatencySamples.__dataclass_fields__, column)
    samples = LatencySamples.from_columns(columns)
    assert samples.columns() == columns
    assert samples.total_ms.tolist() == [4.0, 8.0]


def test_peak_memory_is_this_process_and_not_its_parent() -> None:
    from qa_edge_runtime.machine import peak_memory_bytes

    code = "from qa_edge_runtime.machine import peak_memory_bytes; print(peak_memory_bytes())"
    ballast = bytearray(300_000_000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = peak_memory_bytes()
    assert mine is None or (int(done.stdout) < 200_000_000 < len(ballast) <= mine)
