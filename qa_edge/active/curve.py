"""Learning curves of loops: which of them differ in their seed alone, their means, and a picture of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from qa_edge.latency_chart import GRID, INK, PALE_INK, check_chart_path, load_matplotlib
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import digest, read_recipe
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

CURVE = "curve.json"
ALL = "all labels"
_COLOURS = ("#5f6b7a", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207")
_DASHES = ((4, 3), (1, 2), (8, 3))
_METRICS = {"exact_match": "exact match", "f1": "F1"}
# Settings that change no score.
_IDLE = ("log_every", "save_every", "max_steps")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop as far as it has come.

    :ivar strategy: by name; `ALL` of one that begins with all labels, and so chooses nothing.
    :ivar pace: how the labels grow: the first batch, the others, of what they are shares.
    :ivar settings: hash of all else that decides its scores but the seed: learner, start and data.
    :ivar pool: questions of which the shares are.
    :ivar points: share of the labels to the scores there.
    """

    folder: Path
    recipe: Mapping[str, Any]
    strategy: str
    seed: int
    pace: tuple[Any, ...]
    settings: str
    pool: int
    points: Mapping[float, Mapping[str, Any]]

    @property
    def kind(self) -> str:
        """What a model of each cycle is: `teacher` (an encoder that is fine-tuned) or `student`."""
        return str(self.recipe["learner"]["kind"])


@dataclass(frozen=True, kw_only=True)
class Point:
    """A strategy's scores at one share of the labels: their mean and range over the seeds, no confidence interval.

    :ivar by_seed: each score by its loop's seed.
    """

    share: float
    mean: float
    lowest: float
    highest: float
    seeds: int
    by_seed: Mapping[str, float]


def read_loop(folder: str | Path) -> Loop:
    """A loop of a folder that `run_loop` wrote.

    :raises DataError: if it is no such folder, or its curve cannot be read.
    """
    folder = Path(folder)
    recipe = read_recipe(folder)
    try:
        loop, learner = recipe["loop"], recipe["learner"]
        everything = loop["first"] == 1
        decided = {"inputs": recipe["inputs"], "learner": learner, "start": loop["start"]}
        decided["sentence_encoder"] = recipe.get("sentence_encoder")
        strategy, seed, kind = ALL if everything else str(loop["strategy"]), int(loop["seed"]), learner["kind"]
        pace = () if everything else tuple(loop[name] for name in ("first", "step", "step_of"))
        settings = digest({**decided, "kind": kind}, without=_IDLE)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / RECIPE} is not one of a loop ({error}); run qa-edge active there") from error
    curve = read_json(folder / CURVE, "learning curve")
    try:
        cycles = curve["cycles"]
        # The shares of two seeds are the same but for rounding.
        points = {round(float(cycle["share"]), 4): dict(cycle["scores"]) for cycle in cycles}
        pool = round(cycles[-1]["questions"] / cycles[-1]["share"]) if cycles else 0
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{folder} has no learning curve ({error}); run qa-edge active there") from error
    return Loop(
        folder=folder,
        recipe=recipe,
        strategy=strategy,
        seed=seed,
        pace=pace,
        settings=settings,
        pool=pool,
        points=points,
    )


def group_seeds(loops: Sequence[Loop]) -> list[list[Loop]]:
    """Loops that differ in their seed alone, together; of the same seed the one that has come farthest."""
    groups: dict[tuple[Any, ...], dict[int, Loop]] = defaultdict(dict)
    for loop in loops:
        seeds = groups[loop.strategy, loop.pace, loop.settings]
        if loop.seed not in seeds or len(loop.points) > len(seeds[loop.seed].points):
            seeds[loop.seed] = loop
    return [list(seeds.values()) for seeds in groups.values()]


def mean_points(loops: Sequence[Loop], metric: str) -> list[Point]:
    """Mean and range of some loops, which differ in their seed alone, by share, in order.

    :param metric: "exact_match" or "f1".
    :raises DataError: if a loop has no such scores.
    """
    found: dict[float, dict[str, float]] = defaultdict(dict)
    for loop in loops:
        for share, scores in loop.points.items():
            if metric not in scores:
                raise DataError(f"{loop.folder} has no learning curve with {metric}; run qa-edge active there")
            found[share][str(loop.seed)] = float(scores[metric])
    return [
        Point(
            share=share,
            mean=fmean(by_seed.values()),
            lowest=min(by_seed.values()),
            highest=max(by_seed.values()),
            seeds=len(by_seed),
            by_seed=by_seed,
        )
        for share, by_seed in sorted(found.items())
    ]


def read_curves(loops: Sequence[str | Path], metric: str) -> dict[str, list[Point]]:
    """Points of every strategy, those of loops that differ in their seed alone taken together by share.

    Loops of one strategy that differ in something else, such as a teacher's and a student's, are curves of their own,
    by strategy and folder. Loops that begin with all labels are the fully supervised score, `ALL`.

    :param loops: folders that `run_loop` wrote.
    :param metric: "exact_match" or "f1".
    :raises DataError: if one is no such folder, or has no cycle with scores, or they are of different pools or scored
        on different questions.
    """
    return {name: mean_points(found, metric) for name, found in _named(loops).items()}


