"""Two bundles, engines or precisions against each other: every question to both in turn, and the ratio of times."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qa_edge_runtime import __version__
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.comparison_report import ComparedBundle, ComparisonReport, Ratio
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.latency import MINIMUM_QUERIES, Progress, check_queries, now_utc
from qa_edge_runtime.latency_samples import STAGES, LatencySamples
from qa_edge_runtime.machine import describe_machine, processor_frequency
from qa_edge_runtime.machine_load import LoadMeter, disturbances
from qa_edge_runtime.percentiles import POINTS, Bootstrap, by_length, interval, pass_medians, summarise_stages
from qa_edge_runtime.times import StageTimes


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A bundle and how it is run; what is None is chosen as `Answerer.load` does."""

    path: str | os.PathLike[str]
    engine: str | None = None
    precision: str | None = None
    threads: int = 1


def compare_latency(
    first: Contender,
    second: Contender,
    questions: Sequence[tuple[str, str]],
    *,
    repeat: int = 1,
    warmup: int = 10,
    minimum: int = MINIMUM_QUERIES,
    source: str = "questions of the caller's own",
    progress: Progress | None = None,
) -> ComparisonReport:
    """Ask both every question, right after each other, and divide the times of the second by those of the first.

    Who is asked first changes from question to question and from pass to pass, so that whatever disturbs the machine
    meets both alike. Each finds the processor's caches as the other left them.

    :param questions: (question, context) pairs.
    :param repeat: passes over the questions; in each both start with no unknown word remembered.
    :param warmup: questions answered by both before the first pass, not counted.
    :param minimum: fewest queries of each (questions times passes).
    :param progress: called with the queries answered so far and all that there will be, of both together.
    :raises InputError: if both are the same, there are fewer queries than `minimum`, or a number is out of range.
    :raises BundleError: if a bundle cannot be used.
    :raises MissingExtraError: if an engine is not installed.
    """
    check_queries(questions, repeat=repeat, warmup=warmup, minimum=minimum)
    machine = describe_machine()  # before the measurement adds to the load
    with _load(first) as one, _load(second) as other:
        if _identity(first, one) == _identity(second, other):
            raise InputError(
                f"both sides are {first.path} in {one.precision} in {one.engine_name} with {first.threads}"
                f" thread{'' if first.threads == 1 else 's'}: name another bundle, engine, precision or number of"
                " threads for one of them"
            )
        sides = (one, other)
        times: tuple[list[StageTimes], list[StageTimes]] = ([], [])
        processor: tuple[list[float], list[float]] = ([], [])
        for index in range(warmup):
            for answerer in sides:
                answerer.answer(*questions[index % len(questions)])
        for answerer, observed in zip(sides, times, strict=True):
            answerer.observer = observed.append
        same, done, whole = 0, 0, 2 * len(questions) * repeat
        meter = LoadMeter()
        for number in range(repeat):
            for answerer in sides:
                answerer.forget()
            began, own_began = time.perf_counter(), time.process_time()
            for index, (question, context) in enumerate(questions):
                order = (0, 1) if (number + index) % 2 == 0 else (1, 0)
                answers = []
                for side in order:
                    own = time.process_time()
                    answers.append(sides[side].answer(question, context))
                    processor[side].append(time.process_time() - own)
                same += (answers[0].start, answers[0].end) == (answers[1].start, answers[1].end)
                done += 2
                if progress is not None:
                    progress(done, whole)
            meter.tight_loop(time.perf_counter() - began, time.process_time() - own_began)
            machine.update(processor_frequency())
        load = meter.read(threads=max(first.threads, second.threads))
    numbers = [number for number in range(repeat) for _ in questions]
    indices = [index for _ in range(repeat) for index in range(len(questions))]
    samples = [LatencySamples.of(observed, pass_number=numbers, question=indices) for observed in times]
    ratios = samples[1].total_ms / samples[0].total_ms
    bootstrap = Bootstrap(samples[0].pass_number, samples[0].question)
    ratio = float(np.median(ratios))
    # Threads that wait in a loop use it up, and some systems count it in steps longer than a query.
    countable = first.threads == second.threads == 1 and min(map(min, processor)) > 0
    own_ratios = np.array(processor[1]) / np.array(processor[0]) if countable else None
    own_ratio = None if own_ratios is None else float(np.median(own_ratios))
    of_passes = pass_medians(ratios, samples[0].pass_number)
    return ComparisonReport(
        created=now_utc(),
        runtime_version=__version__,
        warnings=disturbances(load, machine, of_passes, noun="ratios"),
        first=_compared(first, one, samples[0]),
        second=_compared(second, other, samples[1]),
        source=source,
        queries=len(questions) * repeat,
        questions=len(questions),
        repeat=repeat,
        warmup=warmup,
        ratio=ratio,
        ratio_interval=interval(bootstrap.percentiles(ratios, (50,))[:, 0], ratio),
        processor_ratio=own_ratio,
        processor_ratio_interval=None
        if own_ratios is None or own_ratio is None
        else interval(bootstrap.percentiles(own_ratios, (50,))[:, 0], own_ratio),
        ratios=_ratios(samples[0], samples[1], bootstrap),
        passes_ratio=of_passes,
        same_answers=same / len(numbers),
        machine=machine,
        load=load,
    )


def _load(contender: Contender) -> Answerer:
    return Answerer.load(
        contender.path, engine=contender.engine, precision=contender.precision, threads=contender.threads
    )


def _identity(contender: Contender, answerer: Answerer) -> tuple[Path, str, str, int]:
    return Path(contender.path).resolve(), answerer.engine, answerer.precision, contender.threads


def _compared(contender: Contender, answerer: Answerer, samples: LatencySamples) -> ComparedBundle:
    return ComparedBundle(
        bundle=answerer.bundle.manifest.name,
        file=Path(contender.path).resolve().name,
        bundle_bytes=answerer.bundle.size_bytes,
        engine=answerer.engine_name,
        engine_version=answerer.engine_version,
        precision=answerer.precision,
        threads=contender.threads,
        stages=summarise_stages(samples),
        by_length=by_length(samples),
        samples=samples,
    )


def _ratios(first: LatencySamples, second: LatencySamples, bootstrap: Bootstrap) -> tuple[Ratio, ...]:
    """Of every stage's median, and of all three percentiles of the whole."""
    found = []
    for stage in STAGES:
        points = POINTS if stage == "total" else POINTS[:1]
        times = (first.stage_ms(stage), second.stage_ms(stage))
        resampled = [bootstrap.percentiles(values, points) for values in times]
        for column, point in enumerate(points):
            below, above = (float(np.percentile(values, point)) for values in times)
            if below <= 0 or not (resampled[0][:, column] > 0).all():  # a clock too coarse for this stage
                continue
            ratio = above / below
            spread = interval(resampled[1][:, column] / resampled[0][:, column], ratio)
            found.append(Ratio(stage=stage, point=point, ratio=ratio, interval=spread))
    return tuple(found)
