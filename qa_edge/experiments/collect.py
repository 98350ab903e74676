"""Finds what a folder of runs holds that the paper has a number for: students, teachers and loops, whoever ran them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from qa_edge.experiments.paper import whole_size
from qa_edge.experiments.records import read_evaluations, read_record
from qa_edge.features import SCORES
from qa_edge.metrics import FILE as METRICS
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

# Shares of labels that are nearer than this to a row's are that row's: a pool's size is no multiple of 100.
NEAR = 0.006
CHOSEN = 0.4
"""Of the labels, in Tables 6 to 8."""
_PAPER_TRAIN = {"rho": 0.7, "temperature": 10.0, "mse_weight": 1.0, "others": 0.0}
_SHORT = {"rho": "rho", "temperature": "T", "mse_weight": "MSE", "others": "second paragraphs"}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run scores on one data set.

    :ivar role: a row of the paper: `base`, `kd`, `kd-linear`, `kd-cubic` or `teacher`, then `:all` or `:chosen`, the
        questions that it was trained on.
    :ivar data: `dev`, or the name of an adversarial set.
    :ivar cost: questions trained on, over all passes; 0 where that is not known.
    :ivar notes: in what it differs from the paper's run of this row, its size first; seeds of a run have the same.
    """

    role: str
    data: str
    exact_match: float
    f1: float
    total: int
    cost: float
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A learning curve.

    :ivar kind: what a model of each cycle is: `teacher` (an encoder that is fine-tuned) or `student`.
    :ivar points: labelled share to its scores.
    :ivar notes: as of `Measured`.
    """

    strategy: str
    kind: str
    pool: int
    points: Mapping[float, Mapping[str, float]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What fills a row: the mean over the seeds of the runs that do."""

    exact_match: float
    f1: float
    cost: float
    seeds: int
    notes: tuple[str, ...]


def find_runs(folder: str | Path) -> tuple[list[Measured], list[Loop]]:
    """Every finished run below a folder that fills a cell.

    :raises DataError: if the folder is not there, or a run in it cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one with the runs")
    measured: list[Measured] = []
    loops: list[Loop] = []
    for path in _folders(root):
        try:
            found, loop = _read_run(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is not a run that this version can read ({error!r}); move it away") from error
        measured += found
        if loop is not None:
            loops.append(loop)
    return measured, loops


def _read_run(path: Path) -> tuple[list[Measured], Loop | None]:
    record = read_record(path)
    if record is not None and record.get("kind") == "teacher":
        return _scores(path, "teacher:all", 0, (str(record["name"]),)), None
    recipe = read_recipe(path) if (path / RECIPE).exists() else {}
    if recipe.get("kind") == "distill":
        return _student(path, recipe, record), None
    if recipe.get("kind") == "teach":
        notes = (Path(recipe["encoder"]).name, _passes(recipe["train"]["epochs"]))
        return _scores(path, "teacher:all", 0, notes), None
    loop = _loop(path, recipe) if recipe.get("kind") == "active" else None
    return ([] if loop is None else _chosen_teacher(loop)), loop


def best(measured: Sequence[Measured], role: str, data: str) -> Filled | None:
    """What fills a cell: of the runs that could, the costliest, then those that differ least from the paper's."""
    found = [one for one in measured if (one.role, one.data) == (role, data)]
    if not found:
        return None
    first = max(found, key=lambda one: (one.total, one.cost, -len(one.notes)))
    same = [one for one in found if (one.cost, one.notes, one.total) == (first.cost, first.notes, first.total)]
    return Filled(
        exact_match=fmean(one.exact_match for one in same),
        f1=fmean(one.f1 for one in same),
        cost=first.cost,
        seeds=len(same),
        notes=first.notes,
    )


def best_loops(loops: Sequence[Loop]) -> list[Loop]:
    """The loops that fill Tables 4 and 5: an encoder's before a student's, then those of the largest pool."""
    if not loops:
        return []
    first = max(loops, key=lambda loop: (loop.kind == "teacher", loop.pool, max(loop.points)))
    return [loop for loop in loops if (loop.kind, loop.pool, loop.notes) == (first.kind, first.pool, first.notes)]


