"""In what a run differs from the paper's, a phrase each, its size first: what a row of the report says of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from qa_edge.active.curve import Loop
from qa_edge.active.cycles import LoopSettings
from qa_edge.experiments.lineage import OF_A_TEACHER, is_taught, questions_before
from qa_edge.experiments.paper import whole_size
from qa_edge.teach_settings import TeachSettings
from qa_edge.train_settings import TrainSettings

# Those that change no score, or that the size and the row say.
_UNSAID = ("seed", "max_steps", "log_every", "save_every", "evaluate_every")
_OF_THE_ROW = ("epochs", "least_updates", "alignment", "interpolation")
_SHORT = {"temperature": "T", "mse_weight": "MSE", "others": "second paragraphs", "noise": "questions with noise"}


def student_deviations(recipe: Mapping[str, Any]) -> list[str]:
    """Sizes and settings of a student other than the paper's; how long it trained is said elsewhere."""
    found = []
    student = dict(recipe["student"])
    if "init" in recipe["inputs"]:
        if not questions_before(recipe):
            found.append("went on from another run")
    elif student.pop("preset", "edge") != "paper":
        found.append(f"preset {recipe['student'].get('preset', 'edge')}")
    found += [f"{name.replace('_', ' ')} {value}" for name, value in sorted(student.items())]
    # Hard labels have no rho, and KD without interpolation no MSE.
    idle = OF_A_TEACHER if not is_taught(recipe) else () if recipe["train"]["mse_weight"] else ("mse_weight",)
    return found + _other_than(TrainSettings, recipe["train"], (*_OF_THE_ROW, *idle))


def teacher_deviations(recipe: Mapping[str, Any]) -> list[str]:
    """Settings of a fine-tuning other than ours, which are those of BERT's paper."""
    return _other_than(TeachSettings, recipe["train"], ("epochs",))


def loop_notes(loop: Loop) -> tuple[str, ...]:
    """What learns in a loop, the size of its pool, and what differs from the paper's loops."""
    settings, learner = loop.recipe["loop"], loop.recipe["learner"]
    if loop.kind == "teacher":
        found = [Path(learner["encoder"]["name"]).name, f"pool of {loop.pool:,} questions"]
        found += _other_than(TeachSettings, learner["settings"])
    else:
        found = ["the student", f"pool of {loop.pool:,} questions"]
        if learner["teacher"] is not None:
            found.append(f"taught by {Path(learner['teacher']['encoder']['name']).name} of each cycle")
        elif "labels" in learner["inputs"]:
            found.append(f"taught by {Path(str(learner['inputs']['labels']['path'])).name}")
        if "init" in learner["inputs"]:
            found.append(f"each cycle from {Path(str(learner['inputs']['init']['path'])).name}")
        found += [f"{name.replace('_', ' ')} {value}" for name, value in sorted(learner["sizes"].items())]
        untaught = learner["teacher"] is None and "labels" not in learner["inputs"]
        found += _other_than(TrainSettings, learner["settings"], OF_A_TEACHER if untaught else ())
    for name, said in (("first", "first batch"), ("step", "batches of")):
        if settings[name] != getattr(LoopSettings, name):
            found.append(f"{said} {100 * settings[name]:g} %")
    if settings["step_of"] != "whole":
        found.append("batches of what remains")
    if settings["start"] != "pretrained":
        found.append("each cycle goes on from the last")
    total = int(list(loop.points.values())[-1]["total"])
    if total != whole_size("dev"):
        found.append(f"scored on {total:,} questions")
    return tuple(found)


def _other_than(
    kind: type[TrainSettings | TeachSettings], given: Mapping[str, Any], idle: Collection[str] = ()
) -> list[str]:
    """Settings other than the defaults, those that recipes of older runs lack apart."""
    found = []
    for field in fields(kind):
        value = given.get(field.name, field.default)
        if field.name not in (*_UNSAID, *idle) and value != field.default:
            shown = f"{value:g}" if isinstance(value, int | float) else str(value)
            found.append(f"{_SHORT.get(field.name, field.name.replace('_', ' '))} {shown}")
    return found
