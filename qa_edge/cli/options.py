"""Options that several commands share, and those that are a setting each of a dataclass that loads torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# name: (type, default as the dataclass has it, help). The modules with the dataclasses import torch, which --help
# must not; a test compares these defaults with theirs.
TRAIN: Mapping[str, tuple[Any, Any, str]] = {
    "epochs": (int, 30, "Passes over the training questions."),
    "least_updates": (click.IntRange(1), None, "Updates at least: more passes where these are fewer."),
    "batch_size": (int, 14, "Questions an update, over all processes."),
    "rate": (float, 1e-3, "Learning rate at its highest."),
    "warmup": (click.IntRange(0), 1000, "Updates in which the rate grows."),
    "schedule": (click.Choice(["constant", "cosine"]), "constant", "Rate after the warm-up."),
    "optimizer": (click.Choice(["adam", "muon"]), "adam", "Muon takes the matrices, and Adam the rest."),
    "weight_decay": (click.FloatRange(0), 3e-7, "L2 on the weights."),
    "gradient_norm": (float, 5.0, "Larger gradients are scaled down to this norm."),
    "rho": (float, 0.7, "Share of the soft loss, 0 to 1."),
    "temperature": (float, 10.0, "Temperature of the soft loss."),
    "mse_weight": (float, 1.0, "Weight of the interpolation loss; 0 leaves it out."),
    "alignment": (click.Choice(["rule", "offset"]), "rule", "How word pieces are matched with tokens."),
    "interpolation": (click.Choice(["cubic", "linear"]), "cubic", "How student logits reach teacher positions."),
    "context_limit": (int, 400, "Tokens of a context that training sees."),
    "others": (
        click.FloatRange(0, 1),
        0.0,
        "Share of the questions asked of another paragraph too, so that long texts can be read in windows.",
    ),
    "noise": (
        click.FloatRange(0, 1, min_open=True),
        None,
        "Share of the questions asked in lower case, mistyped or unpunctuated; of features with --noisy.",
    ),
    "layers_weight": (
        click.FloatRange(0, min_open=True),
        None,
        "Weight of the distance to the teacher's layers, which --labels need --states for.",
    ),
    "ema_ceiling": (
        click.FloatRange(0, 1),
        None,
        "Highest decay of the average; by the length of the run if not given.",
    ),
    "evaluate_every": (int, 1000, "Updates between evaluations on the held-out articles."),
    "patience": (click.IntRange(1), None, "Evaluations without gain after which the run stops; never if not given."),
    "log_every": (int, 50, "Updates between lines of metrics.jsonl."),
    "save_every": (int, 200, "Updates between states to resume from."),
    "table": (
        click.Choice(["float32", "int4"]),
        "float32",
        "int4 rounds the states of words in training as a bundle's table of 4 bits will.",
    ),
    "precision": (click.Choice(["no", "bf16"]), "no", "Precision of the matrix products; no is float32."),
    "seed": (int, 0, "The one seed of all that is random."),
}
TEACH: Mapping[str, tuple[Any, Any, str]] = {
    "epochs": (int, 2, "Passes over the windows."),
    "least_updates": (click.IntRange(1), None, "Updates at least: more passes where these are fewer."),
    "dropout": (
        click.FloatRange(0, 1),
        None,
        "Of all layers; the encoder's own if not given. 0 is faster on a CPU and makes a teacher that teaches worse.",
    ),
    "rate": (float, 5e-5, "Learning rate at its highest."),
    "warmup": (float, 0.1, "Share of the updates in which the rate grows."),
    "weight_decay": (float, 0.01, "Decay of the weights, biases and norms apart."),
    "gradient_norm": (float, 1.0, "Larger gradients are scaled down to this norm."),
    "batch_tokens": (int, 6144, "Padded pieces in a batch of one process."),
    "window": (int, 384, "Pieces in a window."),
    "stride": (int, 128, "Pieces by which windows overlap."),
    "precision": (click.Choice(["no", "bf16"]), "no", "Precision of the matrix products; no is float32."),
    "seed": (int, 0, "The one seed of all that is random."),
    "log_every": (int, 50, "Updates between lines of metrics.jsonl."),
    "save_every": (int, 500, "Updates between states to resume from."),
}
PREPARE: Mapping[str, tuple[Any, Any, str]] = {
    "heldout": (float, 0.05, "Share of the articles kept out of training, for choices."),
    "vocabulary_size": (int, None, "Words with a vector of their own; all if not given."),
    "character_count": (int, 5, "A character that occurs fewer times is unknown."),
    "noisy": (click.IntRange(1), None, "Noisy copies of each question to make, for distill --noise."),
}
LABEL: Mapping[str, tuple[Any, Any, str]] = {
    "window": (int, 384, "Pieces in a window of the teacher."),
    "stride": (int, 128, "Pieces by which windows overlap."),
    "precision": (
        click.Choice(["auto", "bf16", "fp16", "fp32"]),
        "auto",
        "Precision of the matrix products; auto is the fastest that the device has.",
    ),
    "batch_tokens": (int, 6144, "Padded pieces in a forward pass."),
}


def settings_options(table: Mapping[str, tuple[Any, Any, str]]) -> Callable[[F], F]:
    """An option for each setting of a table; one that is not given is None, and the dataclass's default holds."""

    def add(function: F) -> F:
        for name, (kind, default, text) in reversed(list(table.items())):
            shown = "" if default is None else f"  [default: {default}]"
            option = click.option(f"--{name.replace('_', '-')}", name, type=kind, callback=finite, help=text + shown)
            function = option(function)
        return function

    return add


