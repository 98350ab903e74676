"""What a run was made from, as far as that can still be read: questions, a loop's choice, the run that it went on from.

Two runs are seeds of one another if all that decides them but the seeds is the same (`identity`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qa_edge.active.curve import CURVE, Loop, read_loop
from qa_edge.experiments.records import read_record
from qa_edge.metrics import FILE as METRICS
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import Input, digest, read_recipe
from qa_edge.shards import MANIFEST as LABELS
from qa_edge.squad import read_squad
from qa_edge.train_settings import TrainSettings
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

# Shares of labels that are nearer than this to a row's are that row's: a pool's size is no multiple of 100.
NEAR = 0.006
CHOSEN = 0.4
"""Of the labels, in Tables 6 to 8."""
OF_A_TEACHER = ("rho", "temperature", "mse_weight", "alignment", "interpolation")
"""Settings that decide nothing without a teacher."""
_IDLE = ("seed", "max_steps", "log_every", "save_every")


def is_taught(recipe: Mapping[str, Any]) -> bool:
    """Whether a student learned from a teacher too."""
    terms = ("rho", "mse_weight", "layers_weight")
    return recipe["teacher"] != "none" and any(recipe["train"].get(name) for name in terms)


def run_before(recipe: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Folder and recipe of the run that this one went on from; None if there is none, or it is out of reach."""
    init = recipe["inputs"].get("init")
    if init is None or not (Path(init["path"]) / RECIPE).exists():
        return None
    return Path(init["path"]), read_recipe(Path(init["path"]))


def chosen_by(path: Path) -> Loop | None:
    """The loop in one of whose cycles least confidence chose a file of questions, about as many as Table 6 has."""
    cycle, folder = path.parent / "metrics.json", path.parent.parent
    if not all(found.exists() for found in (cycle, folder / RECIPE, folder / CURVE)):
        return None
    loop = read_loop(folder)
    near = abs(read_json(cycle, "metrics")["share"] - CHOSEN) < NEAR
    return loop if near and loop.strategy == "least-confidence" else None


def questions_seen(path: Path, train: Mapping[str, Any], record: Mapping[str, Any] | None) -> tuple[int, float]:
    """Questions of a student's pass, and passes: by its record, or by the last line of metrics of a run without one.

    Passes are counted from the updates: there are more than `epochs` with `least_updates`, and fewer with `patience`.
    """
    if record is not None and "questions" in record.get("data", {}):
        questions = int(record["data"]["questions"])
        return questions, _rounded(record["steps"] * train["batch_size"] / questions)
    lines = (path / METRICS).read_text(encoding="utf-8").splitlines() if (path / METRICS).exists() else []
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # cut by a kill
            continue
        if found.get("kind") == "training" and found.get("epoch"):
            return round(found["step"] * train["batch_size"] / found["epoch"]), _rounded(found["epoch"])
    return 0, train["epochs"]


def _rounded(passes: float) -> float:
    """To three digits: a pass leaves out what does not fill its last batch, and is a pass all the same."""
    return float(f"{passes:.3g}")


def questions_before(recipe: Mapping[str, Any]) -> float:
    """Questions of the run that this one went on from, and of those before it; 0 where it is out of reach."""
    found = run_before(recipe)
    if found is None:
        return 0
    folder, before = found
    questions, passes = questions_seen(folder, before["train"], read_record(folder))
    return questions * passes + questions_before(before)


def describe_teacher(teacher: str) -> dict[str, Any]:
    """What a record says of an experiment's teacher: its name, and what `qa-edge teach` trained it on.

    :returns: `squad` is None of a teacher that was trained elsewhere, `questions` where the file cannot be read.
    """
    folder = Path(teacher)
    recipe = read_recipe(folder) if (folder / RECIPE).exists() else {}
    squad = recipe["inputs"]["squad"] if recipe.get("kind") == "teach" else None
    return {
        "name": folder.name,
        "squad": None if squad is None else Path(squad["path"]).name,
        "questions": None if squad is None else answered_questions(squad),
        "chosen": squad is not None and chosen_by(Path(squad["path"])) is not None,
    }


def answered_questions(squad: Mapping[str, Any]) -> int | None:
    """Questions with an answer in a SQuAD file of a recipe; None if it is gone or another by now."""
    try:
        path = Input(**squad).checked("SQuAD file")
    except DataError:
        return None
    return _answered(path, squad["sha256"])


@functools.cache
def _answered(path: Path, sha256: str) -> int:
    return read_squad(path).answered


def identity(
    path: Path, recipe: Mapping[str, Any], record: Mapping[str, Any] | None = None
) -> tuple[str, tuple[int, ...]]:
    """Hash of all that decides a run of distill or teach but the seeds, and these: its own and those behind it.

    Questions that a loop chose differ from seed to seed, as does the student that another went on from: what stands
    for them is the hash of what made them.

    :param record: of an experiment.
    """
    train, inputs = dict(recipe["train"]), {name: one for name, one in recipe["inputs"].items() if name != "dev"}
    seeds = [int(train["seed"])]
    decided = {name: recipe.get(name) for name in ("kind", "encoder", "teacher", "student", "prepare", "label")}
    if recipe["kind"] == "distill":
        train = {**asdict(TrainSettings()), **train}
        idle = OF_A_TEACHER if not is_taught(recipe) else () if train["mse_weight"] else ("interpolation",)
        train = {name: value for name, value in train.items() if name not in idle}
        if not is_taught(recipe):
            inputs.pop("labels", None)
            decided |= {"teacher": "none", "label": None}
    name = "squad" if recipe["kind"] == "teach" else "questions"
    loop = chosen_by(Path(inputs[name]["path"])) if name in inputs else None
    if loop is not None:
        if "labels" in inputs and _teacher_of(inputs["labels"]).parent == Path(inputs[name]["path"]).parent:
            del inputs["labels"]
        inputs[name] = {"sha256": digest({"pace": list(loop.pace), "settings": loop.settings})}
        seeds.append(loop.seed)
    folder = path.resolve().parent
    chosen = None if record is None else record.get("data", {}).get("chosen")
    if chosen and (folder / RECIPE).exists():
        # Features and labels are those of the seed's own loop; their settings are the experiment's.
        inputs = {"choice": {"sha256": digest({"strategy": chosen, "of": read_recipe(folder)})}}
    before = run_before(recipe)
    if before is not None:
        found, behind = identity(*before, read_record(before[0]))
        inputs["init"] = {"sha256": found}
        seeds += behind
    return digest({**decided, "inputs": inputs, "train": train}, without=_IDLE), tuple(seeds)


def _teacher_of(labels: Mapping[str, Any]) -> Path:
    """The teacher that a folder of labels names."""
    manifest = Path(labels["path"]) / LABELS
    return Path(str(read_json(manifest, "labels")["teacher"]) if manifest.exists() else "")
