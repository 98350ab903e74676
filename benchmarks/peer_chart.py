"""Latency against size as a picture, both axes logarithmic, every point labelled beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from peer_report import KINDS, PeerReport, Row
from qa_edge_runtime.errors import DataError, MissingExtraError

PEER_COLOUR, OWN_COLOUR = "#5f6b7a", "#c2410c"
MARKERS = {"fp32": "o", "fp16": "^", "int8": "s"}
ENGINES = {"onnxruntime": "ORT", "ai-edge-litert": "LiteRT", "tflite-runtime": "tflite-runtime"}
# Where a label may stand: angles in degrees, first those that read best, at growing distances in points.
ANGLES = (0, 180, 90, 270, 35, 325, 145, 215, 65, 295, 115, 245)
DISTANCES = (7, 14, 24, 36, 50, 66)
# Along a line, where it is looked at.
_PARTS = [step / 24 for step in range(25)]


def load_pyplot() -> Any:
    """Matplotlib's pyplot, drawing into files.

    :raises MissingExtraError: if Matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("the chart needs Matplotlib: pip install matplotlib, or pass --no-chart") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def chart_rows(report: PeerReport) -> list[Row]:
    """The rows that are drawn: the longest inputs, end to end if that was measured, else the network alone."""
    kind = next(kind for kind in reversed(KINDS) if any(row.kind == kind for row in report.rows))
    rows = [row for row in report.rows if row.kind == kind]
    longest = max(row.length for row in rows)
    return [row for row in rows if row.length == longest]


def draw_chart(report: PeerReport, path: str | os.PathLike[str]) -> None:
    """Write the chart as PNG.

    :raises MissingExtraError: if Matplotlib is not installed.
    :raises DataError: if the file cannot be written.
    """
    pyplot = load_pyplot()
    rows = chart_rows(report)
    figure, axes = pyplot.subplots(figsize=(10, 6.5), dpi=150)
    for model in dict.fromkeys(_model(row) for row in rows):
        # The precisions of one model, and of ours in one engine, hang together.
        same = sorted((row for row in rows if _model(row) == model), key=_size)
        axes.plot([_size(row) for row in same], [row.median_ms for row in same], color="#d5d9e0", lw=1, zorder=1)
    for row in rows:
        axes.scatter(
            _size(row),
            row.median_ms,
            s=42,
            marker=MARKERS.get(row.precision, "D"),
            color=OWN_COLOUR if row.ours else PEER_COLOUR,
            edgecolor="white",
            linewidth=0.7,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.13)
    axes.xaxis.set_major_formatter(_plain)
    axes.yaxis.set_major_formatter(_plain)
    ticks = [digit * 10**power for power in range(-2, 5) for digit in (1, 2, 5)]
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_ticks([tick for tick in ticks if limits[0] <= tick <= limits[1]])
        axis.set_ticks([], minor=True)
    axes.grid(color="#e8eaee", lw=0.7)
    axes.set_axisbelow(True)
    network = rows[0].kind == "network"
    axes.set_xlabel("graph's file, MB (log)" if network else "model, tokenizer and tables on the device, MB (log)")
    axes.set_ylabel(f"{rows[0].kind}, {rows[0].length} tokens: median ms (log)")
    subtitle = f"{report.machine['cpu']}, 1 thread, batch 1; the peers' weights are random: latency only"
    axes.set_title("Latency against size\n", loc="left", fontsize=12, fontweight="bold")
    axes.text(0, 1.015, subtitle, transform=axes.transAxes, fontsize=8.5, color="#444b55")
    for precision, marker in MARKERS.items():
        if any(row.precision == precision for row in rows):
            axes.scatter([], [], marker=marker, s=42, facecolor="none", edgecolor="#2b323b", label=precision)
    for name, colour, ours in (("peers", PEER_COLOUR, False), ("qa-edge", OWN_COLOUR, True)):
        if any(row.ours == ours for row in rows):
            axes.plot([], [], color=colour, lw=6, label=name)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    figure.tight_layout()
    _place_labels(figure, axes, rows)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot.close(figure)


