"""Runs as distill, active, teach and experiments leave them, without what the report does not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qa_edge.active.cycles import LoopSettings
from qa_edge.experiments.report import PaperReport
from qa_edge.recipe import Input
from qa_edge.teach_settings import TeachSettings
from qa_edge.train_settings import TrainSettings


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(
    folder: Path,
    f1: float,
    *,
    train: Mapping[str, Any],
    total: int = 10_570,
    share: float = 1.0,
    questions: int = 83_000,
    chosen: str | None = None,
    others: Mapping[str, float] | None = None,
    taught: bool = True,
    steps: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """A student of distill and of an experiment; `steps` are those of its passes if not given."""
    settings = {**asdict(TrainSettings()), **train}
    recipe = {"kind": "distill", "inputs": dict(inputs or {}), "teacher": None if taught else "none"}
    recipe |= {"student": {"preset": "paper"}, "train": settings, "prepare": {}, "label": {}}
    write(folder / "recipe.json", {"format_version": 1, **recipe})
    data = {"questions": questions, "share": share, "name": "train-v1.1.json", "chosen": chosen}
    made = settings["epochs"] * (questions // settings["batch_size"]) if steps is None else steps
    record = {"format_version": 1, "kind": "distill", "data": data, "teacher": None, "steps": made}
    record |= {"training_hours": 1.0, "parameters": 1_300_000}
    write(folder / "experiment.json", record)
    scores = {"dev": f1, **(others or {})}
    sizes = {"dev": total, "AddSent": 3560, "AddOneSent": 1787}
    found = {
        key: {"on": f"{key}.json", "exact_match": value - 10, "f1": value, "total": sizes[key], "sha256": key}
        for key, value in scores.items()
    }
    write(folder / "evaluations.json", found)


def write_loop(
    folder: Path,
    strategy: str,
    scores: Mapping[float, float],
    *,
    pool: int = 8000,
    learner: Mapping[str, Any] | None = None,
    teach: Mapping[str, Any] | None = None,
    **changed: Any,
) -> None:
    """A loop as qa-edge active leaves it, of a teacher unless another learner is given."""
    loop = {**asdict(LoopSettings(strategy=strategy)), **changed}
    settings = {**asdict(TeachSettings()), **(teach or {})}
    del loop["budget"], settings["seed"]  # which the recipe does not have
    inputs = {"squad": {"path": f"/pool-{pool}.json", "sha256": str(pool)}}
    learner = learner or {"kind": "teacher", "encoder": {"name": "minilm", "sha256": 64 * "a"}, "settings": settings}
    recipe = {"format_version": 1, "kind": "active", "inputs": inputs, "loop": loop, "learner": learner}
    write(folder / "recipe.json", recipe)
    cycles = [
        {
            "cycle": number,
            "questions": round(share * pool),
            "share": share,
            "scores": {"exact_match": value - 10, "f1": value, "total": 2000},
        }
        for number, (share, value) in enumerate(scores.items())
    ]
    write(folder / "curve.json", {"strategy": strategy, "cycles": cycles})


HARD, KD = {"rho": 0.0, "mse_weight": 0.0}, {"mse_weight": 0.0}


def write_teacher(folder: Path, squad: Path, f1: float, **changed: Any) -> None:
    """An encoder that qa-edge teach fine-tuned on a SQuAD file."""
    inputs = {"squad": asdict(Input.of(squad, "SQuAD file"))}
    train = {**asdict(TeachSettings()), **changed}
    recipe = {"kind": "teach", "encoder": {"name": "bert-large"}, "inputs": inputs, "train": train}
    write(folder / "recipe.json", {"format_version": 1, **recipe})
    write(folder / "scores.json", {"exact_match": f1 - 10, "f1": f1, "total": 10_570, "on": "dev.json", "sha256": "d"})


def cell(report: PaperReport, number: str, name: str, column: int = 0) -> tuple[float | None, float]:
    (row,) = (row for row in report.table(number).rows if row.name == name)
    return row.cells[column].here, row.cells[column].paper
