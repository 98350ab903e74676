"""Finds what a folder of runs holds that the paper has a number for: students, teachers and loops, whoever ran them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from qa_edge.active.curve import ALL, CURVE, Loop, group_seeds, read_loop
from qa_edge.experiments.definitions import AT_RANDOM, WHOLE
from qa_edge.experiments.deviations import loop_notes, student_deviations, teacher_deviations
from qa_edge.experiments.lineage import (
    CHOSEN,
    NEAR,
    chosen_by,
    describe_teacher,
    identity,
    is_taught,
    questions_before,
    questions_seen,
    run_before,
)
from qa_edge.experiments.paper import whole_size
from qa_edge.experiments.records import RECORD, read_evaluations, read_record
from qa_edge.features import MANIFEST, SCORES
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run scores on one data set.

    :ivar role: a row of the paper: `base`, `kd`, `kd-linear`, `kd-cubic` or `teacher`, then `:all` or `:chosen`, the
        questions that it was trained on.
    :ivar data: `dev`, or the name of an adversarial set.
    :ivar settings: hash of all that decides the score but the seeds, and `seeds` these (see `lineage.identity`).
    :ivar cost: questions trained on, over all passes; 0 where that is not known.
    :ivar notes: in what it differs from the paper's run of this row, its size first.
    """

    role: str
    data: str
    settings: str
    seeds: tuple[int, ...]
    exact_match: float
    f1: float
    total: int
    cost: float
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
        return _experiments_teacher(path, record), None
    recipe = read_recipe(path) if (path / RECIPE).exists() else {}
    if recipe.get("kind") == "distill":
        return _student(path, recipe, record), None
    if recipe.get("kind") == "teach":
        return _teacher(path, recipe), None
    if recipe.get("kind") != "active" or not (path / CURVE).exists():
        return [], None
    loop = read_loop(path)
    # One that begins with all labels chooses nothing, and is of no strategy's column.
    if loop.strategy == ALL or not loop.points:
        return [], None
    loop_notes(loop)  # fails here, where it is known whose fault it is, on a learner of another version
    return _loops_teacher(loop), loop


def best(measured: Sequence[Measured], role: str, data: str) -> Filled | None:
    """What fills a cell: of the runs that could, the costliest, then those that differ least from the paper's.

    A run that was made with several seeds is their mean; a seed that is there twice counts once.
    """
    groups: dict[tuple[int, str], dict[tuple[int, ...], Measured]] = defaultdict(dict)
    for one in measured:
        if (one.role, one.data) == (role, data):
            groups[one.total, one.settings].setdefault(one.seeds, one)
    if not groups:
        return None

    def rank(seeds: Mapping[Any, Measured]) -> tuple[float, ...]:
        first = next(iter(seeds.values()))
        return first.total, max(one.cost for one in seeds.values()), -len(first.notes), len(seeds)

    same = list(max(groups.values(), key=rank).values())
    return Filled(
        exact_match=fmean(one.exact_match for one in same),
        f1=fmean(one.f1 for one in same),
        cost=fmean(one.cost for one in same),
        seeds=len(same),
        # Seeds may have ended after different numbers of passes.
        notes=tuple(" or ".join(dict.fromkeys(said)) for said in zip(*(one.notes for one in same), strict=False)),
    )


def best_loops(loops: Sequence[Loop]) -> list[Loop]:
    """The loops that fill Tables 4 and 5, a loop a seed: an encoder's before a student's, those that came farthest.

    They differ in strategy and seed alone.
    """
    groups: dict[tuple[Any, ...], list[Loop]] = defaultdict(list)
    for seeds in group_seeds(loops):
        groups[seeds[0].pace, seeds[0].settings] += seeds

    def rank(found: Sequence[Loop]) -> tuple[float, ...]:
        first = found[0]
        share = max(max(loop.points) for loop in found)
        return first.kind == "teacher", share, first.pool, -len(loop_notes(first)), len(found)

    return max(groups.values(), key=rank, default=[])


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
        if CURVE in files:
            loops.add(path)
        inside = any(parent in loops for parent in path.parents)
        if files & {RECIPE, RECORD} and not inside and not path.name.endswith(".tmp"):
            yield path


def _scores(
    path: Path, role: str, *, made: tuple[str, tuple[int, ...]], cost: float, notes: Sequence[str]
) -> list[Measured]:
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
                # Two parts of a set may be as large.
                settings=f"{made[0]} {one['sha256']}",
                seeds=made[1],
                exact_match=one["exact_match"],
                f1=one["f1"],
                total=one["total"],
                cost=cost,
                notes=(*notes, *part),
            )
        )
    return found


