"""States of tokens: what the network knows of a token before its position, out of the table or computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from qa_edge_runtime.engine import Engine
from qa_edge_runtime.errors import EngineError
from qa_edge_runtime.table import TokenTable
from qa_edge_runtime.vocabulary import UNKNOWN_WORD, Vocabulary

# 20,000 states of 128 numbers are 10 MB.
CACHE_TOKENS = 20_000
# A call of the token graph takes about 15 kB a token: more tokens than this go through it in several calls.
TOKENS_PER_CALL = 1_024
# A longer token is hardly met again, and would make the cache's size depend on what it is fed.
REMEMBERED_CHARACTERS = 64


class LookedUp(NamedTuple):
    """States of tokens in their order, and where those of the distinct tokens came from.

    `states` is float32 of shape (tokens, hidden); `unknown` of the `distinct` tokens are not in the table, and
    `remembered` of the unknown ones were computed before.
    """

    states: np.ndarray
    distinct: int
    unknown: int
    remembered: int


class TokenStates:
    """Looks up the states of tokens: a known word's is its row of the table, an unknown one's comes from the token
    graph and is remembered; the least recently used are forgotten first.

    Safe to call from several threads: the lock is held for recalling and for remembering, not while the graph runs.

    :param table: states of the vocabulary's words.
    :param engine: the token graph.
    :param capacity: states of unknown words that are remembered; 0 remembers none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: TokenTable,
        engine: Engine,
        *,
        characters_per_word: int = 16,
        capacity: int = CACHE_TOKENS,
    ) -> None:
        self._vocabulary = vocabulary
        self._table = table
        self._engine = engine
        self._width = characters_per_word
        self._capacity = capacity
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._memory = np.empty((capacity, table.hidden), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all that was computed."""
        with self._lock:
            self._rows.clear()

    def __call__(self, tokens: Sequence[str]) -> LookedUp:
        """States of tokens in their order.

        :raises EngineError: if the token graph fails or gives another shape.
        """
        distinct = list(dict.fromkeys(tokens))
        position = dict(zip(distinct, range(len(distinct)), strict=True))
        ids = self._vocabulary.word_ids(distinct)
        states = self._table.rows(ids)
        unknown = _unknown(distinct, ids)
        remembered = self._fill_unknown(states, unknown, position) if unknown else 0
        order = np.fromiter(map(position.__getitem__, tokens), dtype=np.intp, count=len(tokens))
        return LookedUp(states.take(order, axis=0), len(distinct), len(unknown), remembered)

    def prepare(self, tokens: Iterable[str]) -> int:
        """Compute the unknown tokens of a document beforehand, in as few calls as it takes, so that its parts find
        them remembered.

        If they are more than can be remembered, the first ones are computed, and the others when they are looked up.

        :returns: how many were computed.
        :raises EngineError: as looking them up does.
        """
        distinct = list(dict.fromkeys(tokens))
        unknown = _unknown(distinct, self._vocabulary.word_ids(distinct))
        missing: list[str] = []
        room = self._capacity
        with self._lock:
            for token in unknown:
                if token in self._rows:
                    # Used last of all, so that it is not what makes room for the others.
                    self._rows.move_to_end(token)
                    room -= 1
                elif len(token) <= REMEMBERED_CHARACTERS:
                    missing.append(token)
        del missing[max(room, 0) :]
        for first in range(0, len(missing), TOKENS_PER_CALL):
            batch = missing[first : first + TOKENS_PER_CALL]
            self._remember(batch, self._compute(batch))
        return len(missing)

    def _fill_unknown(self, states: np.ndarray, unknown: list[str], position: dict[str, int]) -> int:
        """Put the states of unknown tokens where they belong, and return how many of them were remembered."""
        known: list[int] = []
        rows: list[int] = []
        missing: list[str] = []
        with self._lock:
            for token in unknown:
                row = self._rows.get(token)
                if row is None:
                    missing.append(token)
                else:
                    self._rows.move_to_end(token)
                    known.append(position[token])
                    rows.append(row)
            states[known] = self._memory[rows]
        for first in range(0, len(missing), TOKENS_PER_CALL):
            batch = missing[first : first + TOKENS_PER_CALL]
            fresh = self._compute(batch)
            states[[position[token] for token in batch]] = fresh
            self._remember(batch, fresh)
        return len(known)

    def _compute(self, tokens: Sequence[str]) -> np.ndarray:
        ids = self._vocabulary.character_ids(tokens, self._width).astype(np.int32)
        states = self._engine.run({"character_ids": ids})["states"]
        expected = (len(tokens), self._table.hidden)
        if states.shape != expected:
            raise EngineError(f"the token graph gave states of shape {states.shape}, expected {expected}: export again")
        return states

    def _remember(self, tokens: Sequence[str], states: np.ndarray) -> None:
        with self._lock:
            for token, state in zip(tokens, states, strict=True):
                if len(token) > REMEMBERED_CHARACTERS or not self._capacity:
                    continue
                row = self._rows.pop(token, None)  # another thread may have been quicker
                if row is None:
                    full = len(self._rows) >= self._capacity
                    row = self._rows.popitem(last=False)[1] if full else len(self._rows)
                self._rows[token] = row
                self._memory[row] = state


def _unknown(tokens: Sequence[str], ids: np.ndarray) -> list[str]:
    return [tokens[index] for index in np.flatnonzero(ids == UNKNOWN_WORD).tolist()]