def point(loops: Sequence[Loop], strategy: str, share: float, metric: str) -> list[float]:
    """Scores of a strategy's loops at a share of the labels, one a seed."""
    found = []
    for loop in loops:
        if loop.strategy == strategy and loop.points:
            nearest = min(loop.points, key=lambda there: abs(there - share))
            if abs(nearest - share) < NEAR:
                found.append(float(loop.points[nearest][metric]))
    return found


def walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Folders below one and their files, in order; links to folders are followed, and no folder comes twice."""
    seen = set()
    for name, below, files in os.walk(root, followlinks=True):
        path = Path(name)
        if path.resolve() in seen:
            below.clear()
            continue
        seen.add(path.resolve())
        below.sort()
        yield path, set(files)


def _folders(root: Path) -> Iterator[Path]:
    """Folders of runs and of teachers' answers; what lies in a loop is the loop's."""
    loops = set()
    for path, files in walk(root):
        if "curve.json" in files:
            loops.add(path)
        inside = any(parent in loops for parent in path.parents)
        if files & {RECIPE, "experiment.json"} and not inside and not path.name.endswith(".tmp"):
            yield path


def _scores(path: Path, role: str, cost: float, notes: tuple[str, ...]) -> list[Measured]:
    evaluations = read_evaluations(path)
    if "dev" not in evaluations and (path / SCORES).exists():
        evaluations = {"dev": read_json(path / SCORES, "scores"), **evaluations}
    found = []
    for key, one in evaluations.items():
        if key == "articles":
            continue
        part = () if one["total"] == whole_size(key) else (f"scored on {one['total']:,} questions of {one['on']}",)
        found.append(
            Measured(
                role=role,
                data=key,
                exact_match=one["exact_match"],
                f1=one["f1"],
                total=one["total"],
                cost=cost,
                notes=(*notes, *part),
            )
        )
    return found


def _student(path: Path, recipe: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[Measured]:
    train = recipe["train"]
    taught, role = _is_taught(recipe), _role(recipe)
    if role is None:
        return []
    data = {} if record is None else record["data"]
    if data.get("answered") is not None:
        return []  # with answers to a part of its questions, no row of the paper
    chosen = bool(data.get("chosen"))
    if "questions" in recipe["inputs"]:
        chosen = _least_confident(Path(recipe["inputs"]["questions"]["path"]))
        if not chosen:
            return []  # a part that the paper has no row for, such as one drawn at random
    questions, passes = _questions(path, train, data)
    size = f"{_passes(passes)} over {questions:,} questions" if questions else _passes(passes)
    if data.get("share", 1) != 1:
        size += f" ({100 * data['share']:g} % of the articles of {data['name']})"
    earlier = _earlier(recipe)
    if earlier:
        size += f", after {earlier:,.0f} questions of the run that it went on from"
    notes = [size, *_deviations(recipe, taught)]
    if record is not None and record.get("teacher"):
        notes.append(f"teacher {record['teacher']}")
    return _scores(path, f"{role}:{'chosen' if chosen else 'all'}", earlier + questions * passes, tuple(notes))


def _is_taught(recipe: Mapping[str, Any]) -> bool:
    return recipe["teacher"] != "none" and bool(recipe["train"]["rho"] or recipe["train"]["mse_weight"])


def _role(recipe: Mapping[str, Any]) -> str | None:
    """The row of the paper that a student belongs to; None if there is no such row.

    A student that went on from another has learned as that one did too: both have to be of one row, and hard labels
    alone are those only of a student whose beginning can be read.
    """
    train = recipe["train"]
    if not _is_taught(recipe):
        role = "base"
    elif train["alignment"] != "rule":
        return None
    elif not train["mse_weight"]:
        role = "kd"
    else:
        role = f"kd-{train['interpolation']}"
    if "init" not in recipe["inputs"]:
        return role
    before = _before(recipe)
    if before is None:
        return None if role == "base" else role
    return role if _role(before[1]) == role else None


def _before(recipe: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Folder and recipe of the run that this one went on from; None if there is none, or it is out of reach."""
    init = recipe["inputs"].get("init")
    if init is None or not (Path(init["path"]) / RECIPE).exists():
        return None
    return Path(init["path"]), read_recipe(Path(init["path"]))


