"""How much each window of a long text shares with a question: a plain score over words, beside the logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.windows import Window

# Of BM25 (Robertson and Zaragoza, 2009): how soon further occurrences of a word in a window stop to count. Windows are
# all of one length, so that its other constant, which weighs lengths, has nothing to do.
SATURATION = 1.2
# A student that saw one paragraph a question has no reason to give lower logits where the answer is not. What a point
# of the score is worth beside them was fitted on whole articles outside training (docs/documents.md).
LOGITS_A_POINT = 1.5


class WordIndex:
    """Where each word of a text stands, whatever its case.

    :param texts: of the text's tokens, in order.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._numbers: dict[str, int] = {}
        number_of = self._numbers
        forms = {text: number_of.setdefault(text.lower(), len(number_of)) for text in dict.fromkeys(texts)}
        self._tokens = np.fromiter((forms[text] for text in texts), dtype=np.int32, count=len(texts))

    def scores(self, question: Sequence[str], windows: Sequence[Window]) -> NDArray[np.float64]:
        """BM25 of each window: each distinct word of the question that it holds counts by how rare it is among the
        windows, and by how often it stands there.

        :param question: texts of its tokens; marks count for nothing.
        :param windows: all of the text's.
        :return: 0 or more, shape (windows,).
        """
        words = {word.lower() for word in question if any(map(str.isalnum, word))}
        starts = np.array([window.start for window in windows])
        stops = np.array([window.stop for window in windows])
        scores = np.zeros(len(windows))
        for number in sorted(self._numbers[word] for word in words if word in self._numbers):
            places = np.flatnonzero(self._tokens == number)
            times = np.searchsorted(places, stops) - np.searchsorted(places, starts)
            holding = np.count_nonzero(times)
            rarity = np.log1p((len(windows) - holding + 0.5) / (holding + 0.5))
            scores += rarity * times * (SATURATION + 1) / (times + SATURATION)
        return scores


def best_windows(scores: NDArray[np.float64], count: int) -> list[int]:
    """Numbers, ascending, of the windows with the highest scores; of equal ones the first."""
    return sorted(np.argsort(-scores, kind="stable")[:count].tolist())


def window_priors(
    context: Sequence[str], question: Sequence[str], windows: Sequence[Window], index: WordIndex | None = None
) -> NDArray[np.float64]:
    """What is added to the logits of each window's spans, so that those of several windows can be compared.

    :param context: texts of the text's tokens.
    :param question: texts of the question's tokens.
    :param windows: all of the text's; to a single one nothing is added.
    :param index: of the context, where there is one already.
    :return: shape (windows,).
    """
    if len(windows) == 1:
        return np.zeros(1)
    return LOGITS_A_POINT * (index or WordIndex(context)).scores(question, windows)
