"""A latency report as a picture: the distribution on the left, time against the context's length on the right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np

from qa_edge_runtime.comparison_report import ComparisonReport, side_names
from qa_edge_runtime.errors import DataError, InputError, MissingExtraError
from qa_edge_runtime.files import check_output_file
from qa_edge_runtime.latency_report import LatencyReport
from qa_edge_runtime.latency_samples import LatencySamples
from qa_edge_runtime.percentiles import LengthBin

SUFFIXES = (".png", ".svg")
OWN_COLOUR, OTHER_COLOUR, INK, PALE_INK, GRID = "#c2410c", "#5f6b7a", "#2b323b", "#444b55", "#e8eaee"
WARNING_COLOUR = "#b91c1c"
# Of all queries the slowest hundredth would squeeze the others into a corner.
_SHOWN_SHARE = 99
_MOST_BINS = 48
# A bin of lengths with fewer queries has no p90.
_FEWEST_IN_BIN = 10
# Lengths that differ by more than this are told on a logarithmic axis.
_LINEAR_SPAN = 30


class Series(NamedTuple):
    """Queries that are drawn in one colour."""

    name: str
    samples: LatencySamples
    by_length: Sequence[LengthBin]
    colour: str


def check_chart_path(path: str | os.PathLike[str]) -> None:
    """Refuse, before anything is measured, a path that no chart could be written to.

    :raises InputError: if its suffix is neither .png nor .svg.
    :raises DataError: if it is a folder, or its folder is not there or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"ends with {suffix!r}" if suffix else "has no suffix"
        raise InputError(f"chart {path} {found}, expected {' or '.join(SUFFIXES)}")
    check_output_file(path)


