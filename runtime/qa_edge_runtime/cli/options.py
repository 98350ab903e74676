"""Options that several commands share."""

from __future__ import annotations

import argparse

from qa_edge_runtime.engine import MAX_THREADS
from qa_edge_runtime.graphs import ENGINES, PRECISIONS


def add_bundle_argument(command: argparse.ArgumentParser) -> None:
    """The bundle that a command is about: `bundle`, None if it is not named."""
    command.add_argument("bundle", nargs="?", help="folder or single file; if not given, the one of qa-edge-models")


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """How a bundle is run: `engine`, `precision` and `threads`."""
    command.add_argument("--engine", choices=ENGINES, help="if not given LiteRT, then ONNX Runtime, by what there is")
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="int8, fp16, fp32: the first in the bundle if not given, but no int8 in tflite-runtime",
    )
    command.add_argument("--threads", type=threads, default=1, metavar="N", help="threads of the engine (1)")


def add_json_option(command: argparse.ArgumentParser) -> None:
    """Whether the result is printed as JSON: `json`."""
    command.add_argument("--json", action="store_true", help="print JSON")


def threads(text: str) -> int:
    """A number of threads, out of an argument."""
    value = from_one(text)
    if value > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is above {MAX_THREADS}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1, out of an argument."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def from_one(text: str) -> int:
    """A whole number from 1, out of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value
