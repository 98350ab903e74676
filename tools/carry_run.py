"""Carry an unfinished run to another machine by its weights alone: `pack RUN FILE` here, `unpack FILE RUN` there.

The file holds the raw and the averaged weights in 16 bits, the update they belong to and the recipe: 5 MB, where the
whole state takes 21. On the other side the run is begun with the same settings and the inputs' paths there, then moved
on to where it was; the optimiser's moments start anew:

    qa-edge distill --squad ... --max-steps 1 -o runs/first
    python tools/carry_run.py unpack unfinished.safetensors runs/first
    qa-edge distill --resume runs/first
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from qa_edge_runtime.errors import DataError, QaEdgeError
from qa_edge_runtime.files import atomic_write, read_json

NUMBERS = ("step", "best_f1", "best_step", "evaluations_without_gain")


def pack(run: Path, file: Path) -> None:
    """Write the newest state of a run, without the optimiser's moments.

    :raises DataError: if the run has no state.
    """
    import torch
    from safetensors.torch import save

    from qa_edge.checkpoint import TrainingState

    state = TrainingState.load(run)
    if state is None:
        raise DataError(f"{run} has no state; expected a run that was begun")
    recipe = read_json(run / "recipe.json", "recipe")
    for source in recipe.get("inputs", {}).values():
        source["path"] = Path(source["path"]).name  # where it lay is nobody's business elsewhere
    recipe["teacher"] = Path(recipe["teacher"]).name if recipe.get("teacher") else None
    numbers = {name: getattr(state, name) for name in NUMBERS}
    tensors = {name: state.tensors[name].to(torch.float16) for name in ("weights", "average")}
    atomic_write(file, save(tensors, metadata={"state": json.dumps(numbers), "recipe": json.dumps(recipe)}))


def unpack(file: Path, run: Path) -> None:
    """Move a run that was begun with the same settings on to a packed state.

    :raises DataError: if the file cannot be read, or the run was begun otherwise or is further already.
    """
    from safetensors import SafetensorError, safe_open

    from qa_edge.checkpoint import TrainingState

    try:
        with safe_open(file, framework="pt") as stream:
            metadata = stream.metadata()
            tensors = {name: stream.get_tensor(name).float() for name in ("weights", "average")}
        state = TrainingState(**json.loads(metadata["state"]), tensors=tensors)
        packed = json.loads(metadata["recipe"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not a packed run ({error})") from error
    begun, here = read_json(run / "recipe.json", "recipe"), TrainingState.load(run)
    for section in ("student", "train", "prepare"):
        if begun.get(section) != packed.get(section):
            raise DataError(f"{run} was begun with other {section} settings: expected {packed.get(section)}")
    if here is None or here.step > state.step:
        raise DataError(f"{run} is at update {here and here.step}, expected a run begun and before {state.step}")
    state.save(run)
    sys.stdout.write(f"{run} is at update {state.step}; go on with: qa-edge distill --resume {run}\n")


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    try:
        (pack if arguments.action == "pack" else unpack)(arguments.source, arguments.target)
    except QaEdgeError as error:
        sys.stderr.write(f"carry_run: error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
