"""The report of one bundle's latency: what it holds, and its form as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from qa_edge_runtime.cold_start import ColdStart
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json
from qa_edge_runtime.latency_samples import STAGES, LatencySamples
from qa_edge_runtime.machine_load import MachineLoad
from qa_edge_runtime.percentiles import LengthBin, StageLatency
from qa_edge_runtime.report_json import report_from_content, report_to_json

FORMAT_VERSION = 1
MACHINE_ENTRIES = ("cpu", "cores", "usable_cores", "governor", "mhz", "max_mhz", "load_1_minute")
NOTES = (
    "warm times run from the caller's two strings to the answer's characters; loading is not in them",
    "every pass over the questions starts with no state of an unknown word remembered and remembers as it goes; the"
    " tokenizer keeps the chunks that it has seen, and the system the rows of the table that it has read",
    "in brackets where the figure lies with 95 % confidence, were other questions of the kind asked in other passes",
    "cold start is a fresh process to its end: interpreter, imports, checking and loading the bundle, one answer; the"
    " system had the files in memory",
    "peak memory is the largest of the fresh processes', one of which answered the longest question and context",
)


@dataclass(frozen=True, kw_only=True)
class PacedLatency:
    """Queries after an idle time each, as an app has them; taken in turn with the passes of the tight loop.

    :ivar gap_ms: slept before each query.
    :ivar ratio: median over the queries of their time divided by the median time of the same question in the tight
        loop, and its interval of 95 %.
    """

    gap_ms: float
    queries: int
    stages: Mapping[str, StageLatency]
    ratio: float
    ratio_interval: tuple[float, float]
    samples: LatencySamples


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """What a bundle's answers took on this machine.

    :ivar created: when, as ISO 8601 in UTC.
    :ivar warnings: what makes the times not worth quoting, a sentence each.
    :ivar engine: the package that ran the graphs, and `engine_version` its version.
    :ivar precision: of the core graph.
    :ivar source: where the questions come from, in words.
    :ivar stages: by name (`tokenise`, `look_up`, `infer`, `decode`, `total`), warm, of the tight loop.
    :ivar passes_p50_ms: the median of whole queries in every pass.
    :ivar paced: None if it was not asked for.
    :ivar by_length: whole queries of the tight loop by tokens of context.
    :ivar table_share: of the distinct tokens of a question and its context, the share whose state came out of the
        table (0 to 1, over all queries); `remembered_share` is that of unknown words whose state was remembered from
        earlier queries of the same pass. The token graph ran for the rest.
    :ivar cold_start: None if it was not asked for.
    :ivar machine: as `describe_machine` says before the first query; its frequency is that after the last.
    :ivar load: what else ran between the first query and the last.
    :ivar samples: every query of the tight loop.
    """

    kind: ClassVar[str] = "latency"

    created: str
    runtime_version: str
    warnings: tuple[str, ...]
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
    passes_p50_ms: tuple[float, ...]
    paced: PacedLatency | None
    by_length: tuple[LengthBin, ...]
    table_share: float
    remembered_share: float
    context_tokens_median: float
    context_tokens_max: int
    question_tokens_median: float
    cold_start: ColdStart | None
    machine: Mapping[str, Any]
    load: MachineLoad
    notes: tuple[str, ...] = NOTES
    samples: LatencySamples

    def to_json(self) -> str:
        """The report as JSON text, units in the names."""
        return report_to_json(self, format_version=FORMAT_VERSION, kind=self.kind)


def read_report_content(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Parsed JSON of a report that bench wrote, its format and kind checked and nothing else.

    :raises DataError: if it is not there, is no report, or one of a format that this version does not read.
    """
    content = read_json(path, "report")
    if not isinstance(content, dict) or not {"format_version", "kind", "machine"} <= content.keys():
        raise DataError(f"{path} is not a report; expected the JSON that bench writes")
    version = content["format_version"]
    if version != FORMAT_VERSION:
        raise DataError(
            f"report {path} has format {version!r:.40}, this version reads {FORMAT_VERSION}: measure again, or take the"
            " version that wrote it"
        )
    return content


def read_latency_report(path: str | os.PathLike[str], content: Mapping[str, Any]) -> LatencyReport:
    """The report of one bundle.

    :param path: for messages, where `content` was read by `read_report_content`.
    :raises DataError: if an entry is missing or of another type.
    """
    try:
        report = report_from_content(LatencyReport, content)
        check_stages(report.stages, "stages")
        if report.paced is not None:
            check_stages(report.paced.stages, "paced.stages")
        check_machine(report.machine)
        if not report.passes_p50_ms:
            raise DataError("passes_p50_ms is empty, expected a number for each pass")
        if report.cold_start is not None and not report.cold_start.totals_ms:
            raise DataError("cold_start.totals_ms is empty, expected a number for each process")
    except DataError as error:
        raise DataError(f"report {path}: {error}; measure again") from error
    return report


def check_stages(stages: Mapping[str, StageLatency], where: str) -> None:
    """Refuse a report without one of the stages.

    :raises DataError: naming them.
    """
    if tuple(stages) != STAGES:
        raise DataError(f"{where} names {', '.join(stages) or 'none'}, expected {', '.join(STAGES)}")


def check_machine(machine: Mapping[str, Any]) -> None:
    """Refuse a description of a machine that lacks what tables show.

    :raises DataError: naming the first entry that is missing.
    """
    for name in MACHINE_ENTRIES:
        if name not in machine:
            raise DataError(f"machine.{name} is missing")
