"""The whole report of an evaluation: totals, groups, altered questions, calibration; as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qa_edge.adversarial import AdversarialScores, adversarial_scores
from qa_edge.breakdown import Breakdown, Group, break_down, group_scores
from qa_edge.calibration_curve import CalibrationCurve, calibration_curve
from qa_edge.question_scores import QuestionScores
from qa_edge.squad import Squad

FORMAT_VERSION = 1
ADVERSARIAL_TITLE = "Altered questions against their originals"
CALIBRATION_TITLE = "How far the probability can be believed"
WITHOUT_PROBABILITY = "Nothing: only a bundle with a fitted probability says how sure it is of an answer."


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What a system scores on a data set, and where it gains and loses.

    :ivar system: name of what answered, and `data` that of the data set's file.
    :ivar data_sha256: hash of that file.
    :ivar unanswered: questions without an answer, each of which scores 0.
    :ivar adversarial: None where no question is an altered one.
    :ivar calibration: None where answers have no probability.
    """

    system: str
    data: str
    data_sha256: str
    total: Group
    unanswered: int
    breakdowns: tuple[Breakdown, ...]
    adversarial: AdversarialScores | None
    calibration: CalibrationCurve | None

    @property
    def title(self) -> str:
        """What was scored on what."""
        return f"{self.system} on {self.data}"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def to_json(self) -> str:
        """The report for a program."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """The report for a person, without pictures."""
        parts = [f"# {_plain(self.title)}", self.summary]
        if self.adversarial is not None:
            parts += [f"## {ADVERSARIAL_TITLE}", adversarial_rule(self.adversarial)]
            parts.append(_markdown(*group_table(self.adversarial.groups)))
        for breakdown in self.breakdowns:
            parts += [f"## {breakdown.title}", breakdown.rule, _markdown(*group_table(breakdown.groups))]
        parts.append(f"## {CALIBRATION_TITLE}")
        if self.calibration is None:
            parts.append(WITHOUT_PROBABILITY)
        else:
            parts += [calibration_sentence(self.calibration), _markdown(*calibration_table(self.calibration))]
        parts += [_plain(about(self))]
        return "\n\n".join(parts) + "\n"

    @property
    def summary(self) -> str:
        """The totals in a sentence."""
        total = self.total
        lacking = f" {self.unanswered:,} of them have no answer, which scores 0." if self.unanswered else ""
        return (
            f"Exact match {_score(total.exact_match, total.exact_match_error)},"
            f" F1 {_score(total.f1, total.f1_error)} on {_questions(total.questions)}.{lacking}"
        )


def evaluation_report(
    squad: Squad,
    scores: QuestionScores,
    *,
    system: str,
    data: str,
    probabilities: Mapping[str, float] | None = None,
) -> EvaluationReport:
    """Take the scores of a system apart.

    :param squad: the data that was scored.
    :param probabilities: of being exactly right, by question id, where the system has them.
    :raises InputError: if a scored question is not in the data.
    """
    return EvaluationReport(
        system=system,
        data=data,
        data_sha256=squad.sha256,
        total=group_scores("all", scores.exact, scores.f1),
        unanswered=scores.unanswered,
        breakdowns=break_down(squad, scores),
        adversarial=adversarial_scores(scores),
        calibration=calibration_curve(scores, probabilities or {}),
    )


def group_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of groups, as text."""
    rows = [
        [
            group.name,
            f"{group.questions:,}",
            _score(group.exact_match, group.exact_match_error),
            _score(group.f1, group.f1_error),
        ]
        for group in groups
    ]
    return ["", "questions", "EM", "F1"], rows


def calibration_table(curve: CalibrationCurve) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of bins, as text, in per cent."""
    rows = [
        [
            f"{100 * found.low:.0f}-{100 * found.high:.0f}",
            f"{found.questions:,}",
            f"{100 * found.probability:.1f}",
            f"{100 * found.right:.1f}",
        ]
        for found in curve.bins
    ]
    return ["probability, %", "answers", "mean probability, %", "exactly right, %"], rows


def calibration_sentence(curve: CalibrationCurve) -> str:
    """The curve in a sentence."""
    return (
        f"The answers have a mean probability of {100 * curve.probability:.1f} % of being exactly right, and"
        f" {100 * curve.right:.1f} % of {curve.questions:,} are; expected calibration error"
        f" {curve.expected_calibration_error:.3f}."
    )


def adversarial_rule(found: AdversarialScores) -> str:
    """What the groups are, and how many right answers survive every alteration."""
    rule = (
        "Of the altered forms of a question the worst is the one with the lowest F1, the best the one with the highest."
    )
    if found.kept is None:
        return rule
    return (
        f"{rule} Of the originals that were altered and are exactly right, {found.kept:.1f} % are so in every altered"
        " form too."
    )


def about(report: EvaluationReport) -> str:
    """What the numbers mean, in a sentence or two."""
    return (
        f"Scores are those of SQuAD v1.1's official script, in per cent; {_PLUS_MINUS}. Data: {report.data},"
        f" SHA-256 {report.data_sha256 or 'unknown'}."
    )


_PLUS_MINUS = "± is half of the 95 % interval, which fewer than 30 questions do not have, nor such as all score alike"


def _score(value: float, error: float | None) -> str:
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def _questions(count: int) -> str:
    return f"{count:,} question{'' if count == 1 else 's'}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def _plain(name: str) -> str:
    """A file's name in one line in which Markdown finds no markup."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in line)
