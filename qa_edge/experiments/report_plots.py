"""Pictures of the report: Figure 7, the learning curves of Tables 4 and 5, the differences of an experiment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qa_edge.active.curve import Loop, draw_points, mean_points
from qa_edge.experiments.paper import figure_7, paper_tables
from qa_edge.experiments.report import PaperReport
from qa_edge.latency_chart import INK, OTHER_COLOUR, OWN_COLOUR, PALE_INK, load_matplotlib, plain_axes

_WIDTH = 8.6
_COLOURS = (OTHER_COLOUR, OWN_COLOUR, "#1d4ed8", "#15803d", "#7e22ce")
_NO_WORD = re.compile("[^a-zA-Z0-9-]")
_METRICS = (("exact_match", "EM"), ("f1", "F1"))


def report_figures(report: PaperReport) -> dict[str, Any]:
    """Every picture that the runs suffice for, by its key; Figure 7 is there without any, with the paper's bars.

    :raises MissingExtraError: if Matplotlib is not installed.
    """
    figures = {"figure-7": draw_figure_7(report)}
    if report.loops:
        figures["curves"] = draw_curves(report.loops)
    for found in report.experiments:
        figure = draw_differences(found)
        if figure is not None:
            figures[picture_key(found)] = figure
    return figures


def picture_key(found: Mapping[str, Any]) -> str:
    """Of an experiment's picture: one for each place below the runs, fit to name a file, an id and a link."""
    place = _NO_WORD.sub(lambda sign: f"_{ord(sign[0]):x}_", str(found["place"]))
    return f"experiment-{place}"


def draw_figure_7(report: PaperReport) -> Any:
    """F1 and EM before and after distillation, the paper's bars beside those of the runs."""
    rows, table = report.figure_rows, paper_tables()[figure_7().table]
    figure = load_matplotlib()(figsize=(_WIDTH, 3.4), facecolor="white", layout="constrained")
    columns = figure.subplots(1, 2, sharey=True)
    for place, (axes, heading) in enumerate(zip(columns, table.headings, strict=True)):
        for number, row in enumerate(rows):
            cell = row.cells[place]
            for shift, value, colour in ((-0.19, cell.paper, OTHER_COLOUR), (0.19, cell.here, OWN_COLOUR)):
                if value is None:
                    axes.text(number + shift, 1.5, "not run", fontsize=8, color=PALE_INK, ha="center", rotation=90)
                    continue
                axes.bar(number + shift, value, 0.34, color=colour)
                axes.text(number + shift, value + 1, f"{value:.2f}", fontsize=8, color=PALE_INK, ha="center")
        axes.set_xticks(range(len(rows)), [row.name.split(" (")[0] for row in rows])
        axes.set_title(heading, loc="left", fontsize=10, color=INK)
        axes.set_ylim(0, 100)
        plain_axes(axes, "y")
        axes.tick_params(axis="x", labelcolor=INK)
    # Not of the bars themselves: a row that has not been run has none.
    for name, colour in (("the paper", OTHER_COLOUR), ("these runs", OWN_COLOUR)):
        columns[0].bar(0, 0, color=colour, label=name)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw_curves(loops: Sequence[Loop]) -> Any:
    """EM and F1 over the share of the labels, each strategy in a colour: these runs solid, the paper's dotted."""
    figure = load_matplotlib()(figsize=(_WIDTH, 4.2), facecolor="white", layout="constrained")
    for axes, (metric, name), number in zip(figure.subplots(1, 2), _METRICS, ("4", "5"), strict=True):
        table = paper_tables()[number]
        for place, (strategy, heading) in enumerate(zip(table.columns, table.headings, strict=True)):
            own = [loop for loop in loops if loop.strategy == strategy]
            if not own:
                continue
            colour = _COLOURS[place % len(_COLOURS)]
            printed = [(100 * float(row.key), row.values[place]) for row in table.rows]
            axes.plot(*zip(*printed, strict=True), color=colour, lw=1, ls=":", alpha=0.8)
            draw_points(
                axes, mean_points(own, metric), colour, heading if len(own) == 1 else f"{heading}, {len(own)} seeds"
            )
        axes.plot([], [], color=PALE_INK, lw=1, ls=":", label="the paper")
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.set_xlabel("labelled questions, %", color=PALE_INK, fontsize=9)
        axes.set_xlim(0, 101)
        axes.legend(loc="lower right", frameon=False, fontsize=8, labelcolor=INK)
        plain_axes(axes, "both")
    return figure


def draw_differences(results: Mapping[str, Any]) -> Any | None:
    """Each variant's difference from the baseline with its 95 % interval, and a stroke for each of several seeds.

    None without two variants to compare.
    """
    tests = [key for key in results["tests"] if any(key in one["difference"] for one in results["variants"])]
    variants = [one for one in results["variants"] if any(key in one["difference"] for key in tests)]
    if not variants:
        return None
    height = 1.0 + 0.42 * len(variants)
    figure = load_matplotlib()(figsize=(_WIDTH, height * len(tests)), facecolor="white", layout="constrained")
    columns = figure.subplots(len(tests), 1, squeeze=False)[:, 0]
    baseline = next(one for one in results["variants"] if one["name"] == results["baseline"])
    for axes, key in zip(columns, tests, strict=True):
        for (metric, name), colour, shift in zip(_METRICS, (OTHER_COLOUR, OWN_COLOUR), (-0.16, 0.16), strict=True):
            for row, variant in enumerate(variants):
                found = variant["difference"].get(key)
                if found is None:
                    continue
                test, place = found[metric], row + shift
                axes.plot([100 * test["low"], 100 * test["high"]], [place, place], color=colour, lw=1.6)
                label = name if row == 0 else None
                axes.plot(100 * test["difference"], place, marker="o", ms=5, color=colour, ls="", label=label)
                if len(found["by_seed"]) > 1:
                    seeds = [100 * one[metric]["difference"] for one in found["by_seed"].values()]
                    axes.plot(seeds, [place] * len(seeds), marker="|", ms=7, mew=1.2, color=colour, ls="")
        axes.axvline(0, color=INK, lw=1)
        axes.set_yticks(range(len(variants)), [variant["said"] for variant in variants])
        axes.invert_yaxis()
        test = results["tests"][key]
        title = f"Points more than {baseline['said']}: {test['total']:,} questions of {test['on']}"
        if any(len(one["difference"].get(key, {}).get("by_seed", ())) > 1 for one in variants):
            title += "; strokes are seeds"
        axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
        axes.legend(loc="best", frameon=False, fontsize=9, labelcolor=INK)
        plain_axes(axes, "x")
        axes.tick_params(axis="y", labelcolor=INK)
    return figure
