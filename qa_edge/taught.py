"""What a run's teacher says of its questions: labels and states that are given, or made in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge.labels import Labels, label
from qa_edge.states import FOLDER, LayerStates, label_states
from qa_edge_runtime.errors import DataError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qa_edge.distill import Recipe
    from qa_edge.features import Features

NO_TEACHER = "none"
"""Named in place of a teacher: the answers alone."""


def taught_by(
    run: Path, recipe: Recipe, features: Features, accelerator: Accelerator, log: Callable[[str], None]
) -> tuple[Labels | None, LayerStates | None]:
    """Logits of the teacher, None without one, and its layers' states, None where nothing is learned from them.

    What a teacher has not said yet is asked in all processes, which share the questions.

    :raises DataError: if labels or states are of other data, or another teacher's.
    """
    if recipe.teacher == NO_TEACHER:
        return None, None
    if recipe.teacher is None:
        states = LayerStates(recipe.inputs["states"].checked("states")) if "states" in recipe.inputs else None
        return Labels(recipe.inputs["labels"].checked("labels")), states
    squad, folder = recipe.inputs["squad"], run / "labels"
    asked: dict[str, Any] = {
        "settings": recipe.label,
        "device": str(accelerator.device),
        "process": accelerator.process_index,
        "processes": accelerator.num_processes,
    }
    if not _ready(folder, recipe.teacher, accelerator):
        log(f"labelling with {recipe.teacher}")
        label(squad.checked("SQuAD file"), recipe.teacher, folder, **asked)
        accelerator.wait_for_everyone()
    labels = Labels(folder)
    labels.require(squad.sha256)
    if not recipe.train.layers_weight:
        return labels, None
    if not _ready(folder / FOLDER, None, accelerator):
        log(f"reading the layers of {recipe.teacher}")
        label_states(squad.checked("SQuAD file"), recipe.teacher, folder, features.folder, **asked)
        accelerator.wait_for_everyone()
    states = LayerStates(folder / FOLDER)
    states.require_whole(labels, features)
    return labels, states


def _ready(folder: Path, teacher: str | None, accelerator: Accelerator) -> bool:
    """Whether finished labels of this teacher, by its name, or states lie there; else what makes them goes on."""
    # All processes look before one of them writes, so that all come to the same conclusion.
    accelerator.wait_for_everyone()
    try:
        found = LayerStates(folder).manifest if teacher is None else Labels(folder).manifest
        ready = teacher is None or found["teacher"] == teacher
    except DataError:
        ready = False
    accelerator.wait_for_everyone()
    return ready
