"""The questions that a run held out: drawn once, told again by its recipe, and known by their texts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from qa_edge.features import HELDOUT
from qa_edge.recipe import read_recipe
from qa_edge.split import sample_questions, split_articles
from qa_edge.squad import Squad, read_squad
from qa_edge_runtime.errors import DataError

# Half of them calibrate an export, half verify it (qa_edge/bundle.py): on fewer than 1,000 an F1 is too noisy.
HELDOUT_QUESTIONS = 2400
TEXTS = "heldout_texts_sha256"
"""Entry of the recipe of a checkpoint that was kept: the hash that its held-out questions must have."""


class HeldOut(NamedTuple):
    """The articles that were held out, and those of their questions that a run evaluates on."""

    articles: Squad
    questions: Squad


def heldout_questions(heldout: Squad, seed: int) -> Squad:
    """The questions of the held-out articles that a run evaluates on, and leaves to export."""
    return sample_questions(heldout, HELDOUT_QUESTIONS, seed)


def texts_sha256(squad: Squad) -> str:
    """Hash of contexts, questions and answers in their order.

    Without ids and offsets, in which copies of a published file may differ from it.
    """
    texts = [
        (paragraph.context, question.text, [answer.text for answer in question.answers])
        for _, paragraph, question in squad.items()
    ]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def held_out(checkpoint: Path, squad: Squad, source: Path) -> HeldOut:
    """What a run, or a checkpoint that was kept of one, held out of the file that it was trained on.

    :param source: where `squad` was read, for messages.
    :raises DataError: if it held nothing out, or would have held out other questions of another file.
    """
    recipe = read_recipe(checkpoint)
    settings, train = _object(recipe.get("prepare")), _object(recipe.get("train"))
    share, seed, drawn = (
        _number(found) for found in (settings.get("heldout", 0.0), settings.get("seed", 0), train.get("seed", 0))
    )
    _, articles = split_articles(squad, share, seed)
    if not articles.articles:
        raise DataError(f"{checkpoint} was trained with nothing held out: there are no questions to tell")
    questions, known = heldout_questions(articles, drawn), recipe.get(TEXTS)
    if known is None and (checkpoint / HELDOUT).exists():
        known = texts_sha256(read_squad(checkpoint / HELDOUT))
    trained_on = _object(_object(recipe.get("inputs")).get("squad")).get("sha256")
    same = trained_on in (None, squad.sha256) if known is None else known == texts_sha256(questions)
    if not same:
        raise DataError(
            f"{source} is not the file that {checkpoint} was trained on: what it held out there has other texts; give "
            f"that file, or copy {HELDOUT} from the run's own folder"
        )
    return HeldOut(articles, questions)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Any:
    """A number of 0 or more, as a share and a seed are."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise DataError(f"the recipe has {value!r:.40} where a share of the articles or a seed is expected; mend it")
    return value
