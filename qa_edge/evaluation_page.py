"""The report of an evaluation as one HTML page with its pictures inside; it loads nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from qa_edge.breakdown import Group
from qa_edge.calibration_curve import CalibrationCurve
from qa_edge.evaluation_report import (
    ADVERSARIAL_TITLE,
    CALIBRATION_TITLE,
    WITHOUT_PROBABILITY,
    EvaluationReport,
    about,
    adversarial_rule,
    calibration_sentence,
    calibration_table,
    group_table,
)
from qa_edge.html_page import html_document, inline_svg
from qa_edge.latency_chart import GRID, INK, OTHER_COLOUR, OWN_COLOUR, PALE_INK, load_matplotlib

_WIDTH = 8.6


def evaluation_page(report: EvaluationReport) -> str:
    """The page as HTML.

    :raises MissingExtraError: if Matplotlib is not installed.
    """
    parts = [f"<h1>{html.escape(report.title)}</h1>", _paragraph(report.summary)]
    if report.adversarial is not None:
        groups = report.adversarial.groups
        rule = adversarial_rule(report.adversarial)
        parts += _section(ADVERSARIAL_TITLE, rule, draw_groups(groups), "adversarial", group_table(groups))
    for breakdown in report.breakdowns:
        figure = draw_groups(breakdown.groups)
        parts += _section(breakdown.title, breakdown.rule, figure, breakdown.key, group_table(breakdown.groups))
    curve = report.calibration
    if curve is None:
        parts += [f"<h2>{CALIBRATION_TITLE}</h2>", _paragraph(WITHOUT_PROBABILITY)]
    else:
        figure = draw_calibration(curve)
        parts += _section(
            CALIBRATION_TITLE, calibration_sentence(curve), figure, "calibration", calibration_table(curve)
        )
    return html_document(report.title, parts, about(report))


def draw_groups(groups: Sequence[Group]) -> Any:
    """EM and F1 of each group as bars with their 95 % intervals, the number of questions beside the name."""
    figure = load_matplotlib()(figsize=(_WIDTH, 0.75 + 0.46 * len(groups)), facecolor="white", layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(groups))
    for name, colour, shift in (("EM", OTHER_COLOUR, -0.19), ("F1", OWN_COLOUR, 0.19)):
        values = [group.exact_match if name == "EM" else group.f1 for group in groups]
        errors = [group.exact_match_error if name == "EM" else group.f1_error for group in groups]
        axes.barh(rows + shift, values, 0.34, color=colour, label=name)
        for row, value, error in zip(rows + shift, values, errors, strict=True):
            if error is not None:
                axes.plot([value - error, min(value + error, 100)], [row, row], color=INK, lw=1)
            end = value if error is None else min(value + error, 100)
            axes.text(end + 0.9, row, f"{value:.1f}", fontsize=8, color=PALE_INK, va="center")
    axes.set_yticks(rows, [f"{group.name} ({group.questions:,})" for group in groups])
    axes.invert_yaxis()
    axes.set_xlim(0, 107)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" if tick == 100 else f"{tick}" for tick in range(0, 101, 20)])
    axes.grid(axis="x", color=GRID, lw=0.7)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    _plain_axes(axes)
    axes.tick_params(axis="y", labelcolor=INK)
    return figure


def draw_calibration(curve: CalibrationCurve) -> Any:
    """Share of right answers over their probability, and below it how many answers each bin has."""
    figure = load_matplotlib()(figsize=(_WIDTH, 5.6), facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 100], [0, 100], color=PALE_INK, lw=1, ls=":", label="as sure as right")
    likely = np.array([100 * found.probability for found in curve.bins])
    right = np.array([100 * found.right for found in curve.bins])
    low, high = _wilson(right / 100, np.array([found.questions for found in curve.bins]))
    upper.vlines(likely, 100 * low, 100 * high, color=OWN_COLOUR, lw=1, alpha=0.6)
    upper.plot(likely, right, color=OWN_COLOUR, lw=1.4, marker="o", ms=4.5, label="answers, with 95 % intervals")
    upper.set_ylim(-2, 102)
    upper.set_title("Exactly right, %", loc="left", fontsize=10, color=INK)
    upper.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=INK)
    for found in curve.bins:
        width = 100 * (found.high - found.low)
        lower.bar(100 * found.low, found.questions, 0.92 * width, align="edge", color=OTHER_COLOUR)
        middle = 100 * found.low + 0.46 * width
        lower.annotate(
            f"{found.questions:,}",
            (middle, found.questions),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7.5,
            color=PALE_INK,
            ha="center",
        )
    lower.set_ylim(0, 1.22 * max(found.questions for found in curve.bins))
    lower.set_title("Answers", loc="left", fontsize=10, color=INK)
    lower.set_xlim(-1, 101)
    lower.set_xlabel("probability of being exactly right, %", color=PALE_INK, fontsize=9)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (upper, lower):
        axes.grid(color=GRID, lw=0.7)
        _plain_axes(axes)
    return figure


def _section(
    title: str, rule: str, figure: Any, key: str, table: tuple[Sequence[str], Sequence[Sequence[str]]]
) -> list[str]:
    head, rows = table
    lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    rule = f'<p class="rule">{html.escape(rule)}</p>'
    return [f"<h2>{html.escape(title)}</h2>", rule, inline_svg(figure, key), "<table>", *lines, "</table>"]


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share (Wilson, 1927), which holds for few answers too."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - half, middle + half


def _plain_axes(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(colors=PALE_INK, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b6bcc6")
