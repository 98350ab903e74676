"""Choose the questions of a pool that are worth labelling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qa_edge.active.duplicates import NearDuplicates
from qa_edge.active.label_studio import tasks
from qa_edge.active.pool import Pool, part_of
from qa_edge.active.scores import Scores
from qa_edge.active.strategies import Candidates, Strategy, choose
from qa_edge.squad import Paragraph, Question, Squad, read_squad, squad_json
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.files import atomic_write, require_other_file


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was chosen of a pool.

    :param ids: of the questions chosen, most informative first.
    :param squad: the same in the pool's order, with their contexts.
    :param candidates: questions that could have been chosen.
    """

    ids: tuple[str, ...]
    squad: Squad
    candidates: int


def select(
    pool: Pool,
    strategy: Strategy,
    count: int,
    *,
    scores: Scores | None = None,
    without: Sequence[str | Path] = (),
    similarity: float | None = None,
    seed: int = 0,
) -> Selection:
    """Choose `count` questions of a pool.

    :param scores: of a model over this pool, for strategies that need one.
    :param without: SQuAD files of earlier rounds: their questions are not chosen again.
    :param similarity: Jaccard similarity from which two questions about the same text are nearly the same, of which one
        is chosen; None lets all be chosen. See `qa_edge.active.duplicates`.
    :raises InputError: if the count is larger than what is left of the pool, or scores are needed and not there.
    :raises DataError: if a file of an earlier round cannot be read, or too few questions are different.
    """
    if strategy.needs_model and scores is None:
        raise InputError(f"strategy {strategy.name} needs a model: name one with --model")
    if strategy.needs_teacher and (scores is None or scores.disagreement is None):
        raise InputError(f"strategy {strategy.name} needs a teacher beside the model: name one with --teacher")
    earlier = _earlier(without)
    taken = {question.id for _, _, question in earlier}
    known = [*pool.labelled, *((paragraph.context, question.text) for _, paragraph, question in earlier)]
    rows = np.array([row for row, identity in enumerate(pool.ids) if identity not in taken], np.int64)
    candidates = Candidates(
        ids=[pool.ids[row] for row in rows],
        questions=[pool.questions[row] for row in rows],
        contexts=[pool.contexts[row] for row in rows],
        probabilities=None if scores is None else scores.probabilities[rows],
        disagreement=None if scores is None or scores.disagreement is None else scores.disagreement[rows],
    )
    duplicates = None if similarity is None else NearDuplicates(similarity, known)
    chosen = choose(candidates, strategy, count, seed=seed, duplicates=duplicates)
    ids = tuple(candidates.ids[index] for index in chosen)
    return Selection(ids=ids, squad=part_of(pool.squad, ids), candidates=len(candidates))


def _earlier(without: Sequence[str | Path]) -> list[tuple[int, Paragraph, Question]]:
    """All questions of earlier rounds, as `Squad.items` has them."""
    return [item for path in without for item in read_squad(path).items(impossible=True)]


def require_count(pool: Pool, count: int, without: Sequence[str | Path] = ()) -> None:
    """Look at the count before a model reads the pool.

    :param without: as `select` has it.
    :raises InputError: if it is more than the pool has, or than is left of it.
    :raises DataError: if a file of an earlier round cannot be read.
    """
    taken = {question.id for _, _, question in _earlier(without)}
    left = len(pool) - len(taken.intersection(pool.ids))
    if count > left:
        rest = "" if left == len(pool) else f" that are left of the {len(pool):,}"
        raise InputError(
            f"count {count:,} is more than the {left:,} questions{rest} of {pool.path}; choose a smaller one"
        )


def write_selection(
    selection: Selection,
    path: str | Path,
    *,
    label_studio: bool = False,
    inputs: Sequence[str | Path] = (),
    force: bool = False,
) -> None:
    """Write the chosen questions, as SQuAD JSON or as tasks for Label Studio, those most informative first.

    :param inputs: files that are not to be written over.
    :param force: replace a file that holds something else.
    :raises InputError: if `path` is one of the inputs, or holds something else and is not to be replaced.
    :raises DataError: if it cannot be written.
    """
    require_other_file(path, *inputs)
    if label_studio:
        text = json.dumps(tasks(selection.squad, selection.ids), ensure_ascii=False, indent=1) + "\n"
    else:
        text = squad_json(selection.squad)
    path = Path(path)
    # The same again harms nobody: two processes that end at once both choose.
    if not force and path.exists() and not (path.is_file() and path.read_bytes() == text.encode("utf-8")):
        raise InputError(f"{path} exists already; name another path, or pass --force to replace it")
    atomic_write(path, text)
