"""Which questions are trained on and which are held out; samples of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge.squad import Article, Paragraph, Squad
from qa_edge_runtime.errors import DataError, InputError

SHARE_SEED = 0
"""Of which articles a share is drawn: the same for all runs of all experiments, so that shares can be compared."""


class TrainingParagraph(NamedTuple):
    """A paragraph with the numbers of its article, of its context and of its first question in the SQuAD file."""

    article: int
    context: int
    question: int
    paragraph: Paragraph


def drawn_articles(count: int, share: float, seed: int = SHARE_SEED) -> NDArray[np.int64]:
    """Places of a share of so many articles, one at least, in order; a larger share holds all of a smaller one."""
    if not 0 < share <= 1:
        raise InputError(f"share is {share}, expected 0 < share <= 1")
    wanted = max(1, round(share * count))
    return np.sort(np.random.default_rng(seed).permutation(count)[:wanted])


def split_articles(squad: Squad, share: float, seed: int) -> tuple[list[TrainingParagraph], Squad]:
    """Split by whole articles, so that no held-out context is ever seen; those that share a context stay together.

    :returns: training paragraphs, and the held-out articles as a data set of their own.
    """
    groups = _sharing_contexts(squad)
    count = round(len(groups) * share)
    if share and len(groups) > 1:
        count = min(max(count, 1), len(groups) - 1)
    drawn = np.random.default_rng(seed).permutation(len(groups))[:count].tolist()
    chosen = {index for group in drawn for index in groups[group]}
    training = []
    context_number = question_number = 0
    for index, article in enumerate(squad.articles):
        for paragraph in article.paragraphs:
            if index not in chosen:
                training.append(TrainingParagraph(index, context_number, question_number, paragraph))
            context_number += 1
            question_number += sum(not question.impossible for question in paragraph.questions)
    articles = tuple(article for index, article in enumerate(squad.articles) if index in chosen)
    return training, Squad(articles=articles, version=squad.version, sha256=squad.sha256)


def _sharing_contexts(squad: Squad) -> list[list[int]]:
    """Places of the articles in groups, by their first: a context that stands in two articles joins them.

    Many tools write an article a question, with the text in each.
    """
    first: dict[str, int] = {}
    parent = list(range(len(squad.articles)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for index, article in enumerate(squad.articles):
        for paragraph in article.paragraphs:
            low, high = sorted((root(first.setdefault(paragraph.context, index)), root(index)))
            parent[high] = low
    groups: dict[int, list[int]] = {}
    for index in range(len(parent)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


def split_of(checkpoint: Path, squad_sha256: str) -> dict[str, Any]:
    """`heldout` and `seed` by which a checkpoint split a SQuAD file; nothing if it was trained on another one."""
    if not (checkpoint / RECIPE).exists():
        return {}
    recipe = read_recipe(checkpoint)
    try:
        if recipe["inputs"]["squad"]["sha256"] == squad_sha256:
            return {name: recipe["prepare"][name] for name in ("heldout", "seed")}
    except (KeyError, TypeError):  # of a run on features alone, or no recipe of distill
        pass
    return {}


def require_unseen(init: Path, squad_sha256: str, *, heldout: float, seed: int) -> None:
    """Refuse to hold out articles that the checkpoint to go on from was trained on: their scores would flatter.

    :raises DataError: saying how the checkpoint split the file.
    """
    own = split_of(init, squad_sha256)
    if heldout and own and own != {"heldout": heldout, "seed": seed}:
        raise DataError(
            f"checkpoint {init} was trained on articles of this file that --heldout {heldout} --seed {seed} hold out: "
            f"prepare with --heldout {own['heldout']} --seed {own['seed']}, as it was, or with --heldout 0"
        )


def sample_articles(squad: Squad, questions: int, seed: int) -> Squad:
    """Whole articles drawn at random until they have at least so many answered questions, in file order."""
    wanted: set[int] = set()
    count = 0
    for index in np.random.default_rng(seed).permutation(len(squad.articles)).tolist():
        if count >= questions:
            break
        wanted.add(index)
        count += sum(
            bool(question.answers) for paragraph in squad.articles[index].paragraphs for question in paragraph.questions
        )
    articles = tuple(article for index, article in enumerate(squad.articles) if index in wanted)
    return Squad(articles=articles, version=squad.version)


def sample_questions(squad: Squad, count: int, seed: int) -> Squad:
    """At most `count` answered questions of a data set, with their contexts, in file order."""
    ids = [question.id for _, _, question in squad.items() if question.answers]
    chosen = set(np.random.default_rng(seed).permutation(np.asarray(ids, dtype=object))[:count].tolist())
    return only_questions(squad, chosen.__contains__)


def only_questions(squad: Squad, wanted: Callable[[str], bool]) -> Squad:
    """The questions whose ids are wanted, with their contexts, in file order."""
    articles = []
    for article in squad.articles:
        paragraphs = []
        for paragraph in article.paragraphs:
            questions = tuple(question for question in paragraph.questions if wanted(question.id))
            if questions:
                paragraphs.append(Paragraph(context=paragraph.context, questions=questions))
        if paragraphs:
            articles.append(Article(title=article.title, paragraphs=tuple(paragraphs)))
    return Squad(articles=tuple(articles), version=squad.version, sha256=squad.sha256)