def _named(loops: Sequence[str | Path]) -> dict[str, list[Loop]]:
    """Loops that differ in their seed alone by the name of their curve.

    :raises DataError: as `read_curves`.
    """
    found = [read_loop(folder) for folder in loops]
    for before, loop in pairwise(found):
        first, own = before.recipe["inputs"], loop.recipe["inputs"]
        for name in sorted(first.keys() & own.keys()):
            if first[name]["sha256"] != own[name]["sha256"]:
                raise DataError(
                    f"{loop.folder} has another {name} file ({_file(own[name])}) than the loop before it"
                    f" ({_file(first[name])}): their scores cannot be compared"
                )
    groups = [group for group in group_seeds(found) if any(loop.points for loop in group)]
    if not groups:
        raise DataError("no cycle has been trained yet; run qa-edge active first")
    strategies = [group[0].strategy for group in groups]
    several = {strategy for strategy in strategies if strategies.count(strategy) > 1}
    folders = _told_apart([group[0].folder for group in groups])
    return {
        f"{strategy}, {folder}" if strategy in several else strategy: group
        for strategy, folder, group in zip(strategies, folders, groups, strict=True)
    }


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """Names of folders, and the whole path of those whose name another has."""
    names = [folder.name for folder in folders]
    return [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]


def _file(found: Mapping[str, Any]) -> str:
    return f"{Path(found['path']).name}, SHA-256 {found['sha256'][:12]}"


def draw_curves(loops: Sequence[str | Path], path: str | Path) -> None:
    """Write exact match and F1 of some loops as PNG or SVG, the fully supervised score as a line across.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises InputError: if the suffix is another one.
    :raises DataError: if a loop cannot be read, or the file not be written.
    """
    check_chart_path(path)
    figure = load_matplotlib()(figsize=(11, 5.6), dpi=150, facecolor="white", layout="constrained")
    named = _named(loops)
    for axes, (metric, title) in zip(figure.subplots(1, 2), _METRICS.items(), strict=True):
        _draw(axes, named, metric, title)
    try:
        figure.savefig(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name another path") from error


def draw_points(axes: Any, points: Sequence[Point], colour: str, name: str) -> None:
    """A curve of the means, and over several seeds a band from the lowest to the highest."""
    shares = [100 * point.share for point in points]
    axes.plot(shares, [point.mean for point in points], color=colour, lw=1.6, marker="o", ms=4, label=name)
    if any(point.seeds > 1 for point in points):
        low, high = [point.lowest for point in points], [point.highest for point in points]
        axes.fill_between(shares, low, high, color=colour, alpha=0.18, lw=0)


def _draw(axes: Any, named: Mapping[str, Sequence[Loop]], metric: str, title: str) -> None:
    levels = _levels([loop for loops in named.values() for loop in loops], metric)
    for number, (name, level) in enumerate(levels.items()):
        dashes = _DASHES[number % len(_DASHES)]
        axes.axhline(level, color=INK, linewidth=1, linestyle=(0, dashes), label=f"{name}: {level:.2f}")
    curves = {name: loops for name, loops in named.items() if loops[0].strategy != ALL}
    for number, (strategy, loops) in enumerate(curves.items()):
        points = mean_points(loops, metric)
        fewest, seeds = min(point.seeds for point in points), max(point.seeds for point in points)
        number_of_seeds = str(seeds) if fewest == seeds else f"{fewest} to {seeds}"
        name = f"{strategy} ({number_of_seeds} seeds: mean, lowest to highest)" if seeds > 1 else f"{strategy} (1 seed)"
        draw_points(axes, points, _COLOURS[number % len(_COLOURS)], name)
    axes.set_title(title, color=INK, loc="left")
    axes.set_xlabel("labelled questions, % of the pool", color=PALE_INK)
    axes.grid(color=GRID)
    axes.tick_params(colors=PALE_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # Below, where no curve can run through it.
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.13))


def _levels(loops: Sequence[Loop], metric: str) -> dict[str, float]:
    """The fully supervised score of each sort of learner by name, since a teacher's and a student's have no mean.

    It is that of the loops that begin with all labels, else of those that were labelled to the end, whatever chose the
    order.
    """
    sorts: dict[str, list[Loop]] = defaultdict(list)
    for loop in loops:
        if 1 in loop.points:
            sorts[loop.settings].append(loop)
    whole = [[loop for loop in own if loop.strategy == ALL] or own for own in sorts.values()]
    folders = _told_apart([own[0].folder for own in whole])
    return {
        ALL if len(whole) == 1 else f"{ALL}, {folder}": fmean(float(one.points[1][metric]) for one in own)
        for own, folder in zip(whole, folders, strict=True)
    }