def _least_confident(path: Path) -> bool:
    """Whether a file of questions is what least confidence chose, about as many as Table 6 has: a cycle of a loop."""
    cycle, loop = path.parent / "metrics.json", path.parent.parent
    if not cycle.exists() or not (loop / RECIPE).exists():
        return False
    strategy = read_recipe(loop).get("loop", {}).get("strategy")
    return bool(strategy == "least-confidence" and abs(read_json(cycle, "metrics")["share"] - CHOSEN) < NEAR)


def _earlier(recipe: Mapping[str, Any]) -> float:
    """Questions of the run that this one went on from, and of those before it; 0 where it is out of reach."""
    found = _before(recipe)
    if found is None:
        return 0
    folder, before = found
    questions, passes = _questions(folder, before["train"], (read_record(folder) or {}).get("data", {}))
    return questions * passes + _earlier(before)


def _questions(path: Path, train: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[int, float]:
    """Questions of a pass, and passes; of a run that left no record by its last line of metrics."""
    if "questions" in data:
        return int(data["questions"]), train["epochs"]
    lines = (path / METRICS).read_text(encoding="utf-8").splitlines() if (path / METRICS).exists() else []
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # cut by a kill
            continue
        if found.get("kind") == "training" and found.get("epoch"):
            return round(found["step"] * train["batch_size"] / found["epoch"]), round(found["epoch"], 2)
    return 0, train["epochs"]


def _deviations(recipe: Mapping[str, Any], taught: bool) -> list[str]:
    """Sizes and settings other than the paper's."""
    found = []
    student = dict(recipe["student"])
    if "init" in recipe["inputs"]:
        if not _earlier(recipe):
            found.append("went on from another run")
    elif student.pop("preset", "edge") != "paper":
        found.append(f"preset {recipe['student'].get('preset', 'edge')}")
    found += [f"{name.replace('_', ' ')} {value}" for name, value in sorted(student.items())]
    # Recipes of older runs lack the settings that came later, and had what is their default now.
    train = {**_PAPER_TRAIN, **recipe["train"]}
    for name, expected in _PAPER_TRAIN.items():
        # Hard labels have no rho, and KD without interpolation no MSE.
        fixed = (not taught and name != "others") or (name == "mse_weight" and not train[name])
        if not fixed and train[name] != expected:
            found.append(f"{_SHORT[name]} {train[name]:g}")
    if train.get("noise"):
        found.append("questions with noise")
    if train.get("layers_weight"):
        found.append(f"the teacher's layers, weight {train['layers_weight']:g}")
    return found


def _loop(path: Path, recipe: Mapping[str, Any]) -> Loop | None:
    if not (path / "curve.json").exists():
        return None
    cycles = read_json(path / "curve.json", "learning curve").get("cycles", [])
    if not cycles:
        return None
    loop, learner = recipe["loop"], recipe["learner"]
    last = cycles[-1]
    pool, total = round(last["questions"] / last["share"]), last["scores"]["total"]
    what = Path(str(learner["encoder"])).name if learner["kind"] == "teacher" else "the student"
    notes = [what, f"pool of {pool:,} questions"]
    if loop["step_of"] != "whole":
        notes.append("batches of what remains")
    if loop["start"] != "pretrained":
        notes.append("each cycle goes on from the last")
    if total != whole_size("dev"):
        notes.append(f"scored on {total:,} questions")
    return Loop(
        strategy=loop["strategy"],
        kind=learner["kind"],
        pool=pool,
        points={cycle["share"]: cycle["scores"] for cycle in cycles},
        notes=tuple(notes),
    )


def _chosen_teacher(loop: Loop) -> list[Measured]:
    """The encoder fine-tuned on what least confidence chose, as Table 6 has it."""
    if loop.strategy != "least-confidence" or loop.kind != "teacher":
        return []
    found = [share for share in loop.points if abs(share - CHOSEN) < NEAR]
    return [
        Measured(
            role="teacher:chosen",
            data="dev",
            exact_match=loop.points[share]["exact_match"],
            f1=loop.points[share]["f1"],
            total=int(loop.points[share]["total"]),
            cost=share * loop.pool,
            notes=loop.notes,
        )
        for share in found
    ]


def _passes(count: float) -> str:
    return f"{count:g} pass{'' if count == 1 else 'es'}"
