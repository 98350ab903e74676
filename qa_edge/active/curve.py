"""Learning curves as a picture: score against the share of questions that were labelled."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from qa_edge.latency_chart import GRID, INK, PALE_INK, check_chart_path, load_matplotlib
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

CURVE = "curve.json"
ALL = "all labels"
_COLOURS = ("#5f6b7a", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207")
_METRICS = {"exact_match": "exact match", "f1": "F1"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A strategy's scores at one share of the labels: their mean and range over the seeds, no confidence interval."""

    share: float
    mean: float
    lowest: float
    highest: float
    seeds: int


def read_curves(loops: Sequence[str | Path], metric: str) -> dict[str, list[Point]]:
    """Points of every strategy, those of loops that differ in their seed alone taken together by share.

    Loops of one strategy that differ in something else, such as a teacher's and a student's, are curves of their own,
    by strategy and folder. Loops that begin with all labels are the fully supervised score, `ALL`.

    :param loops: folders that `run_loop` wrote.
    :param metric: "exact_match" or "f1".
    :raises DataError: if one is no such folder, or has no cycle with scores, or they are of different pools or scored
        on different questions.
    """
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, folders in _named(loops).items():
        for loop in folders:
            curve = read_json(loop / CURVE, "learning curve")
            try:
                for cycle in curve["cycles"]:
                    # The shares of two seeds are the same but for rounding.
                    found[name][round(float(cycle["share"]), 4)].append(float(cycle["scores"][metric]))
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


def _named(loops: Sequence[str | Path]) -> dict[str, list[Path]]:
    """Folders of the loops that differ in their seed alone, by the name of their curve; the same seed counts once."""
    groups: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    inputs: dict[str, Any] | None = None
    for loop in map(Path, loops):
        recipe = read_recipe(loop)
        try:
            settings = dict(recipe["loop"])
            own = {name: (found["sha256"], Path(found["path"]).name) for name, found in recipe["inputs"].items()}
            strategy, seed = str(settings.pop("strategy")), int(settings.pop("seed"))
            # One that begins with everything chooses nothing.
            if settings["first"] == 1:
                strategy = ALL
            same = json.dumps([settings, recipe["learner"]], sort_keys=True)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{loop / RECIPE} is not one of a loop ({error}); run qa-edge active there") from error
        for name in sorted(inputs.keys() & own.keys()) if inputs is not None else ():
            if inputs is not None and inputs[name][0] != own[name][0]:
                raise DataError(
                    f"{loop} has another {name} file ({own[name][1]}, SHA-256 {own[name][0][:12]}) than the loop "
                    f"before it ({inputs[name][1]}, {inputs[name][0][:12]}): their scores cannot be compared"
                )
        inputs = own
        groups[strategy, same].setdefault(seed, loop)
    several = {strategy for strategy, _ in groups if sum(one == strategy for one, _ in groups) > 1}
    return {
        f"{strategy}, {next(iter(seeds.values())).name}" if strategy in several else strategy: list(seeds.values())
        for (strategy, _), seeds in groups.items()
    }


def draw_curves(loops: Sequence[str | Path], path: str | Path) -> None:
    """Write exact match and F1 of some loops as PNG or SVG, the fully supervised score as a line across.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises InputError: if the suffix is another one.
    :raises DataError: if a loop cannot be read, or the file not be written.
    """
    check_chart_path(path)
    figure = load_matplotlib()(figsize=(11, 5.6), dpi=150, facecolor="white", layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), _METRICS.items(), strict=True):
        _draw(axes, read_curves(loops, metric), title)
    try:
        figure.savefig(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name another path") from error


def _draw(axes: Any, curves: dict[str, list[Point]], title: str) -> None:
    levels = {name: points[-1].mean for name, points in curves.items() if name.startswith(ALL)}
    curves = {name: points for name, points in curves.items() if name not in levels}
    whole = [(point.mean, point.seeds) for points in curves.values() for point in points if point.share == 1]
    if whole and not levels:
        # Those that were labelled to the end, whatever chose the order.
        levels[ALL] = sum(mean * seeds for mean, seeds in whole) / sum(seeds for _, seeds in whole)
    for name, level in levels.items():
        axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"{name}: {level:.2f}")
    for number, (strategy, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        shares = [100 * point.share for point in points]
        fewest, seeds = min(point.seeds for point in points), max(point.seeds for point in points)
        number_of_seeds = str(seeds) if fewest == seeds else f"{fewest} to {seeds}"
        name = f"{strategy} ({number_of_seeds} seeds: mean, lowest to highest)" if seeds > 1 else f"{strategy} (1 seed)"
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
    # Below, where no curve can run through it.
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.13))
