"""Excerpts: some sentences around the answer in place of the whole paragraph, drawn anew each time.

A student that meets the same paragraphs ten times begins to know them by heart. A cut of a paragraph asks the same
question of another text, in which the answer stands elsewhere, and costs less than the paragraph does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import Features

WHOLE_TEXTS = (
    "excerpts go without a teacher, whose logits are of the whole text: leave them out, or train on the answers alone "
    "(--teacher none --rho 0 --mse-weight 0)"
)
# Which of an update's questions are cut is drawn apart from all else that is random in it.
_STREAM = 2
_ENDS = (".", "!", "?")
# What may follow the sign that ends a sentence and still belong to it.
_CLOSERS = ('"', "'", "''", "”", "’", ")", "]")


@dataclass(frozen=True, kw_only=True)
class Excerpts:
    """Cuts the contexts of some questions of an update.

    :param borders: of each context, by its row: the tokens at which a sentence begins, and the number of tokens.
    :param share: of the questions whose context is cut, 0 to 1.
    :param generator: of this update.
    """

    borders: list[NDArray[np.int64]]
    share: float
    generator: np.random.Generator

    @classmethod
    def of_update(
        cls, borders: list[NDArray[np.int64]], share: float, *, seed: int, step: int, process: int
    ) -> Excerpts:
        """What is drawn follows from the update's number alone, so that a resumed run goes on alike."""
        source = np.random.SeedSequence([seed, step, process, _STREAM])
        return cls(borders=borders, share=share, generator=np.random.default_rng(source))

    def draw(
        self, contexts: NDArray[np.int32], starts: NDArray[np.int32], ends: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        """The tokens that are left of each question's context, half-open, shape (questions, 2).

        Before and after the sentences that hold the answer any number of sentences may be left out, each with the same
        probability. A context whose answer is not known stays whole.

        :param contexts: row of each question's context.
        :param starts: first token of each answer, -1 without one.
        :param ends: last token of each, inclusive.
        """
        chosen = self.generator.random(len(contexts)) < self.share
        drawn = self.generator.random((len(contexts), 2))
        kept = np.zeros((len(contexts), 2), np.int64)
        for place, (context, start, end) in enumerate(zip(contexts, starts, ends, strict=True)):
            borders = self.borders[context]
            kept[place] = borders[0], borders[-1]
            if chosen[place] and start >= 0:
                first = int(np.searchsorted(borders, start, side="right")) - 1
                last = int(np.searchsorted(borders, end, side="right"))
                before, after = first + 1, len(borders) - last
                kept[place] = borders[int(drawn[place, 0] * before)], borders[last + int(drawn[place, 1] * after)]
        return kept


def sentence_borders(features: Features) -> list[NDArray[np.int64]]:
    """Where the sentences of each context begin, by its row, and its number of tokens behind them.

    A sentence ends with a full stop, an exclamation or a question mark that is a token of its own, and what closes it.
    Line breaks do not matter: a context is a paragraph.
    """
    forms = features.context_forms()
    ends = np.array([forms[form] for form in _ENDS if form in forms], np.int64)
    closers = np.array([forms[form] for form in _CLOSERS if form in forms], np.int64)
    found = []
    for row in range(len(features.context_number)):
        here = slice(int(features.context_offsets[row]), int(features.context_offsets[row + 1]))
        tokens = features.context_tokens[here]
        # What opens a quotation looks like what closes one, but stands apart from the sentence before.
        apart = features.context_starts[here][1:] > features.context_ends[here][:-1]
        ending, closing = np.isin(tokens, ends), np.isin(tokens, closers)
        for place in np.flatnonzero(closing[1:] & ~apart) + 1:
            ending[place] = ending[place - 1]
        begins = np.flatnonzero(ending[:-1] & ~ending[1:]) + 1
        found.append(np.concatenate([[0], begins, [len(tokens)]]).astype(np.int64))
    return found
