"""What an export wrote and found, for a program and for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qa_edge_export.probability import ProbabilityReport
from qa_edge_export.verify import Verification

ENOUGH_QUESTIONS = 1_000


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote and found.

    :ivar files: size in bytes of each file of the bundle, the manifest apart.
    :ivar words: rows of the token table, picked from `text`.
    :ivar graphs: comparison of each core graph with the trained student, by file, on exact token states; empty if there
        was no reference.
    :ivar bundle: the same of the bundle as a device loads it, table and unknown words included.
    :ivar probability: the fitted probability of being right, None if there were too few questions.
    :ivar cases: conformance cases in the bundle.
    :ivar graph_seconds: time that writing the graphs took (calibration included), of `seconds` in all.
    """

    path: Path
    files: Mapping[str, int]
    words: int
    text: str
    graphs: Mapping[str, Verification]
    bundle: Verification | None
    probability: ProbabilityReport | None
    cases: int
    graph_seconds: float
    seconds: float

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def format_report(report: ExportReport) -> str:
    """The report as a table for a person; MB is 10^6 bytes."""
    lines = [
        str(report.path),
        f"  {'file':<20} {'MB':>7}  {'equal spans':>14}  {'difference':>10}  {'EM':>6}  {'F1':>6}",
    ]
    for name, size in sorted(report.files.items()):
        lines.append(f"  {name:<20} {size / 1e6:>7.3f}{_figures(report.graphs.get(name))}".rstrip())
    lines.append(f"  {'in all':<20} {report.size_bytes / 1e6:>7.3f}{_figures(report.bundle)}".rstrip())
    if report.bundle is None:
        lines.append("  not verified: there was no trained student to compare with")
    elif report.bundle.reference_scores is not None:
        scores = report.bundle.reference_scores
        lines.append(
            f"  the trained student on the same {scores.total:,} questions: EM {scores.exact_match:.2f},"
            f" F1 {scores.f1:.2f}"
        )
    if report.bundle is not None and report.bundle.questions < ENOUGH_QUESTIONS:
        lines.append(f"  a difference in F1 on fewer than {ENOUGH_QUESTIONS:,} questions says little")
    if report.probability is not None:
        lines.append(f"  {report.probability}")
    lines.append(f"  {report.words:,} words of {report.text}, {report.cases} conformance cases")
    lines.append(f"  {report.seconds:.1f} s, of which writing the graphs {report.graph_seconds:.1f} s")
    return "\n".join(lines)


def _figures(found: Verification | None) -> str:
    if found is None:
        return ""
    text = f"  {found.equal_spans:>6} of {found.questions:<4}  {found.largest_difference:>10.2e}"
    if found.scores is not None:
        text += f"  {found.scores.exact_match:>6.2f}  {found.scores.f1:>6.2f}"
    return text
