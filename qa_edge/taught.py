"""What a run's teacher says of its questions: labels and states that are given, or made in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qa_edge.checkpoint import TrainingState
from qa_edge.labels import Labels, label
from qa_edge.states import FOLDER, LayerStates, label_states
from qa_edge.teacher import Teacher
from qa_edge_runtime.errors import DataError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qa_edge.distill import Recipe
    from qa_edge.features import Features

T = TypeVar("T")
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
    labels = _found(Labels, folder, accelerator)
    if labels is not None and not TrainingState.saved(run):
        _require_of(recipe.teacher, labels)
    if labels is None or labels.manifest["teacher"] != recipe.teacher:  # then `label` goes on, or says what is wrong
        log(f"labelling with {recipe.teacher}")
        label(squad.checked("SQuAD file"), recipe.teacher, folder, **asked)
        accelerator.wait_for_everyone()
        labels = Labels(folder)
    labels.require(squad.sha256)
    if not recipe.train.layers_weight:
        return labels, None
    states = _found(LayerStates, folder / FOLDER, accelerator)
    if states is None:
        log(f"reading the layers of {recipe.teacher}")
        label_states(squad.checked("SQuAD file"), recipe.teacher, folder, features.folder, **asked)
        accelerator.wait_for_everyone()
        states = LayerStates(folder / FOLDER)
    states.require_whole(labels, features)
    return labels, states


def _require_of(teacher: str, labels: Labels) -> None:
    """Refuse labels that lie in the folder of a run to begin, if the teacher's folder holds other weights by now."""
    if not Path(teacher).is_dir():
        return  # a name on the hub, which need not be within reach any more
    windows = {name: labels.manifest[name] for name in ("window", "stride")}
    found, expected = Teacher.load(teacher, **windows).sha256(), labels.manifest["teacher_sha256"]
    if found != expected:
        raise DataError(
            f"labels {labels.folder} were made by another teacher (SHA-256 {expected[:12]}) than {teacher} holds now "
            f"({found[:12]}): remove them, and they are made again"
        )


def finished(read: Callable[[Path], T], folder: Path) -> T | None:
    """Labels or states that lie there; None where what makes them was not begun, or was killed."""
    try:
        return read(folder)
    except DataError:
        return None


def _found(read: Callable[[Path], T], folder: Path, accelerator: Accelerator) -> T | None:
    """The same in all processes, which look before one of them writes, so that all come to the same conclusion."""
    accelerator.wait_for_everyone()
    found = finished(read, folder)
    accelerator.wait_for_everyone()
    return found
