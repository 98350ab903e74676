"""Other paragraphs of a question's article, which do not hold the answer: what makes logits of windows comparable.

Start and end losses do not care about a constant added to all logits of a context. Where a question is asked of two
paragraphs at once and the softmax runs over both, logits of the one without the answer have to be lower (Clark and
Gardner, 2018, "shared normalization").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import Features
from qa_edge.progress import progress

# Of an article's paragraphs those that share most with the question's words: the ones that it could be mistaken in.
CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class Others:
    """Draws a paragraph for some questions.

    :param candidates: rows of contexts, best first, -1 where there are fewer, shape (questions, CANDIDATES).
    :param share: of the questions that get one, 0 to 1.
    :param generator: of this update.
    """

    candidates: NDArray[np.int32]
    share: float
    generator: np.random.Generator

    def draw(self, rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Places among `rows` of the questions that get a paragraph, and the context row of each one's."""
        chosen = np.flatnonzero(self.generator.random(len(rows)) < self.share)
        places, paragraphs = [], []
        for place, at in zip(chosen.tolist(), self.generator.random(len(chosen)).tolist(), strict=True):
            found = self.candidates[rows[place]]
            count = int((found >= 0).sum())
            if count:
                places.append(place)
                paragraphs.append(int(found[int(at * count)]))
        return places, paragraphs


def find_candidates(features: Features) -> NDArray[np.int32]:
    """For each question the other paragraphs of its article that share most with its words and lack the answer's text.

    Words count by how rare they are among the article's paragraphs.

    :return: rows of contexts, best first, -1 where there are fewer, int32, shape (questions, CANDIDATES).
    """
    candidates = np.full((len(features), CANDIDATES), -1, np.int32)
    articles = features.context_article[features.question_context]
    with progress("paragraphs", len(features)) as advance:
        for article in np.unique(features.context_article):
            contexts = np.flatnonzero(features.context_article == article)
            questions = np.flatnonzero(articles == article)
            _of_article(features, contexts, questions, candidates)
            advance(len(questions))
    return candidates


def _of_article(
    features: Features, contexts: NDArray[np.int64], questions: NDArray[np.int64], candidates: NDArray[np.int32]
) -> None:
    texts = [features.context_text(context).lower() for context in contexts]
    holding = _words(features.context_tokens, features.context_offsets, contexts, len(features.form_words))
    asking = _words(features.question_tokens, features.question_offsets, questions, len(features.form_words))
    forms = np.flatnonzero(asking.any(axis=0) & holding.any(axis=0))
    rarity = np.log1p(len(contexts) / (1.0 + holding[:, forms].sum(axis=0)))
    scores = (asking[:, forms] * rarity).astype(np.float32) @ holding[:, forms].T.astype(np.float32)
    for row, score in zip(questions, scores, strict=True):
        own, answer = features.question_context[row], _answer(features, row)
        kept = [
            contexts[place]
            for place in np.argsort(-score, kind="stable")
            if contexts[place] != own and (answer is None or answer not in texts[place])
        ][:CANDIDATES]
        candidates[row, : len(kept)] = kept


def _words(
    tokens: NDArray[np.int32], offsets: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64], forms: int
) -> NDArray[np.bool_]:
    """Which surface forms each row holds, shape (rows, forms)."""
    found = np.zeros((len(rows), forms), np.bool_)
    for place, row in enumerate(rows):
        found[place, tokens[offsets[row] : offsets[row + 1]]] = True
    return found


def _answer(features: Features, row: int) -> str | None:
    start, end = int(features.answer_start[row]), int(features.answer_end[row])
    if start < 0:
        return None
    context = int(features.question_context[row])
    first = int(features.context_offsets[context])
    text = features.context_text(context)
    return text[features.context_starts[first + start] : features.context_ends[first + end]].lower()