def load_matplotlib() -> Any:
    """Matplotlib's figure class, which draws into files without a window.

    :raises MissingExtraError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('charts need Matplotlib: pip install "qa-edge[chart]"') from error
    return Figure


def draw_report(report: LatencyReport | ComparisonReport, path: str | os.PathLike[str]) -> None:
    """Write the chart as PNG or SVG, by the suffix.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises InputError: if the suffix is another one.
    :raises DataError: if the file cannot be written.
    """
    check_chart_path(path)
    figure = load_matplotlib()(figsize=(12, 5.6), dpi=150, facecolor="white")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.78, bottom=0.125, wspace=0.14)
    if isinstance(report, ComparisonReport):
        series, title, lines = _comparison(report)
    else:
        series, title, lines = _latency(report)
    _draw_distribution(left, series)
    # The paced queries are told by their distribution; their few points would hide the others.
    _draw_lengths(right, [one for one in series if one.by_length])
    # Names may hold a dollar sign, which is no formula.
    figure.text(0.055, 0.945, title, fontsize=14, fontweight="bold", color=INK, parse_math=False)
    for row, line in enumerate(lines):
        figure.text(0.055, 0.9 - 0.042 * row, line, fontsize=9, color=PALE_INK, parse_math=False)
    if report.warnings:
        note = f"Not worth quoting: {'; '.join(report.warnings)}."
        figure.text(0.055, 0.02, shorten(note, 185), fontsize=8.5, color=WARNING_COLOUR)
    try:
        figure.savefig(path, format=Path(path).suffix.lower()[1:])
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name another path") from error


def _latency(report: LatencyReport) -> tuple[list[Series], str, list[str]]:
    tight = Series("tight loop", report.samples, report.by_length, OWN_COLOUR)
    facts = [f"{report.bundle_bytes / 1e6:.1f} MB on disk"]
    if report.cold_start is not None:
        facts.append(f"cold start {report.cold_start.total_ms:.0f} ms")
        if report.cold_start.peak_memory_bytes is not None:
            facts.append(f"peak memory {report.cold_start.peak_memory_bytes / 1e6:.0f} MB")
    series = [tight]
    if report.paced is not None:
        series.append(Series(f"after {report.paced.gap_ms:g} ms of rest", report.paced.samples, (), OTHER_COLOUR))
    total = report.stages["total"]
    title = f"{report.bundle} {report.precision}: {_ms(total.p50_ms)} ms from question and text to answer (median)"
    return (
        series,
        title,
        [
            f"{report.engine} {report.engine_version}, {_threads(report.threads)}, {report.machine['cpu']};"
            f" {', '.join(facts)}",
            f"{report.queries:,} queries: {report.source}",
        ],
    )


def _comparison(report: ComparisonReport) -> tuple[list[Series], str, list[str]]:
    sides, names = (report.first, report.second), side_names(report)
    colours = (OTHER_COLOUR, OWN_COLOUR)
    series = [
        Series(name, side.samples, side.by_length, colour)
        for name, side, colour in zip(names, sides, colours, strict=True)
    ]
    slower, faster, ratio, (low, high) = names[1], names[0], report.ratio, report.ratio_interval
    if ratio < 1:
        slower, faster, ratio, low, high = faster, slower, 1 / ratio, 1 / high, 1 / low
    lines = [
        "; ".join(
            f"{side.bundle} {side.precision} in {side.engine} {side.engine_version}, {_threads(side.threads)},"
            f" {side.bundle_bytes / 1e6:.1f} MB"
            for side in sides
        ),
        f"{report.machine['cpu']}; {report.queries:,} queries of each, in turn: {report.source}",
    ]
    if report.first.bundle == report.second.bundle:
        same = report.first.precision == report.second.precision
        about = f"{report.first.bundle}{f' {report.first.precision}' if same else ''}: "
    else:
        about = ""
    return series, f"{about}{faster} is {ratio:.2f} ({low:.2f}-{high:.2f}) times as fast as {slower}", lines


def _draw_distribution(axes: Any, series: Sequence[Series]) -> None:
    """Shares of queries by time, the percentiles in a row for each series above; the slowest queries are counted."""
    end = 1.08 * max(float(np.percentile(one.samples.total_ms, _SHOWN_SHARE)) for one in series)
    # Few queries in narrow bins would look like a comb.
    bins = int(np.clip(2 * np.sqrt(min(len(one.samples) for one in series)), 12, _MOST_BINS))
    edges = np.linspace(0, end, bins + 1)
    top = 0.0
    for place, one in enumerate(series):
        shares = 100 * np.histogram(one.samples.total_ms, bins=edges)[0] / len(one.samples)
        top = max(top, float(shares.max()))
        if place == 0:
            axes.stairs(shares, edges, color=one.colour, fill=True, alpha=0.28, lw=0)
        axes.stairs(shares, edges, color=one.colour, lw=1.4, label=_label(one.name))
    row = 0.12 * top
    for place, one in enumerate(series):
        height = top + row * (len(series) - place - 0.35)
        times = [float(np.percentile(one.samples.total_ms, point)) for point in (50, 90, 99)]
        axes.plot(times, [height] * 3, color=one.colour, lw=1.2, marker="o", ms=4, zorder=3)
        free = -np.inf
        for point, time in zip((50, 90, 99), times, strict=True):
            label = f"p{point} {_ms(time)}"
            begin = max(time, free)
            axes.text(begin, height + 0.3 * row, label, fontsize=8.5, color=one.colour, va="center")
            free = begin + 0.0165 * end * len(label)
    left_out = sum(int((one.samples.total_ms > end).sum()) for one in series)
    axes.set_xlim(0, end * 1.08)
    axes.set_ylim(0, top + row * (len(series) + 0.35))
    slower = f" (not shown: {left_out} slower)" if left_out else ""
    axes.set_xlabel(f"ms of a query{slower}", color=PALE_INK)
    axes.set_title("How long a query takes: % of the queries", loc="left", fontsize=10.5, color=INK)
    if len(series) > 1:
        _legend(axes, "center right")
    plain_axes(axes)


def _draw_lengths(axes: Any, series: Sequence[Series]) -> None:
    """Every query over the tokens of its context, and p50 and p90 of each bin of lengths."""
    longest = max(int(one.samples.context_tokens.max()) for one in series)
    for one in series:
        tokens, times = one.samples.context_tokens, one.samples.total_ms
        axes.scatter(tokens, times, s=7, color=one.colour, alpha=0.22, linewidth=0, rasterized=True)
        bins = [found for found in one.by_length if found.queries >= _FEWEST_IN_BIN] or one.by_length
        middles = [
            float(np.median(tokens[(tokens >= found.from_tokens) & (tokens <= found.to_tokens)])) for found in bins
        ]
        for point, style in ((50, "-"), (90, "--")):
            heights = [found.p50_ms if point == 50 else found.p90_ms for found in bins]
            name = _label(f"{one.name} p{point}" if len(series) > 1 else f"p{point}")
            axes.plot(middles, heights, color=one.colour, lw=1.6, ls=style, marker="o", ms=3.5, label=name)
    limit = max(
        max(max(found.p90_ms for found in one.by_length), float(np.percentile(one.samples.total_ms, _SHOWN_SHARE)))
        for one in series
    )
    left_out = sum(int((one.samples.total_ms > 1.15 * limit).sum()) for one in series)
    axes.set_ylim(0, 1.15 * limit)
    shortest = min(int(one.samples.context_tokens.min()) for one in series)
    if longest > _LINEAR_SPAN * max(1, shortest):
        axes.set_xscale("log")
        ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
        shown = [tick for tick in ticks if shortest <= tick <= longest]
        axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(0, longest * 1.04)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    slower = f" (not shown: {left_out} slower queries)" if left_out else ""
    axes.set_xlabel(f"tokens of the context{slower}", color=PALE_INK)
    axes.set_title("Time against length: ms", loc="left", fontsize=10.5, color=INK)
    axes.yaxis.set_major_formatter("{x:,.5g}")
    _legend(axes, "upper left")
    plain_axes(axes)


def _legend(axes: Any, place: str) -> None:
    legend = axes.legend(loc=place, frameon=False, fontsize=9, handlelength=2.8, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)


def plain_axes(axes: Any, grid: str = "both") -> None:
    """Thin grid lines behind what is drawn, in the directions `grid`, and no frame but the line below."""
    axes.grid(axis=grid, color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=PALE_INK, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b6bcc6")


def _label(name: str) -> str:
    """As legends show it: they leave out what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _ms(time: float) -> str:
    return f"{time:.0f}" if time >= 100 else f"{time:.1f}" if time >= 10 else f"{time:.2f}"


def _threads(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"
