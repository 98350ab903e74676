"""The report of a comparison: what it holds, its form as JSON, and any report out of its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.latency_report import (
    FORMAT_VERSION,
    LatencyReport,
    check_machine,
    check_stages,
    read_latency_report,
    read_report_content,
)
from qa_edge_runtime.latency_samples import STAGES, LatencySamples
from qa_edge_runtime.machine_load import MachineLoad
from qa_edge_runtime.percentiles import POINTS, LengthBin, StageLatency
from qa_edge_runtime.report_json import report_from_content, report_to_json

NOTES = (
    "times run from the caller's two strings to the answer's characters; loading is not in them",
    "both answer each question right after each other, the other one first the next time; each finds the processor's"
    " caches as the other left them, which makes both slower than alone: quote the ratio, not the times",
    "every pass over the questions starts with no state of an unknown word remembered and remembers as it goes",
    "in brackets where the figure lies with 95 % confidence, were other questions of the kind asked in other passes",
)


@dataclass(frozen=True, kw_only=True)
class ComparedBundle:
    """One side of a comparison.

    :ivar file: the bundle's name on disk.
    :ivar engine: the package that ran the graphs, and `engine_version` its version.
    :ivar precision: of the core graph.
    """

    bundle: str
    file: str
    bundle_bytes: int
    engine: str
    engine_version: str
    precision: str
    threads: int
    stages: Mapping[str, StageLatency]
    by_length: tuple[LengthBin, ...]
    samples: LatencySamples


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A percentile (`point`) of the second side divided by that of the first, with its interval of 95 %."""

    stage: str
    point: int
    ratio: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """What two sides took for the same questions on this machine.

    :ivar warnings: what makes the figures not worth quoting, a sentence each.
    :ivar queries: answered by each side.
    :ivar ratio: median over the queries of the second side's time divided by the first's, and its interval of 95 %;
        below 1 the second is faster.
    :ivar processor_ratio: the same of the processor's own time, which what else runs on the machine lengthens less;
        None with more than one thread, or where the system counts it too coarsely.
    :ivar ratios: of the percentiles of stages.
    :ivar passes_ratio: the median ratio of every pass.
    :ivar same_answers: share of queries to which both gave the same characters (0 to 1).
    :ivar machine: as `describe_machine` says before the first query; its frequency is that after the last.
    """

    kind: ClassVar[str] = "comparison"

    created: str
    runtime_version: str
    warnings: tuple[str, ...]
    first: ComparedBundle
    second: ComparedBundle
    source: str
    queries: int
    questions: int
    repeat: int
    warmup: int
    ratio: float
    ratio_interval: tuple[float, float]
    processor_ratio: float | None
    processor_ratio_interval: tuple[float, float] | None
    ratios: tuple[Ratio, ...]
    passes_ratio: tuple[float, ...]
    same_answers: float
    machine: Mapping[str, Any]
    load: MachineLoad
    notes: tuple[str, ...] = NOTES

    def to_json(self) -> str:
        """The report as JSON text, units in the names."""
        return report_to_json(self, format_version=FORMAT_VERSION, kind=self.kind)


def side_names(report: ComparisonReport) -> tuple[str, str]:
    """What tells the two sides from each other, in few words."""
    sides = (report.first, report.second)
    if sides[0].bundle != sides[1].bundle:
        parts = [[side.bundle] for side in sides]
    elif sides[0].file != sides[1].file:
        parts = [[side.file] for side in sides]
    else:
        parts = [[], []]
    for values in zip(
        *((side.precision, side.engine, f"{side.threads} thread{'' if side.threads == 1 else 's'}") for side in sides),
        strict=True,
    ):
        if values[0] != values[1]:
            for part, value in zip(parts, values, strict=True):
                part.append(value)
    first, second = (" ".join(part) for part in parts)
    return (first, second) if first else (f"{sides[0].bundle} (first)", f"{sides[1].bundle} (second)")


def read_report(path: str | os.PathLike[str]) -> LatencyReport | ComparisonReport:
    """A report that bench wrote, on this machine or another.

    :raises DataError: if it is not there, is no report, one of another format, or lacks an entry.
    """
    content = read_report_content(path)
    if content["kind"] == LatencyReport.kind:
        return read_latency_report(path, content)
    if content["kind"] != ComparisonReport.kind:
        raise DataError(f"report {path} is of kind {content['kind']!r:.40}, expected latency or comparison")
    try:
        report = report_from_content(ComparisonReport, content)
        for name, side in (("first", report.first), ("second", report.second)):
            check_stages(side.stages, f"{name}.stages")
        check_machine(report.machine)
        if min(report.ratio, *report.ratio_interval) <= 0:
            raise DataError("ratio is not above 0")
        for entry in report.ratios:
            if entry.stage not in STAGES or entry.point not in POINTS:
                raise DataError(f"ratios holds p{entry.point} of {entry.stage!r:.40}, expected one of a stage")
        if not report.passes_ratio:
            raise DataError("passes_ratio is empty, expected a number for each pass")
    except DataError as error:
        raise DataError(f"report {path}: {error}; measure again") from error
    return report
