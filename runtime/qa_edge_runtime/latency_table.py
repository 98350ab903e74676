"""Reports as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qa_edge_runtime.comparison_report import ComparedBundle, ComparisonReport, side_names
from qa_edge_runtime.latency_report import LatencyReport
from qa_edge_runtime.latency_samples import STAGES
from qa_edge_runtime.machine_load import MachineLoad, pass_spread
from qa_edge_runtime.percentiles import POINTS, LengthBin, StageLatency

ADVICE = "these times are not worth quoting; measure again on a machine that does nothing else"
# More medians of passes than these are told by their lowest and highest.
_PASSES_SHOWN = 8


def format_report(report: LatencyReport | ComparisonReport) -> str:
    """The report as a table, one string without a line end."""
    lines = _comparison_lines(report) if isinstance(report, ComparisonReport) else _latency_lines(report)
    notes = [f"{note[:1].upper()}{note[1:]}." for note in report.notes]
    warnings = [*warning_lines(report.warnings), ""] if report.warnings else []
    return "\n".join([*lines, "", *warnings, *notes])


def warning_lines(warnings: Sequence[str]) -> list[str]:
    """A line for each warning and one of advice; none without a warning."""
    return [f"warning: {warning}" for warning in warnings] + ([f"warning: {ADVICE}"] if warnings else [])


def _latency_lines(report: LatencyReport) -> list[str]:
    lines = [
        f"{report.bundle}: {report.bundle_bytes / 1e6:.1f} MB on disk, {report.precision} in {report.engine}"
        f" {report.engine_version}, {_threads(report.threads)}",
        _machine_line(report.machine, report.load),
        f"{report.queries:,} queries ({report.questions} questions x {report.repeat}, after {report.warmup} of"
        f" warm-up): {report.source}",
        f"context: median {report.context_tokens_median:.0f} tokens, longest {report.context_tokens_max:,}; question:"
        f" median {report.question_tokens_median:.0f}; {report.table_share:.0%} of the tokens in the table,"
        f" {report.remembered_share:.0%} remembered",
        "",
        f"{'stage':<14}" + "".join(f"{f'p{point} ms':>9}{'':<18}" for point in POINTS) + f"{'share':>6}",
    ]
    lines += [_stage_line(stage.replace("_", " "), report.stages[stage]) for stage in STAGES]
    if report.paced is not None:
        paced = report.paced
        lines.append(_stage_line("total, paced", paced.stages["total"], share=False))
        lines += [
            "",
            f"paced: {paced.queries} queries after {paced.gap_ms:g} ms of rest each;"
            f" {_ratio(paced.ratio, paced.ratio_interval)} times as long as the same question in the tight loop",
        ]
    lines += ["", _passes_line("p50 by pass, ms", report.passes_p50_ms)]
    lines += ["", *_length_table([("", report.by_length)])]
    if report.cold_start is not None:
        cold = report.cold_start
        rest = cold.total_ms - cold.load_ms - cold.first_answer_ms
        lines += [
            "",
            f"cold start {cold.total_ms:.0f} ms ({min(cold.totals_ms):.0f}-{max(cold.totals_ms):.0f}): interpreter and"
            f" imports {rest:.0f}, load {cold.load_ms:.0f}, first answer {cold.first_answer_ms:.0f} (medians of"
            f" {cold.processes} fresh processes)",
        ]
        if cold.peak_memory_bytes is not None:
            lines.append(f"peak memory {cold.peak_memory_bytes / 1e6:.0f} MB")
    return lines


def _comparison_lines(report: ComparisonReport) -> list[str]:
    first, second = side_names(report)
    # Told from the side that is faster.
    slower, faster, ratio, spread = second, first, report.ratio, report.ratio_interval
    if ratio < 1:
        slower, faster, ratio, spread = first, second, 1 / ratio, (1 / spread[1], 1 / spread[0])
    own = []
    if report.processor_ratio is not None and report.processor_ratio_interval is not None:
        own = [f"by the processor's own time {_ratio(report.processor_ratio, report.processor_ratio_interval)} times"]
    lines = [
        _side_line("A", report.first),
        _side_line("B", report.second),
        _machine_line(report.machine, report.load),
        f"{report.queries:,} queries of each in turn ({report.questions} questions x {report.repeat}, after"
        f" {report.warmup} of warm-up): {report.source}",
        "",
        f"{'':<14}{'A ms':>9}{'B ms':>9}{'B / A':>9}",
    ]
    for entry in report.ratios:
        times = [getattr(side.stages[entry.stage], f"p{entry.point}_ms") for side in (report.first, report.second)]
        name = f"{entry.stage.replace('_', ' ')} p{entry.point}"
        low, high = entry.interval
        lines.append(f"{name:<14}{times[0]:>9.2f}{times[1]:>9.2f}{entry.ratio:>9.3f} ({low:.3f}-{high:.3f})")
    lines += [
        "",
        f"query by query B takes {_ratio(report.ratio, report.ratio_interval)} times as long as A:"
        f" {faster} is {_ratio(ratio, spread)} times as fast as {slower}",
        *own,
        _passes_line("B / A by pass", report.passes_ratio),
        f"the same answer to {report.same_answers:.1%} of the queries",
        "",
        *_length_table([("A ", report.first.by_length), ("B ", report.second.by_length)]),
    ]
    return lines


def _side_line(letter: str, side: ComparedBundle) -> str:
    return (
        f"{letter}  {side.bundle} ({side.file}): {side.bundle_bytes / 1e6:.1f} MB on disk, {side.precision} in"
        f" {side.engine} {side.engine_version}, {_threads(side.threads)}"
    )


def _threads(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def _machine_line(machine: Mapping[str, Any], load: MachineLoad) -> str:
    parts = [f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores"]
    if machine["mhz"] is not None:
        highest = f" of at most {machine['max_mhz']}" if machine["max_mhz"] is not None else ""
        parts.append(f"{machine['mhz']}{highest} MHz")
    parts.append(f"governor {machine['governor'] or 'not told'}")
    if machine["load_1_minute"] is not None:
        parts.append(f"load {machine['load_1_minute']} before")
    if load.others_share is not None:
        parts.append(f"others used {load.others_share:.0%} of the cores meanwhile")
    return ", ".join(parts)


def _stage_line(name: str, latency: StageLatency, *, share: bool = True) -> str:
    cells = []
    for point in POINTS:
        low, high = getattr(latency, f"p{point}_interval_ms")
        cells.append(f"{getattr(latency, f'p{point}_ms'):>9.2f}{f' ({low:.2f}-{high:.2f})':<18}")
    return f"{name:<14}{''.join(cells)}{f'{latency.share:>6.1%}' if share else ''}".rstrip()


def _passes_line(name: str, figures: Sequence[float]) -> str:
    if len(figures) <= _PASSES_SHOWN:
        shown = " ".join(f"{figure:.2f}" for figure in figures)
    else:
        shown = f"{min(figures):.2f} to {max(figures):.2f} in {len(figures)} passes"
    return f"{name}: {shown}" + (f" (spread {pass_spread(figures):.1%})" if len(figures) > 1 else "")


def _length_table(sides: Sequence[tuple[str, Sequence[LengthBin]]]) -> list[str]:
    """Whole queries by tokens of context, as each side's tokenizer counts them."""
    head = "".join(f"{f'{name}queries':>11}{f'{name}p50 ms':>11}{f'{name}p90 ms':>11}" for name, _ in sides)
    lines = [f"{'context tokens':<15}{head}"]
    columns = [{(found.from_tokens, found.to_tokens): found for found in bins} for _, bins in sides]
    for begin, end in sorted({place for column in columns for place in column}):
        line = f"{f'{begin}-{end}':<15}"
        for column in columns:
            found = column.get((begin, end))
            figures = ("-",) * 3 if found is None else (f"{found.queries:,}", *map(_ms, (found.p50_ms, found.p90_ms)))
            line += "".join(f"{figure:>11}" for figure in figures)
        lines.append(line)
    return lines


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _ratio(value: float, spread: tuple[float, float]) -> str:
    return f"{value:.2f} ({spread[0]:.2f}-{spread[1]:.2f})"
