"""Which questions are trained on and which are held out; samples of a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qa_edge.squad import Article, Paragraph, Squad
from qa_edge_runtime.errors import InputError

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
    """Split by whole articles, so that no held-out context is ever seen.

    :returns: training paragraphs, and the held-out articles as a data set of their own.
    """
    count = round(len(squad.articles) * share)
    if share and len(squad.articles) > 1:
        count = min(max(count, 1), len(squad.articles) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(squad.articles))[:count].tolist())
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
    articles = []
    for article in squad.articles:
        paragraphs = []
        for paragraph in article.paragraphs:
            questions = tuple(question for question in paragraph.questions if question.id in chosen)
            if questions:
                paragraphs.append(Paragraph(context=paragraph.context, questions=questions))
        if paragraphs:
            articles.append(Article(title=article.title, paragraphs=tuple(paragraphs)))
    return Squad(articles=tuple(articles), version=squad.version, sha256=squad.sha256)
