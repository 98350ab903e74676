"""What came out: medians and ratios as JSON with every sample, and as Markdown tables that say what each time holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from contenders import Contender, Heat
    from interleave import Samples

REFERENCES = (("BERT-base", "fp32"), ("TinyBERT 4", "int8"))
KINDS = ("network", "end to end")
# Clock over processor time from which on the table says that the machine was busy.
BUSY = 1.1


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender's times by the clock: `samples_ms` holds one for each round, in order.

    :ivar cpu_median_ms: median of the processor's own time: below `median_ms` if other work came between.
    """

    name: str
    ours: bool
    precision: str
    detail: str
    kind: str
    length: int
    parameters: int | None
    model_bytes: int
    device_bytes: int
    median_ms: float
    min_ms: float
    p90_ms: float
    cpu_median_ms: float
    samples_ms: tuple[float, ...]

    @classmethod
    def of(cls, contender: Contender, samples: Samples) -> Row:
        """The row of a contender that was timed once or more."""
        fields = (name for name in cls.__dataclass_fields__ if not name.endswith("_ms"))
        return cls(
            **{name: getattr(contender, name) for name in fields},
            median_ms=float(np.median(samples.wall_ms)),
            min_ms=float(min(samples.wall_ms)),
            p90_ms=float(np.percentile(samples.wall_ms, 90)),
            cpu_median_ms=float(np.median(samples.cpu_ms)),
            samples_ms=tuple(round(sample, 4) for sample in samples.wall_ms),
        )


@dataclass(frozen=True, kw_only=True)
class PeerReport:
    """A whole run.

    :ivar texts: what the end-to-end times were taken on; None if they were not taken.
    :ivar machine: as `qa_edge_runtime.machine.describe_machine` tells it, with the load after the run.
    """

    date: str
    rounds: int
    rows: tuple[Row, ...]
    heats: tuple[Heat, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    arguments: Mapping[str, Any]
    texts: Mapping[str, Any] | None = None
    threads: int = 1
    batch: int = 1
    weights_of_peers: str = "random: their times say nothing about accuracy"
    format_version: int = field(default=1)

    def to_json(self) -> str:
        """The report as JSON, rows first reduced to one line each so that a difference can be read."""
        content = asdict(self)
        rows, heats = content.pop("rows"), content.pop("heats")
        parts = [json.dumps(content, indent=1, ensure_ascii=False)[:-2]]
        for name, items in (("heats", heats), ("rows", rows)):
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in items)
            parts.append(f' "{name}": [\n  {lines}\n ]')
        return ",\n".join(parts) + "\n}\n"


def ratio_to(rows: Sequence[Row], row: Row, reference: tuple[str, str]) -> float | None:
    """How many times faster than the reference of the same kind and length, by medians; None if that did not run."""
    for other in rows:
        if (other.name, other.precision) == reference and (other.kind, other.length) == (row.kind, row.length):
            return other.median_ms / row.median_ms if not other.ours else None
    return None


def busy_ratio(rows: Sequence[Row]) -> float:
    """Clock time over processor time, the median of all contenders: 1 on a machine that does nothing else."""
    return float(np.median([row.median_ms / row.cpu_median_ms for row in rows if row.cpu_median_ms > 0] or [1.0]))


def format_tables(report: PeerReport) -> str:
    """Both tables as Markdown with their captions, without a line end."""
    machine = report.machine
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, {report.threads} thread, batch {report.batch};"
        f" {', '.join(f'{name} {version}' for name, version in report.versions.items())}; {report.date}."
        f" Load {machine['load_1_minute']} before and {machine['load_1_minute_after']} after."
        f" Medians of {report.rounds} interleaved rounds: each round runs every contender once, in random order."
        f" **The peers have random weights: latency only, nothing here says how well they answer.** Of each peer and"
        f" precision the fastest of three exports counts (raw; graph optimiser; graph optimiser without"
        f" SkipLayerNormalization); int8 is dynamic quantisation of these."
    )
    busy = busy_ratio(report.rows)
    if busy > BUSY:
        head += (
            f" **The machine was busy with other work: calls took {busy:.1f} times the processor time that they used**"
            " (`cpu_median_ms` in the JSON); measure again when it is quiet."
        )
    parts = [head]
    for kind in KINDS:
        rows = [row for row in report.rows if row.kind == kind]
        if rows:
            parts += [_caption(kind, report), _table(rows)]
    return "\n\n".join(parts)


def _caption(kind: str, report: PeerReport) -> str:
    if kind == "network":
        return (
            "**Network alone.** Peers: one run of the graph on so many word pieces in all (question, context and marks"
            " together), embeddings included. Ours: the core graph on a context of so many tokens plus 20 question"
            " tokens, one run of the engine; no embedding stage is in the time, because the token table replaces it"
            " (looking up is in the end-to-end time). TFLite graphs are sized for the length beforehand. MB is the"
            " graph's file."
        )
    texts = report.texts or {}
    return (
        "**End to end**, from the same two strings (question and context) to the answer's text. Texts:"
        f" {texts.get('source')}; {texts.get('counts')}. Peers: fast tokenizer ({texts.get('tokenizer')}; the Rust"
        " library without its Python wrapper), network, our own span decoder. Ours: `Answerer.answer`: tokenise, token"
        " table, token graph for the words that are not in the table, core graph (a TFLite one is resized whenever"
        " the length changes), decoder. Before each call the states of tokens are forgotten, so that no word's"
        " state is remembered from an earlier text; the tokenizer remembers how it cut the chunks of text that it has"
        " seen (up to 10,000), as in an application that runs on. Loading is not in the times. MB is all that has to be"
        " on the device: model and tokenizer; ours: a bundle that has this one core graph."
    )


def _table(rows: Sequence[Row]) -> str:
    lengths = sorted({row.length for row in rows}, reverse=True)
    groups: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        # A peer's recipes may differ between the lengths, and still make one line; two engines of ours make two.
        groups.setdefault((row.name, row.precision, row.detail if row.ours else ""), {})[row.length] = row
    longest = lengths[0]
    order = sorted(groups.values(), key=lambda group: -next(group[n] for n in lengths if n in group).median_ms)
    against = [f"x {name} {precision}" for name, precision in REFERENCES]
    header = ["model", "precision", "engine or recipe", "parameters", "MB"]
    for length in lengths:
        header += [f"{length}: ms", *(against if length == longest else [f"{text} " for text in against])]
    lines = [header, ["---", "---", "---", *["---:"] * (len(header) - 3)]]
    for group in order:
        some = next(iter(group.values()))
        size = max(row.model_bytes if row.kind == "network" else row.device_bytes for row in group.values())
        details = dict.fromkeys(group[length].detail for length in lengths if length in group)
        cells = [
            f"**{some.name}**" if some.ours else some.name,
            some.precision,
            " / ".join(details),
            f"{some.parameters / 1e6:.2f} M" if some.parameters else "-",
            _figures(size / 1e6),
        ]
        for length in lengths:
            timed = group.get(length)
            cells.append(_figures(timed.median_ms) if timed else "-")
            for reference in REFERENCES:
                ratio = ratio_to(rows, timed, reference) if timed else None
                cells.append(_figures(ratio) if ratio else "-")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cell.strip() for cell in line)} |" for line in lines)


def _figures(value: float) -> str:
    """Three figures, never in powers of ten."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
