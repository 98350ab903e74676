"""Questions that are nearly the same: an annotator is not asked twice."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.errors import InputError
from qa_edge_runtime.scoring import normalize_answer

if TYPE_CHECKING:
    from qa_edge.active.strategies import Candidates

SIMILARITY = 0.8
# Words that change what is asked, however many others are the same.
_DECISIVE = frozenset(
    [
        "who",
        "whom",
        "whose",
        "what",
        "which",
        "when",
        "where",
        "why",
        "how",
        "much",
        "many",
        "often",
        "long",
        "old",
        "far",
        "first",
        "last",
        "before",
        "after",
        "not",
        "no",
        "never",
        "dont",
        "didnt",
        "doesnt",
        "isnt",
        "wasnt",
        "arent",
        "werent",
        "cant",
        "couldnt",
        "wont",
        "wouldnt",
    ]
)


def question_words(question: str) -> frozenset[str]:
    """A question's words as the official scoring normalises them: lower case, no punctuation, no articles."""
    return frozenset(normalize_answer(question).split())


def nearly_same(one: str, other: str, similarity: float = SIMILARITY) -> bool:
    """Whether two questions about the same text ask the same in nearly the same words.

    Their Jaccard similarity |A & B| / |A | B| over normalised words is at least `similarity`, and they share every
    question word, negation and word with a digit: *When was it built?* is not *Where was it built?*.
    """
    return _same(question_words(one), question_words(other), similarity)


def _same(one: frozenset[str], other: frozenset[str], similarity: float) -> bool:
    if not one or not other:
        return one == other
    # The first bound saves most of the work.
    if min(len(one), len(other)) < similarity * max(len(one), len(other)):
        return False
    if len(one & other) < similarity * len(one | other):
        return False
    return not any(word in _DECISIVE or re.search(r"\d", word) for word in one ^ other)


class NearDuplicates:
    """Finds the first questions of a ranking that are not nearly the same as one before them.

    :param similarity: Jaccard similarity from which two questions about the same text are the same, 0 to 1.
    :param known: (context, question) pairs that are labelled or chosen already.
    """

    def __init__(self, similarity: float = SIMILARITY, known: Iterable[tuple[str, str]] = ()) -> None:
        if not 0 < similarity <= 1:
            raise InputError(f"similarity is {similarity}, expected a number above 0, at most 1")
        self.similarity = similarity
        self.known: dict[str, list[frozenset[str]]] = defaultdict(list)
        for context, question in known:
            self.known[context].append(question_words(question))

    def first_distinct(
        self, pool: Candidates, order: Sequence[int] | NDArray[np.int64], count: int
    ) -> NDArray[np.int64]:
        """The first `count` of `order` without near-duplicates; fewer if there are not so many.

        :param order: indices into the pool.
        """
        seen = defaultdict(list, {context: list(words) for context, words in self.known.items()})
        kept: list[int] = []
        for index in order:
            if len(kept) == count:
                break
            words, before = question_words(pool.questions[index]), seen[pool.contexts[index]]
            if not any(_same(words, other, self.similarity) for other in before):
                before.append(words)
                kept.append(int(index))
        return np.array(kept, np.int64)
