"""What a run leaves beside its checkpoint: how it was made (`experiment.json`), what it answered, what that scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qa_edge.checkpoint import WEIGHTS
from qa_edge.evaluate import predict
from qa_edge.metrics import FILE as METRICS
from qa_edge.question_scores import QuestionScores, score_questions
from qa_edge.scores import settle_scores
from qa_edge.squad import Squad, read_squad, references
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, read_json, sha256_file
from qa_edge_runtime.scoring import Scores, read_predictions

RECORD = "experiment.json"
EVALUATIONS = "evaluations.json"
ANSWERS = "answers"
FORMAT_VERSION = 1
_KEYS = {
    "distill": {"data", "teacher", "steps", "training_hours", "parameters"},
    "active": {"strategy", "budget"},
    "teacher": {"name", "questions", "chosen"},
}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a finished run."""
    whole = {"format_version": FORMAT_VERSION, **record}
    atomic_write(folder / RECORD, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run; None if it has none, being unfinished or of no experiment.

    :raises DataError: if it is of another format, or damaged.
    """
    if not (folder / RECORD).exists():
        return None
    found = read_json(folder / RECORD, "record of a run")
    version = found.get("format_version") if isinstance(found, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{folder / RECORD} has format {version}, expected {FORMAT_VERSION}: use the qa-edge of the run"
        )
    lacking = sorted(_KEYS.get(str(found.get("kind")), {"kind"}) - found.keys())
    if lacking:
        raise DataError(
            f"{folder / RECORD} is damaged (it has no {lacking[0]}): remove it, and the experiment's command writes it"
            " again"
        )
    return dict(found)


def read_evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run scored, by test set: `exact_match`, `f1`, `total`, `of`, `on`, and the hashes of data and weights."""
    if not (folder / EVALUATIONS).exists():
        return {}
    found = read_json(folder / EVALUATIONS, "scores of a run")
    if not isinstance(found, dict) or any(not isinstance(one, dict) for one in found.values()):
        raise DataError(f"{folder / EVALUATIONS} is not what an experiment wrote there; remove it and run again")
    return found


def evaluate_run(
    folder: Path,
    key: str,
    path: Path,
    *,
    of: int,
    model: str | None = None,
    windows: tuple[int, int] = (384, 128),
    log: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Have a run answer a data set, keep the answers, and say what they score; nothing is answered twice.

    Of the whole development set, `scores.json` is written too, as by `distill --dev`.

    :param key: of the test set; its answers are `answers/KEY.json`.
    :param of: questions of the set that this one is drawn from.
    :param model: a teacher's name or folder, where `folder` holds its answers alone.
    :param windows: the pieces that this teacher reads at once, and by which its windows overlap.
    """
    held = folder / WEIGHTS if model is None else Path(model) / WEIGHTS
    weights = sha256_file(held) if model is None or held.exists() else f"teacher {model}"
    sha256 = sha256_file(path)
    evaluations, answers = read_evaluations(folder), folder / ANSWERS / f"{key}.json"
    found = evaluations.get(key)
    if found and found.get("sha256") == sha256 and found.get("weights_sha256") == weights and answers.exists():
        return found
    squad = read_squad(path)
    log(f"{folder.name} answers {path.name}")
    predictions = predict(folder, squad) if model is None else _of_teacher(model, windows, squad)
    scores = score_questions(references(squad), predictions)
    answers.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(answers, json.dumps(predictions, ensure_ascii=False) + "\n")
    found = {
        "on": path.name,
        "exact_match": scores.exact_match_percent,
        "f1": scores.f1_percent,
        "total": len(scores.ids),
        "of": of,
        "sha256": sha256,
        "weights_sha256": weights,
    }
    # Read again: another test set may have been scored meanwhile.
    whole = {**read_evaluations(folder), key: found}
    atomic_write(folder / EVALUATIONS, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if key == "dev" and found["total"] == of and model is None:
        measured = Scores(exact_match=found["exact_match"], f1=found["f1"], total=found["total"])
        settle_scores(folder, path.name, sha256, lambda: measured)
    return found


def _of_teacher(name: str, windows: tuple[int, int], squad: Squad) -> dict[str, str]:
    from qa_edge.accelerator import open_processes
    from qa_edge.evaluate import predict_with_teacher
    from qa_edge.teacher import Teacher

    window, stride = windows
    teacher = Teacher.load(name, device=str(open_processes().device), window=window, stride=stride)
    return predict_with_teacher(teacher, squad)


def question_scores(folder: Path, key: str, truths: Mapping[str, list[str]]) -> QuestionScores | None:
    """What each answer of a run scores; None if it did not answer this set."""
    path = folder / ANSWERS / f"{key}.json"
    return score_questions(truths, read_predictions(path)) if path.exists() else None


def training_course(run: Path, batch_size: int) -> dict[str, Any]:
    """Updates, hours of training and held-out scores of a run, from its curve.

    Hours are those of the updates alone: evaluations, and what a kill undid, are not in them.
    """
    steps, hours, evaluations = 0, 0.0, []
    for line in (run / METRICS).read_text(encoding="utf-8").splitlines() if (run / METRICS).exists() else []:
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # cut by a kill
            continue
        if found.get("kind") == "training":
            if found.get("questions_an_hour"):
                hours += (found["step"] - steps) * batch_size / found["questions_an_hour"]
            steps = found["step"]
        elif found.get("kind") == "evaluation":
            evaluations.append(found)
    best = max(evaluations, key=lambda one: one["ema_f1"], default=None)
    return {
        "steps": steps,
        "training_hours": round(hours, 4),
        "heldout": None if best is None else {"exact_match": best["ema_exact_match"], "f1": best["ema_f1"]},
    }
