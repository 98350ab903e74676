"""End-to-end latency on real questions: each stage's share, cold start apart from warm, memory, machine named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qa_edge_runtime.answerer import Answerer, StageTimes
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cold_start import ColdStart, measure_cold_start
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.machine import describe_machine
from qa_edge_runtime.questions import load_squad_questions

STAGES = ("tokenise", "look_up", "infer", "decode", "total")
# Below a hundred queries p99 is no more than the slowest one.
MINIMUM_QUERIES = 100
# A conformance case on a shorter text is there to trip a tokenizer, not to be timed.
ORDINARY_WORDS = 60
NOTES = (
    "warm times run from the caller's two strings to the answer's characters; loading is not in them",
    "every pass over the questions starts with no state of an unknown word remembered and remembers as it goes; the"
    " tokenizer keeps the chunks that it has seen, and the system the rows of the table that it has read",
    "cold start is a fresh process to its end: interpreter, imports, checking and loading the bundle, one answer",
    "peak memory is the largest of the fresh processes', one of which answered the longest question and context",
)


@dataclass(frozen=True, kw_only=True)
class StageLatency:
    """Percentiles of a stage over all queries, and its share of the time of all stages together (0 to 1)."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    share: float


class BenchQuestions(NamedTuple):
    """(question, context) pairs to measure with, and in words where they come from."""

    pairs: list[tuple[str, str]]
    source: str


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """What a bundle's answers took on this machine.

    :ivar engine: the package that ran the graphs, and `engine_version` its version.
    :ivar precision: of the core graph.
    :ivar source: where the questions come from, in words.
    :ivar stages: by name (`tokenise`, `look_up`, `infer`, `decode`, `total`), warm.
    :ivar table_share: of the distinct tokens of a question and its context, the share whose state came out of the
        table (0 to 1, over all queries); `remembered_share` is that of unknown words whose state was remembered from
        earlier queries of the same pass. The token graph ran for the rest.
    :ivar cold_start: None if it was not asked for.
    """

    bundle: str
    bundle_bytes: int
    engine: str
    engine_version: str
    precision: str
    threads: int
    source: str
    queries: int
    questions: int
    repeat: int
    warmup: int
    stages: Mapping[str, StageLatency]
    table_share: float
    remembered_share: float
    context_tokens_median: float
    context_tokens_max: int
    question_tokens_median: float
    cold_start: ColdStart | None
    machine: Mapping[str, Any]
    notes: tuple[str, ...] = NOTES

    def to_json(self) -> str:
        """The report as JSON text, units in the names."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)


def bench_questions(
    bundle_path: str | os.PathLike[str], squad: str | os.PathLike[str] | None = None, *, limit: int = 200
) -> BenchQuestions:
    """Questions to measure with: from a SQuAD file, evenly spread over it, else the bundle's cases.

    Of the cases only those on a text of 60 words or more are taken, if there are any.

    :param squad: answers are not needed.
    :param limit: at most so many; 0 takes all. Neighbours in SQuAD share a context, so a spread sample remembers fewer
        tokens than the file read in order would.
    :raises InputError: if `limit` is negative.
    :raises DataError: if the SQuAD file cannot be used.
    :raises BundleError: if the bundle cannot be used.
    """
    if type(limit) is not int or limit < 0:
        raise InputError(f"limit is {limit!r:.40}, expected a whole number from 0")
    if squad is None:
        pairs, kind = _case_questions(bundle_path)
    else:
        pairs = [(question, context) for _, question, context, _ in load_squad_questions(squad)]
        kind = f"questions of {Path(squad).name}"
    count = len(pairs)
    if limit and limit < count:
        return BenchQuestions(
            [pairs[index * count // limit] for index in range(limit)], f"{limit} of {count} {kind}, evenly spread"
        )
    return BenchQuestions(pairs, f"{count} {kind}")


def _case_questions(bundle_path: str | os.PathLike[str]) -> tuple[list[tuple[str, str]], str]:
    every = [(case["question"], case["context"]) for case in Bundle.open(bundle_path).cases()]
    ordinary = [pair for pair in every if len(pair[1].split()) >= ORDINARY_WORDS]
    if ordinary:
        passages = len({context for _, context in ordinary})
        return ordinary, f"conformance cases of the bundle, on {passages} passages of {ORDINARY_WORDS} words or more"
    return every, f"conformance cases of the bundle, on texts below {ORDINARY_WORDS} words: ordinary ones take longer"


def measure_latency(
    bundle_path: str | os.PathLike[str],
    questions: Sequence[tuple[str, str]],
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    repeat: int = 1,
    warmup: int = 10,
    minimum: int = MINIMUM_QUERIES,
    cold_starts: int = 5,
    source: str = "questions of the caller's own",
) -> LatencyReport:
    """Answer real questions one by one and time every stage.

    :param questions: (question, context) pairs.
    :param engine: "onnx" or "tflite", and `precision` "int8", "fp16" or "fp32"; chosen as `Answerer.load` does if None.
    :param repeat: passes over the questions; each starts with no unknown word remembered.
    :param warmup: questions answered before the first pass, not counted.
    :param minimum: fewest queries (questions times passes) that are worth percentiles.
    :param cold_starts: fresh processes that are timed; 0 leaves cold start and memory out.
    :param source: where the questions come from, in words, for the report.
    :raises InputError: if there are fewer queries than `minimum`, or a number is out of range.
    :raises BundleError: if the bundle cannot be used.
    :raises EngineError: if a fresh process fails.
    """
    for name, value, least in (("repeat", repeat, 1), ("warmup", warmup, 0), ("cold_starts", cold_starts, 0)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} is {value!r:.40}, expected a whole number from {least}")
    queries = len(questions) * repeat
    if not questions or queries < minimum:
        advice = f"; give more questions, or repeat them {-(-minimum // len(questions))} times" if questions else ""
        raise InputError(
            f"{len(questions)} questions x {repeat} make {queries} queries, at least {minimum} needed{advice}"
        )

    machine = describe_machine()  # before the measurement adds to the load
    times: list[StageTimes] = []
    with Answerer.load(bundle_path, engine=engine, precision=precision, threads=threads) as answerer:
        for index in range(warmup):
            answerer.answer(*questions[index % len(questions)])
        answerer.observer = times.append
        for _ in range(repeat):
            answerer.forget()
            for question, context in questions:
                answerer.answer(question, context)
    cold_start = None
    if cold_starts:
        cold_start = measure_cold_start(
            answerer.bundle.path,
            questions,
            engine=answerer.engine,
            precision=answerer.precision,
            threads=threads,
            processes=cold_starts,
        )

    context_tokens = [time.context_tokens for time in times]
    distinct = sum(time.distinct_tokens for time in times)
    return LatencyReport(
        bundle=answerer.bundle.manifest.name,
        bundle_bytes=answerer.bundle.size_bytes,
        engine=answerer.engine_name,
        engine_version=answerer.engine_version,
        precision=answerer.precision,
        threads=threads,
        source=source,
        queries=queries,
        questions=len(questions),
        repeat=repeat,
        warmup=warmup,
        stages=summarise_stages(times),
        table_share=1 - sum(time.unknown_tokens for time in times) / distinct,
        remembered_share=sum(time.remembered_tokens for time in times) / distinct,
        context_tokens_median=float(np.median(context_tokens)),
        context_tokens_max=max(context_tokens),
        question_tokens_median=float(np.median([time.question_tokens for time in times])),
        cold_start=cold_start,
        machine=machine,
    )


def summarise_stages(times: Sequence[StageTimes]) -> dict[str, StageLatency]:
    """Percentiles (linear between neighbours) and share of each stage, `total` last.

    :param times: at least one.
    """
    columns = {stage: np.array([getattr(time, f"{stage}_ms") for time in times]) for stage in STAGES}
    whole = float(columns["total"].sum()) or 1.0
    summary = {}
    for stage, values in columns.items():
        p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
        summary[stage] = StageLatency(p50_ms=p50, p90_ms=p90, p99_ms=p99, share=float(values.sum()) / whole)
    return summary


def format_report(report: LatencyReport) -> str:
    """The report as a table for people, one string without a line end."""
    machine, plural = report.machine, "" if report.threads == 1 else "s"
    lines = [
        f"{report.bundle}: {report.bundle_bytes / 1e6:.1f} MB, {report.precision} in {report.engine}"
        f" {report.engine_version}, {report.threads} thread{plural}; {machine['cpu']}, {machine['cores']} cores,"
        f" load {machine['load_1_minute']}",
        f"{report.queries} queries ({report.questions} questions x {report.repeat}, after {report.warmup} of warm-up);"
        f" median {report.context_tokens_median:.0f} tokens of context (longest {report.context_tokens_max}),"
        f" {report.question_tokens_median:.0f} of question; {report.table_share:.0%} of the tokens in the table,"
        f" {report.remembered_share:.0%} remembered",
        f"questions: {report.source}",
        "",
        f"{'stage':<10}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'share':>8}",
    ]
    for stage, latency in report.stages.items():
        figures = "".join(f"{value:>10.2f}" for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
        lines.append(f"{stage.replace('_', ' '):<10}{figures}{latency.share:>8.1%}")
    if report.cold_start is not None:
        cold = report.cold_start
        lines += [
            "",
            f"cold start {cold.total_ms:.0f} ms, of which load {cold.load_ms:.0f} and first answer"
            f" {cold.first_answer_ms:.0f} (medians of {cold.processes} fresh processes)",
        ]
        if cold.peak_memory_bytes is not None:
            lines.append(f"peak memory {cold.peak_memory_bytes / 1e6:.0f} MB")
    return "\n".join([*lines, "", *(f"{note[0].upper()}{note[1:]}." for note in report.notes)])