def _student(path: Path, recipe: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[Measured]:
    role = _role(recipe)
    if role is None:
        return []
    data = {} if record is None else record["data"]
    if data.get("answered") is not None:
        return []  # with answers to a part of its questions, no row of the paper
    if data.get("chosen") in (AT_RANDOM, WHOLE) or (data.get("chosen") and recipe["train"].get("least_updates")):
        return []  # of experiment joint: no row of the paper either
    chosen = bool(data.get("chosen"))
    if "questions" in recipe["inputs"]:
        chosen = chosen_by(Path(recipe["inputs"]["questions"]["path"])) is not None
        if not chosen:
            return []  # a part that the paper has no row for, such as one drawn at random
    questions, passes = questions_seen(path, recipe["train"], record)
    size = f"{_passes(passes)} over {questions:,} questions" if questions else _passes(passes)
    if data.get("share", 1) != 1:
        size += f" ({100 * data['share']:g} % of the articles of {data['name']})"
    earlier = questions_before(recipe)
    if earlier:
        size += f", after {earlier:,.0f} questions of the run that it went on from"
    notes = [size, *_vectors_said(path, recipe, data), *student_deviations(recipe)]
    if record is not None and record.get("teacher"):
        notes.append(f"teacher {record['teacher']}")
    return _scores(
        path,
        f"{role}:{'chosen' if chosen else 'all'}",
        made=identity(path, recipe, record),
        cost=earlier + questions * passes,
        notes=notes,
    )


def _vectors_said(path: Path, recipe: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """The word vectors of a student: by its experiment's record, else by its features, where these can be read."""
    if "vectors" not in data:
        given = recipe["inputs"].get("features")
        manifest = (Path(given["path"]) if given else path / "features") / MANIFEST
        if not manifest.exists():
            return []
        data = read_json(manifest, "feature manifest")
    name = data.get("vectors")
    return [f"vectors {name}" if name else "no word vectors"]


def _role(recipe: Mapping[str, Any]) -> str | None:
    """The row of the paper that a student belongs to; None if there is no such row.

    A student that went on from another has learned as that one did too: both have to be of one row, and hard labels
    alone are those only of a student whose beginning can be read.
    """
    train = recipe["train"]
    if not is_taught(recipe):
        role = "base"
    elif train["alignment"] != "rule" or not (train["rho"] or train["mse_weight"]):
        return None  # a teacher's layers without its logits, too
    elif not train["mse_weight"]:
        role = "kd"
    else:
        role = f"kd-{train['interpolation']}"
    if "init" not in recipe["inputs"]:
        return role
    before = run_before(recipe)
    if before is None:
        return None if role == "base" else role
    return role if _role(before[1]) == role else None


def _teacher(path: Path, recipe: Mapping[str, Any]) -> list[Measured]:
    """An encoder that was fine-tuned on the whole set, or on what least confidence chose; of another part no row."""
    found = describe_teacher(str(path))
    role, questions = _teachers_role(found), found["questions"]
    if role is None:
        return []
    passes, least = recipe["train"]["epochs"], recipe["train"].get("least_updates") is not None
    size = f"{_passes(passes)}{' at least' if least else ''} over {questions:,} questions"
    notes = [Path(recipe["encoder"]["name"]).name, size, *teacher_deviations(recipe)]
    return _scores(path, role, made=identity(path, recipe), cost=questions * passes, notes=notes)


def _experiments_teacher(path: Path, record: Mapping[str, Any]) -> list[Measured]:
    """The teacher that an experiment's students learned from."""
    role, questions = _teachers_role(record), record["questions"]
    if role is None:
        return []
    size = "trained elsewhere" if questions is None else f"trained on {questions:,} questions"
    weights = {one["weights_sha256"] for one in read_evaluations(path).values()}
    made = (" ".join(sorted(weights)), ())
    return _scores(path, role, made=made, cost=questions or 0, notes=(str(record["name"]), size))


def _teachers_role(found: Mapping[str, Any]) -> str | None:
    """The row of a teacher as `describe_teacher` has it; None if there is none."""
    if found["chosen"]:
        return "teacher:chosen"
    whole = found["squad"] is None or found["questions"] == whole_size("train")
    return "teacher:all" if whole else None


def _loops_teacher(loop: Loop) -> list[Measured]:
    """The encoder fine-tuned on what least confidence chose, as Table 6 has it."""
    if loop.strategy != "least-confidence" or loop.kind != "teacher":
        return []
    return [
        Measured(
            role="teacher:chosen",
            data="dev",
            settings=f"{loop.settings} {loop.pace}",
            seeds=(loop.seed,),
            exact_match=found["exact_match"],
            f1=found["f1"],
            total=int(found["total"]),
            cost=share * loop.pool * loop.recipe["learner"]["settings"]["epochs"],
            notes=loop_notes(loop),
        )
        for share, found in loop.points.items()
        if abs(share - CHOSEN) < NEAR
    ]


def _passes(count: float) -> str:
    return f"{count:g} pass{'' if count == 1 else 'es'}"