def _size(row: Row) -> float:
    return (row.model_bytes if row.kind == "network" else row.device_bytes) / 1e6


def _plain(value: float, position: int) -> str:
    return f"{value:g}"


def _place_labels(figure: Any, axes: Any, rows: Sequence[Row]) -> None:
    """A label beside each point, at the first place where it covers no point and no other label."""
    renderer = figure.canvas.get_renderer()
    legend = axes.get_legend().get_window_extent(renderer)
    scale = figure.dpi / 72
    points = [tuple(axes.transData.transform((_size(row), row.median_ms))) for row in rows]
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in points]
    taken.append((legend.x0, legend.y0, legend.x1, legend.y1))
    inside = axes.get_window_extent(renderer)
    for row, (x, y) in zip(rows, points, strict=True):
        label = axes.annotate(
            _label(row, rows),
            xy=(_size(row), row.median_ms),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8,
            color=OWN_COLOUR if row.ours else "#2b323b",
            zorder=4,
        )
        extent = label.get_window_extent(renderer)
        width, height = extent.width, extent.height
        free = []
        for distance, angle in ((d, a) for d in DISTANCES for a in ANGLES):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The label's nearest edge, not its middle, keeps the distance.
            left = x + dx * (distance * scale + width / 2) - width / 2
            low = y + dy * (distance * scale + height / 2) - height / 2
            box = (left, low, left + width, low + height)
            within = box[0] > inside.x0 and box[1] > inside.y0 and box[2] < inside.x1 and box[3] < inside.y1
            if within and not any(overlap(box, other) for other in taken):
                free.append(box)
        # Best where no other point is nearer to the label than its own; else a line has to say whose it is.
        own = [box for box in free if math.dist((x, y), _nearest(box, (x, y))) <= _to_others(box, (x, y), points)]
        clear = [box for box in free if not _crosses((x, y), _nearest(box, (x, y)), taken)] if not own else []
        beside = (x + 7 * scale, y, x + 7 * scale + width, y + height)
        box = (own or clear or free or [beside])[0]
        taken.append(box)
        label.set_position(((box[0] - x) / scale, (box[1] - y) / scale))
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4})
        if not own or math.dist((x, y), _nearest(box, (x, y))) > DISTANCES[1] * scale:
            near = axes.transData.inverted().transform(_nearest(box, (x, y)))
            colour = OWN_COLOUR if row.ours else PEER_COLOUR
            axes.plot([_size(row), near[0]], [row.median_ms, near[1]], color=colour, lw=0.6, zorder=2)


def _to_others(
    box: tuple[float, float, float, float], point: tuple[float, float], points: Sequence[tuple[float, float]]
) -> float:
    """Distance from a box to the nearest of the points that is not `point`."""
    return min((math.dist(other, _nearest(box, other)) for other in points if other != point), default=math.inf)


def _crosses(
    start: tuple[float, float], end: tuple[float, float], boxes: Sequence[tuple[float, float, float, float]]
) -> bool:
    """Whether the line from a point to its label goes over a label, or over a point that is not where it starts."""
    steps = [(start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])) for part in _PARTS]
    return any(
        any(box[0] < px < box[2] and box[1] < py < box[3] for px, py in steps)
        for box in boxes
        if not (box[0] < start[0] < box[2] and box[1] < start[1] < box[3])
    )


def _nearest(box: tuple[float, float, float, float], point: tuple[float, float]) -> tuple[float, float]:
    """The place in a box that is nearest to a point."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _model(row: Row) -> tuple[str, str]:
    return row.name, row.detail if row.ours else ""


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Name and precision, and the engine where a model of ours runs in more than one."""
    engines = {other.detail for other in rows if other.name == row.name}
    engine = f" {ENGINES.get(row.detail.split()[0], row.detail)}" if row.ours and len(engines) > 1 else ""
    return f"{row.name} {row.precision}{engine}"


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, low, right, high) share more than an edge."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
