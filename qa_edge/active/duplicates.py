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
_QUESTION = "who whom whose what which when where why how much many often long old far first last before after"
_NEGATION = "not no nor never neither none without"
_NUMBER = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half"
)
_DECISIVE = frozenset(f"{_QUESTION} {_NEGATION} {_NUMBER} more less fewer most least".split())
# With or without the apostrophe: isn't, dont, cannot.
_NOT = re.compile(
    r"\b(are|ca|could|did|do|does|had|has|have|is|might|must|need|should|was|were|wo|would)n'?t\b|\bcan(no|')t\b"
)
_SHORTENED = re.compile(r"'(s|re|d|ll|ve|m)\b")


def question_words(question: str) -> frozenset[str]:
    """A question's words as the official scoring normalises them: lower case, no punctuation, no articles.

    Shortened words are two: *isn't* is *is* and *not*, *what's* is *what* and *s*.
    """
    written = question.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    parted = _SHORTENED.sub(r" \1", _NOT.sub(lambda found: f"{found[1] or 'can'} not", written))
    return frozenset(normalize_answer(parted).split())


def nearly_same(one: str, other: str, similarity: float = SIMILARITY) -> bool:
    """Whether two questions about the same text ask the same in nearly the same words.

    Their Jaccard similarity |A & B| / |A | B| over normalised words is at least `similarity`, and they share every
    question word, negation, number and word with a digit: *When was it built?* is not *Where was it built?*.
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
