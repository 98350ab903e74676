"""`qa-edge sensitivity`: which layers suffer from 8 bits."""

from __future__ import annotations

from dataclasses import asdict

import click

from qa_edge.cli.output import json_option, print_json, print_table


@click.command("sensitivity", short_help="Tell which layers of a run suffer from 8 bits.")
@click.argument("run", metavar="RUN")
@click.option(
    "--calibration",
    type=click.Choice(["max", "percentile", "error"]),
    default="max",
    show_default=True,
    help="How the scales are found.",
)
@json_option
def command(run: str, calibration: str, as_json: bool) -> None:
    """Quantise one layer after the other and compare the logits; the worst can stay in float (export --keep-float)."""
    from qa_edge.bundle import measure_sensitivity

    effects = measure_sensitivity(run, calibration=calibration)
    if as_json:
        print_json([asdict(effect) for effect in effects])
        return
    rows = [
        [
            effect.layer,
            f"{effect.difference:.4f}",
            f"{effect.difference_without:.4f}",
            f"{effect.size_bytes_without / 1e6:.3f}",
        ]
        for effect in effects
    ]
    columns = ("8 bits in", "difference of logits (RMS)", "in all others instead", "graph then, MB")
    print_table(columns, rows)
