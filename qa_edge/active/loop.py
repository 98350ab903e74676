"""Pool-based active learning, the paper's Algorithm 1: choose, label, train, and again.

Labels are those of the data set: a question's answers are shown when it is chosen. Each cycle has a folder with
`chosen.json`, `scores/` (by the last cycle's model, of what was left then), `train.json`, `model/` and `metrics.json`,
written in this order, so that a loop that was killed anywhere goes on where it was. `train.json` holds all questions
that are labelled by then as SQuAD JSON: whatever reads a data set takes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge.accelerator import agreed, open_processes
from qa_edge.active.clusters import Encoder
from qa_edge.active.curve import CURVE
from qa_edge.active.cycles import LoopSettings, labelled_counts
from qa_edge.active.pool import Pool, part_of
from qa_edge.active.scores import Scores, score_pool
from qa_edge.active.strategies import Candidates, LeastConfidenceClusters, Random, choose, open_strategy
from qa_edge.lock import alone_in
from qa_edge.recipe import Input, settle_recipe
from qa_edge.squad import Squad, read_squad, write_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_write, read_json

if TYPE_CHECKING:
    from qa_edge.active.learners import Learner

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One point of the learning curve.

    :param questions: labelled when the model was trained; `share` of all.
    :param scores: `exact_match` and `f1` on the development set, percent, of `total` questions.
    """

    cycle: int
    questions: int
    share: float
    scores: Mapping[str, Any]


def run_loop(
    squad_path: str | Path,
    learner: Learner,
    folder: str | Path,
    *,
    settings: LoopSettings | None = None,
    encoder: Encoder | None = None,
    max_cycles: int | None = None,
    log: Log = lambda message: None,
) -> list[Cycle]:
    """Go through all cycles; what an interrupted loop has done is kept.

    Under `accelerate launch` the processes train together and share the scoring; the main one chooses.

    :param squad_path: the whole data set with its answers; questions without one are left out.
    :param encoder: of sentences, for `least-confidence-clusters`.
    :param max_cycles: stop, to be gone on with, after so many.
    :returns: the learning curve as far as it was asked for; `curve.json` holds all cycles there are.
    :raises DataError: if the folder was begun with other data or settings.
    :raises InputError: if the strategy is unknown, or needs a teacher that the learner has not.
    """
    settings, folder = settings or LoopSettings(), Path(folder)
    strategy = open_strategy(settings.strategy, encoder)
    if strategy.needs_teacher and not learner.has_teacher:
        raise InputError(f"strategy {strategy.name} compares a student with its teacher: give a student that has one")
    state = open_processes()
    with alone_in(folder, enabled=state.is_main_process):
        squad = read_squad(squad_path)
        answered = [question.id for _, _, question in squad.items() if question.answers]
        counts = labelled_counts(len(answered), settings)
        if state.is_main_process:
            inputs = {"squad": asdict(Input.of(squad_path, "SQuAD file"))}
            dev = getattr(learner, "dev", None)
            if dev is not None:
                inputs["dev"] = asdict(Input.of(dev, "SQuAD file"))
            # How far to go decides nothing before: a loop that ended at 40 % is gone on with to 100 %.
            loop = {name: value for name, value in asdict(settings).items() if name != "budget"}
            recipe: dict[str, Any] = {
                "kind": "active",
                "inputs": inputs,
                "loop": loop,
                "learner": dict(learner.recipe()),
            }
            if isinstance(strategy, LeastConfidenceClusters):
                recipe["sentence_encoder"] = getattr(encoder, "entry", None)
            settle_recipe(folder, recipe, begun=any(folder.glob("cycle-*")))
        state.wait_for_everyone()
        labelled: list[str] = []
        curve: list[Cycle] = []
        for number, count in enumerate(counts[:max_cycles]):
            here = _folder(folder, number)
            before = _folder(folder, number - 1) / "model" if number else None
            if not agreed((here / "chosen.json").exists()):
                pool = _rest(squad, Path(squad_path), set(answered) - set(labelled))
                wanted = count - len(labelled)
                chosen = Random() if before is None else strategy
                scores = None
                # Where all that is left is taken there is nothing to choose.
                if before is not None and chosen.needs_model and wanted < len(pool):
                    reader = learner.open(before)
                    log(f"cycle {number}: {len(pool):,} questions are read by the model of cycle {number - 1}")
                    score_pool(
                        pool,
                        reader,
                        here / "scores",
                        teacher=learner.open_teacher(before) if chosen.needs_teacher else None,
                        process=state.process_index,
                        processes=state.num_processes,
                    )
                    state.wait_for_everyone()
                    scores = Scores(here / "scores", pool)
                if state.is_main_process:
                    candidates = Candidates(
                        ids=pool.ids,
                        questions=pool.questions,
                        contexts=pool.contexts,
                        probabilities=None if scores is None else scores.probabilities,
                        disagreement=None if scores is None else scores.disagreement,
                    )
                    if wanted == len(pool):
                        ids = list(pool.ids)
                    else:
                        rows = choose(candidates, chosen, wanted, seed=settings.seed * 1000 + number)
                        ids = [pool.ids[row] for row in rows]
                    here.mkdir(parents=True, exist_ok=True)
                    atomic_write(here / "chosen.json", json.dumps({"strategy": chosen.name, "ids": ids}) + "\n")
                state.wait_for_everyone()
            labelled += _chosen(here / "chosen.json", count - len(labelled), set(answered) - set(labelled))
            if not agreed((here / "metrics.json").exists()):
                if state.is_main_process and not (here / "train.json").exists():
                    write_squad(here / "train.json", part_of(squad, labelled))
                state.wait_for_everyone()
                log(f"cycle {number}: training on {count:,} questions, {count / len(answered):.1%}")
                start = before if settings.start == "last" else None
                found = learner.train(here / "train.json", here / "model", before=start, seed=settings.seed, log=log)
                if state.is_main_process:
                    kept = {name: found[name] for name in ("exact_match", "f1", "total") if name in found}
                    values = {"cycle": number, "questions": count, "share": count / len(answered), "scores": kept}
                    atomic_write(here / "metrics.json", json.dumps(values, indent=1) + "\n")
                state.wait_for_everyone()
            curve.append(_cycle(here / "metrics.json"))
            if state.is_main_process:
                _write_curve(folder, settings.strategy)
            log(f"cycle {number}: {curve[-1].scores}")
        return curve


