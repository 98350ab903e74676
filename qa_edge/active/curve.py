"""Learning curves as a picture: score against the share of questions that were labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from qa_edge.latency_chart import GRID, INK, PALE_INK, check_chart_path, load_matplotlib
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

_COLOURS = ("#5f6b7a", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207")
_METRICS = {"exact_match": "exact match", "f1": "F1"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A strategy's scores at one share of the labels, over its seeds."""

    share: float
    mean: float
    lowest: float
    highest: float
    seeds: int


def read_curves(loops: Sequence[str | Path], metric: str) -> dict[str, list[Point]]:
    """Points of every strategy, those of several loops with it taken together by share.

    :param loops: folders that `run_loop` wrote.
    :param metric: "exact_match" or "f1".
    :raises DataError: if one is no such folder, or has no cycle with scores.
    """
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for loop in loops:
        curve = read_json(Path(loop) / "curve.json", "learning curve")
        try:
            for cycle in curve["cycles"]:
                # Loops of a strategy differ in seed alone: their shares are the same but for rounding.
                found[str(curve["strategy"])][round(float(cycle["share"]), 4)].append(float(cycle["scores"][metric]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{loop} has no learning curve with {metric} ({error}); run qa-edge active there"
            ) from error
    if not found:
        raise DataError("no cycle has been trained yet; run qa-edge active first")
    return {
        strategy: [
            Point(share=share, mean=fmean(values), lowest=min(values), highest=max(values), seeds=len(values))
            for share, values in sorted(points.items())
        ]
        for strategy, points in found.items()
    }


def draw_curves(loops: Sequence[str | Path], path: str | Path) -> None:
    """Write exact match and F1 of some loops as PNG or SVG, the fully supervised score as a line across.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises InputError: if the suffix is another one.
    :raises DataError: if a loop cannot be read, or the file not be written.
    """
    check_chart_path(path)
    figure = load_matplotlib()(figsize=(11, 4.8), dpi=150, facecolor="white", layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), _METRICS.items(), strict=True):
        _draw(axes, read_curves(loops, metric), title)
    try:
        figure.savefig(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name another path") from error


def _draw(axes: Any, curves: dict[str, list[Point]], title: str) -> None:
    # Those that are labelled whole, whatever chose the order.
    whole = [(point.mean, point.seeds) for points in curves.values() for point in points if point.share == 1]
    if whole:
        level = sum(mean * seeds for mean, seeds in whole) / sum(seeds for _, seeds in whole)
        axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"all labels: {level:.2f}")
    for number, (strategy, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        shares = [100 * point.share for point in points]
        seeds = max(point.seeds for point in points)
        name = f"{strategy} ({seeds} seeds: mean, lowest to highest)" if seeds > 1 else strategy
        axes.plot(shares, [point.mean for point in points], color=colour, marker="o", markersize=4, label=name)
        if seeds > 1:
            low, high = [point.lowest for point in points], [point.highest for point in points]
            axes.fill_between(shares, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_title(title, color=INK, loc="left")
    axes.set_xlabel("labelled questions, % of the pool", color=PALE_INK)
    axes.grid(color=GRID)
    axes.tick_params(colors=PALE_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
