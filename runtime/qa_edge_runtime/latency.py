"""End-to-end latency on real questions: a tight loop and a paced one, cold start, memory, and what disturbed them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np

from qa_edge_runtime import __version__
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.cold_start import measure_cold_start
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.latency_report import LatencyReport, PacedLatency
from qa_edge_runtime.latency_samples import LatencySamples
from qa_edge_runtime.machine import describe_machine, processor_frequency
from qa_edge_runtime.machine_load import LoadMeter, disturbances
from qa_edge_runtime.percentiles import Bootstrap, by_length, interval, pass_medians, summarise_stages
from qa_edge_runtime.times import StageTimes

# Below a hundred queries p99 is no more than the slowest one.
MINIMUM_QUERIES = 100
MOST_PACED_MS = 60_000
# Where nobody says how often: so many passes that their difference can be seen, and queries enough for p99.
_USUAL_PASSES = 5
_USUAL_QUERIES = 500

Progress = Callable[[int, int], None]


def usual_passes(questions: int) -> int:
    """Passes over so many questions: 5, or enough for 500 queries."""
    return max(_USUAL_PASSES, -(-_USUAL_QUERIES // max(1, questions)))


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
    paced_ms: float = 0.0,
    cold_starts: int = 5,
    source: str = "questions of the caller's own",
    progress: Progress | None = None,
) -> LatencyReport:
    """Answer real questions one by one and time every stage.

    :param questions: (question, context) pairs; a context may be longer than one window.
    :param engine: "onnx" or "tflite", and `precision` "int8", "fp16" or "fp32"; chosen as `Answerer.load` does if None.
    :param repeat: passes over the questions; each starts with no unknown word remembered.
    :param warmup: questions answered before the first pass, not counted.
    :param minimum: fewest queries (questions times passes) that are worth percentiles.
    :param paced_ms: idle time before each of `minimum` more queries, which are asked between the passes, some after
        each; 0 leaves them out.
    :param cold_starts: fresh processes that are timed; 0 leaves cold start and memory out.
    :param source: where the questions come from, in words, for the report.
    :param progress: called with the queries answered so far and all that there will be.
    :raises InputError: if there are fewer queries than `minimum`, or a number is out of range.
    :raises BundleError: if the bundle cannot be used.
    :raises EngineError: if a fresh process fails.
    """
    check_queries(questions, repeat=repeat, warmup=warmup, minimum=minimum)
    if type(cold_starts) is not int or cold_starts < 0:
        raise InputError(f"cold_starts is {cold_starts!r:.40}, expected a whole number from 0")
    if type(paced_ms) not in (int, float) or not 0 <= paced_ms <= MOST_PACED_MS:
        raise InputError(f"paced_ms is {paced_ms!r:.40}, expected milliseconds from 0 to {MOST_PACED_MS:,}")
    queries, count = len(questions) * repeat, len(questions)
    paced_queries = minimum if paced_ms else 0
    report_progress = progress or (lambda done, whole: None)

    machine = describe_machine()  # before the measurement adds to the load
    tight, paced = _Timed(), _Timed()
    with Answerer.load(bundle_path, engine=engine, precision=precision, threads=threads) as answerer:
        for index in range(warmup):
            answerer.answer(*questions[index % count])
        meter = LoadMeter()
        for number in range(repeat):
            answerer.observer = tight.times.append
            answerer.forget()
            began, own_began = time.perf_counter(), time.process_time()
            for index, (question, context) in enumerate(questions):
                answerer.answer(question, context)
                tight.place(number, index)
                report_progress(len(tight.times) + len(paced.times), queries + paced_queries)
            meter.tight_loop(time.perf_counter() - began, time.process_time() - own_began)
            machine.update(processor_frequency())
            answerer.observer = paced.times.append
            answerer.forget()
            for query in range(number, paced_queries, repeat):
                index = query * count // paced_queries if paced_queries < count else query % count
                time.sleep(paced_ms / 1e3)
                answerer.answer(*questions[index])
                paced.place(number, index)
                report_progress(len(tight.times) + len(paced.times), queries + paced_queries)
        load = meter.read(threads=threads)
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

    samples = tight.samples()
    distinct = sum(time.distinct_tokens for time in tight.times)
    medians = pass_medians(samples.total_ms, samples.pass_number)
    return LatencyReport(
        created=now_utc(),
        runtime_version=__version__,
        warnings=disturbances(load, machine, medians),
        bundle=answerer.bundle.manifest.name,
        bundle_bytes=answerer.bundle.size_bytes,
        engine=answerer.engine_name,
        engine_version=answerer.engine_version,
        precision=answerer.precision,
        threads=threads,
        source=source,
        queries=queries,
        questions=count,
        repeat=repeat,
        warmup=warmup,
        stages=summarise_stages(samples),
        passes_p50_ms=medians,
        paced=_summarise_paced(paced.samples(), samples, float(paced_ms)) if paced.times else None,
        by_length=by_length(samples),
        table_share=1 - sum(time.unknown_tokens for time in tight.times) / distinct,
        remembered_share=sum(time.remembered_tokens for time in tight.times) / distinct,
        context_tokens_median=float(np.median(samples.context_tokens)),
        context_tokens_max=int(samples.context_tokens.max()),
        question_tokens_median=float(np.median(samples.question_tokens)),
        cold_start=cold_start,
        machine=machine,
        load=load,
        samples=samples,
    )


def check_queries(questions: Sequence[tuple[str, str]], *, repeat: int, warmup: int, minimum: int) -> None:
    """Refuse what makes no measurement.

    :raises InputError: if there are fewer queries than `minimum`, or a number is out of range.
    """
    for name, value, least in (("repeat", repeat, 1), ("warmup", warmup, 0), ("minimum", minimum, 1)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} is {value!r:.40}, expected a whole number from {least}")
    queries = len(questions) * repeat
    if not questions or queries < minimum:
        advice = f"; give more questions, or repeat them {-(-minimum // len(questions))} times" if questions else ""
        raise InputError(
            f"{len(questions)} questions x {repeat} make {queries} queries, at least {minimum} needed{advice}"
        )


def now_utc() -> str:
    """The date and time, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class _Timed:
    """Queries as they are observed, with their pass and question."""

    def __init__(self) -> None:
        self.times: list[StageTimes] = []
        self._places: list[tuple[int, int]] = []

    def place(self, pass_number: int, question: int) -> None:
        """Say which query the last times are of."""
        self._places.append((pass_number, question))

    def samples(self) -> LatencySamples:
        """All of them."""
        return LatencySamples.of(
            self.times,
            pass_number=[number for number, _ in self._places],
            question=[index for _, index in self._places],
        )


def _summarise_paced(paced: LatencySamples, tight: LatencySamples, gap_ms: float) -> PacedLatency:
    """Paced queries beside the same questions in the tight loop."""
    usual = {
        int(question): np.median(tight.total_ms[tight.question == question]) for question in np.unique(paced.question)
    }
    ratios = paced.total_ms / np.array([usual[int(question)] for question in paced.question])
    ratio = float(np.median(ratios))
    resampled = Bootstrap(paced.pass_number, paced.question).percentiles(ratios, (50,))
    return PacedLatency(
        gap_ms=gap_ms,
        queries=len(paced),
        stages=summarise_stages(paced),
        ratio=ratio,
        ratio_interval=interval(resampled[:, 0], ratio),
        samples=paced,
    )