def _folder(folder: Path, number: int) -> Path:
    return folder / f"cycle-{number:03d}"


def _rest(squad: Squad, path: Path, left: set[str]) -> Pool:
    """The pool of a cycle: what is not labelled yet, with a hash of its own."""
    items = [(paragraph.context, question) for _, paragraph, question in squad.items() if question.id in left]
    ids = [question.id for _, question in items]
    digest = hashlib.sha256("\n".join([squad.sha256, *ids]).encode()).hexdigest()
    return Pool(
        path=path,
        squad=replace(squad, sha256=digest),
        ids=ids,
        questions=[question.text for _, question in items],
        contexts=[context for context, _ in items],
        labelled=(),
    )


def read_choice(path: Path) -> list[str]:
    """Ids of the questions that a cycle's `chosen.json` names.

    :raises DataError: if it cannot be read.
    """
    found = read_json(path, "choice")
    ids = found.get("ids") if isinstance(found, dict) else None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise DataError(f"{path} is damaged: it names no questions; remove this cycle's folder and later ones")
    return ids


def _chosen(path: Path, count: int, left: set[str]) -> list[str]:
    ids = read_choice(path)
    if len(ids) != count or len(set(ids) & left) != count:
        raise DataError(
            f"{path} does not hold {count:,} questions of the pool; if the last batch was cut short by a smaller "
            "--budget or the file is damaged, remove this cycle's folder and later ones"
        )
    return ids


def _write_curve(folder: Path, strategy: str) -> None:
    """Put all cycles that have been scored into `curve.json`, later ones than this command asks for too."""
    cycles: list[dict[str, Any]] = []
    while (path := _folder(folder, len(cycles)) / "metrics.json").exists():
        cycles.append(asdict(_cycle(path)))
    text = json.dumps({"strategy": strategy, "cycles": cycles}, indent=1) + "\n"
    if not (folder / CURVE).exists() or (folder / CURVE).read_text(encoding="utf-8") != text:
        atomic_write(folder / CURVE, text)


def _cycle(path: Path) -> Cycle:
    found = read_json(path, "metrics")
    try:
        return Cycle(**found)
    except TypeError as error:
        raise DataError(f"{path} is not what a cycle wrote ({error}); remove it and run again") from error
