"""Average the weights of students that went on from the same one: another student of the same size.

    python tools/average_students.py runs/first runs/second -o runs/mean

Students that a training took from one checkpoint to different places, by another seed, other data or other settings,
often lie around a better one ("model soups", Wortsman et al., 2022). Whether they do is for the held-out questions to
say: `qa-edge evaluate runs/mean --squad runs/mean/heldout.json`. Students that began apart cannot be averaged: their
mean answers nothing. The folder that is written is a run's without what resuming needs: `evaluate`, `export`,
`distill --init` and `keep_checkpoint.py` take it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge.checkpoint import CONFIG, WEIGHTS, copy_inputs
from qa_edge.features import HELDOUT, TOKENIZER, VECTORS, VOCABULARY, read_tensors
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge_runtime.errors import DataError, MissingExtraError, QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write, read_json

# What only a training has: the mean may be of students with different ones.
_OF_TRAINING = ("dropout", "character_dropout", "survival")


def average(runs: Sequence[Path], target: Path, *, force: bool = False) -> None:
    """Write the mean of the runs' checkpoints; what they were made by is kept in its recipe.

    :raises DataError: if there is one run alone, or they have other sizes, words or vectors, or went on from different
        students; or if `target` exists and `force` is false.
    :raises MissingExtraError: if safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtraError('averaging needs safetensors: pip install "qa-edge[train]"') from error

    if len(runs) < 2:
        raise DataError(f"{len(runs)} run to average, expected two or more: name them before -o")
    first, *others = runs
    recipes = [read_recipe(run) for run in runs]
    for run, recipe in zip(runs, recipes, strict=True):
        begun = recipe.get("inputs", {}).get("init")
        if begun is None or begun["sha256"] != recipes[0]["inputs"]["init"]["sha256"]:
            raise DataError(f"{run} did not go on from the student that {first} went on from (--init): no mean of them")
    for run in others:
        if _sizes(run) != _sizes(first):
            raise DataError(f"{run} has other sizes than {first}: average students of one size")
        for name in (VOCABULARY, VECTORS, TOKENIZER):
            if _bytes(run / name) != _bytes(first / name):
                raise DataError(f"{run} has another {name} than {first}: train them on the same features")
    arrays = [read_tensors(run / WEIGHTS) for run in runs]
    mean = {name: np.mean([found[name] for found in arrays], 0, np.float64).astype(np.float32) for name in arrays[0]}
    with atomic_folder(target, force=force, marker=CONFIG) as folder:
        shutil.copyfile(first / CONFIG, folder / CONFIG)
        copy_inputs(first, folder)
        if (first / HELDOUT).exists():
            shutil.copyfile(first / HELDOUT, folder / HELDOUT)
        atomic_write(folder / WEIGHTS, save(mean))
        recipe = {**recipes[0], "kind": "average", "of": recipes}
        atomic_write(folder / RECIPE, json.dumps(recipe, indent=1, ensure_ascii=False) + "\n")


def _sizes(run: Path) -> dict[str, Any]:
    found = read_json(run / CONFIG, "student config")
    if not isinstance(found, dict):
        raise DataError(f"{run / CONFIG} is not an object; give the folder that distill wrote")
    return {name: value for name, value in found.items() if name not in _OF_TRAINING}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); give the folder of a run") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders that distill --init wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the mean")
    parser.add_argument("--force", action="store_true", help="replace a folder that was written before")
    arguments = parser.parse_args(argv)
    try:
        average(arguments.runs, arguments.output, force=arguments.force)
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