def finite(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse nan, which is in every range that is checked by its ends, and inf."""
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", context, parameter)
    return value


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given."""
    return {name: value for name, value in values.items() if value is not None}


def own_split(init: str | None, squad: str | None) -> dict[str, Any]:
    """`heldout` and `seed` of a checkpoint to go on from, if it split this very file: nothing else suits it there."""
    from qa_edge.split import split_of
    from qa_edge_runtime.files import sha256_file

    if init is None or squad is None or not Path(squad).is_file():
        return {}
    return split_of(Path(init), sha256_file(squad))


def sharing_options(work: str) -> Callable[[F], F]:
    """Options `process` and `processes` of a command whose work several share; a launcher's variables fill them in.

    :param work: what they share.
    """

    def add(function: F) -> F:
        for option in (
            click.option(
                "--processes",
                type=click.IntRange(1),
                default=1,
                envvar="WORLD_SIZE",
                callback=_numbered,
                help=f"... among so many that share the {work}.",
            ),
            # Eager: its number is known when that of all is looked at.
            click.option(
                "--process", type=click.IntRange(0), default=0, envvar="RANK", is_eager=True, help="My number..."
            ),
        ):
            function = option(function)
        return function

    return add


def _numbered(context: click.Context, parameter: click.Parameter, value: int) -> int:
    process = context.params["process"]
    if process >= value:
        raise click.UsageError(f"--process {process} is not one of {value}: the first is 0", context)
    return value


def vectors_path(value: str | None) -> str | None:
    """The file of `--vectors FILE|none`."""
    return None if value == "none" else value


def bundle_argument(command: F) -> F:
    """The bundle that a command is about: `bundle`, None if it is not named."""
    return click.argument("bundle", metavar="[BUNDLE.qab]", required=False)(command)


def engine_options(command: F) -> F:
    """Options of how a bundle is run: `engine`, `precision` and `threads`."""
    for option in (
        click.option(
            "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of the engine."
        ),
        click.option(
            "--precision",
            type=click.Choice(["int8", "fp16", "fp32"]),
            help="If not given int8, fp16, fp32: the first in the bundle; tflite-runtime: fp32, fp16, never int8.",
        ),
        click.option(
            "--engine",
            type=click.Choice(["onnx", "tflite"]),
            help="If not given tflite (LiteRT), then onnx: the first that is installed.",
        ),
    ):
        command = option(command)
    return command
