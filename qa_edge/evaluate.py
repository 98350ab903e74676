"""Answers to all questions of a data set by whatever can answer them: a bundle, a run, a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qa_edge.progress import progress
from qa_edge.squad import Squad
from qa_edge_runtime.bundle import is_single_file
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qa_edge.labels import Labels
    from qa_edge.teacher import Pieces, Teacher
    from qa_edge_runtime.answers import Answer

KINDS = ("bundle", "run", "teacher")
TEACHER_QUESTIONS = 256


def predict(
    path: str | Path,
    squad: Squad,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    max_windows: int | None = None,
    device: str | None = None,
) -> dict[str, str]:
    """The answer to every question of a data set that is not marked impossible, by question id.

    :param path: a bundle (the device runtime answers), a run's folder (torch) or a teacher's folder.
    :param engine: of a bundle, and `precision` and `threads`; see `Answerer.load`.
    :param max_windows: of a bundle; see `Passage.answers`.
    :param device: where a run or a teacher computes; None lets accelerate choose.
    :raises DataError: if the folder is none of these.
    """
    kind = model_kind(path)
    if kind == "bundle":
        found = answers_of_bundle(
            path, squad, engine=engine, precision=precision, threads=threads, max_windows=max_windows
        )
        return {identifier: answer.text for identifier, answer in found.items()}
    if engine is not None or precision is not None or max_windows is not None:
        raise InputError(f"{path} is a {kind}, which torch runs: engine, precision and max_windows are a bundle's")
    from qa_edge.accelerator import open_processes

    device = device or str(open_processes().device)
    if kind == "run":
        from qa_edge.trained import TrainedStudent

        student = TrainedStudent.load(path)
        student.model.to(device)
        return student.predict(squad)
    from qa_edge.teacher import Teacher

    return predict_with_teacher(Teacher.load(str(path), device=device), squad)


def model_kind(path: str | Path) -> str:
    """What a folder holds: one of `KINDS`.

    :raises DataError: if it holds none of them, saying what it is where that is known.
    """
    folder = Path(path)
    expected = "expected a bundle (export writes it) or a run's folder (distill writes it)"
    if folder.is_file() and is_single_file(folder):
        return "bundle"
    if not folder.is_dir():
        raise DataError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; {expected}")
    if (folder / "features.safetensors").exists() or (folder / "contexts.safetensors").exists():
        made = (
            "features that prepare wrote, which cannot answer"
            if (folder / "features.safetensors").exists()
            else "labels that label wrote, which qa-edge labels score scores"
        )
        raise DataError(f"{folder} holds {made}; {expected}")
    if (folder / "manifest.json").exists():
        return "bundle"
    if (folder / "config.json").exists():
        config: Any = read_json(folder / "config.json", "model config")
        return "teacher" if isinstance(config, dict) and "architectures" in config else "run"
    if (folder / "recipe.json").exists():
        raise DataError(f"{folder} has no checkpoint yet: go on with it first, by the command that began it")
    raise DataError(f"{folder} has neither a manifest.json nor a config.json; {expected}")


def answers_of_bundle(
    path: str | Path,
    squad: Squad,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    max_windows: int | None = None,
) -> dict[str, Answer]:
    """A bundle's answers through the device runtime, with all that it tells of them; needs its engine and no torch."""
    from qa_edge_runtime.answerer import Answerer

    answers: dict[str, Answer] = {}
    answerer = Answerer.load(path, engine=engine, precision=precision, threads=threads)
    with answerer, progress("evaluate", _count(squad)) as advance:
        for _, paragraph in squad.paragraphs():
            questions = [question for question in paragraph.questions if not question.impossible]
            if not questions:
                continue
            passage = answerer.read(paragraph.context)
            for question in questions:
                try:
                    answers[question.id] = passage.answer(question.text, max_windows=max_windows)
                except InputError as error:
                    raise DataError(f"question {question.id}: {error}") from error
                advance(1)
    return answers


def predict_with_teacher(teacher: Teacher, squad: Squad, *, precision: str = "fp32") -> dict[str, str]:
    """A teacher's answers: windows merged, the best span of at most 30 pieces (BERT's limit)."""
    items = [(paragraph.context, question) for _, paragraph, question in squad.items()]
    predictions: dict[str, str] = {}
    with progress("evaluate", len(items)) as advance:
        for first in range(0, len(items), TEACHER_QUESTIONS):
            part = items[first : first + TEACHER_QUESTIONS]
            found = teacher.logits([q.text for _, q in part], [context for context, _ in part], precision=precision)
            for (context, question), logits in zip(part, found, strict=True):
                predictions[question.id] = _span_text(context, logits.pieces, logits.start, logits.end)
            advance(len(part))
    return predictions


def predict_with_labels(labels: Labels, squad: Squad) -> dict[str, str]:
    """What the teacher of some labels, or the mean of several, answers to the questions that were labelled.

    :param squad: the whole file that was labelled, as it was read.
    :raises DataError: if it is other data, or a shard is damaged.
    """
    labels.require(squad.sha256)
    predictions: dict[str, str] = {}
    place = 0
    with progress("score", labels.questions) as advance:
        for number, (_, paragraph) in enumerate(squad.paragraphs()):
            pieces = labels.pieces(number)
            for question in paragraph.questions:
                if question.impossible:
                    continue
                start, end = (logits.astype(np.float32) for logits in labels.logits(place))
                predictions[question.id] = _span_text(paragraph.context, pieces, start, end)
                place += 1
                advance(1)
    return predictions


def _span_text(context: str, pieces: Pieces, start: NDArray[np.float32], end: NDArray[np.float32]) -> str:
    if not len(start):  # a text of which the teacher reads nothing, such as U+200B alone
        return ""
    (span,) = decode_spans(start, end)
    return context[int(pieces.starts[span.start]) : int(pieces.ends[span.end])].strip()


def _count(squad: Squad) -> int:
    return sum(1 for _ in squad.items())
