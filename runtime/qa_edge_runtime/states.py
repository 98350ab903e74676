"""States of tokens: what the network knows of a token before its position, computed once and remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from qa_edge_runtime.engine import Engine
from qa_edge_runtime.errors import EngineError
from qa_edge_runtime.vocabulary import Vocabulary

# 20,000 states of 128 numbers are 10 MB.
CACHE_TOKENS = 20_000
# A call of the token graph takes about 15 kB a token: more tokens than this go through it in several calls.
TOKENS_PER_CALL = 1_024
# A longer token is hardly met again, and would make the cache's size depend on what it is fed.
REMEMBERED_CHARACTERS = 64


class TokenStates:
    """Word vector, character convolution, projection and highway layers of a token depend on the token alone, so that
    each distinct token goes through them once; the least recently used are forgotten first.

    Safe to call from several threads: the lock is held for looking up and for remembering, not while the graph runs.

    :param table: word vectors, float16 or float32, shape (words + 1, columns); row 0 is the unknown word.
    :param hidden: numbers in a state.
    :param capacity: states that are remembered; 0 remembers none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: np.ndarray,
        engine: Engine,
        *,
        hidden: int,
        characters_per_word: int = 16,
        capacity: int = CACHE_TOKENS,
    ) -> None:
        self._vocabulary = vocabulary
        self._table = table
        self._engine = engine
        self._hidden = hidden
        self._width = characters_per_word
        self._capacity = capacity
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._memory = np.empty((capacity, hidden), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all tokens."""
        with self._lock:
            self._rows.clear()

    def __call__(self, tokens: Sequence[str]) -> tuple[np.ndarray, int, int]:
        """States of tokens in their order.

        :return: float32 array of shape (tokens, hidden), the number of distinct tokens, and how many of those were
            remembered.
        :raises EngineError: if the token graph fails or gives another shape.
        """
        position = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
        states = np.empty((len(position), self._hidden), dtype=np.float32)
        known: list[int] = []
        rows: list[int] = []
        missing: list[str] = []
        with self._lock:
            for token, index in position.items():
                row = self._rows.get(token)
                if row is None:
                    missing.append(token)
                else:
                    self._rows.move_to_end(token)
                    known.append(index)
                    rows.append(row)
            states[known] = self._memory[rows]
        for first in range(0, len(missing), TOKENS_PER_CALL):
            batch = missing[first : first + TOKENS_PER_CALL]
            fresh = self._compute(batch)
            states[[position[token] for token in batch]] = fresh
            self._remember(batch, fresh)
        return states[[position[token] for token in tokens]], len(position), len(known)

    def _compute(self, tokens: Sequence[str]) -> np.ndarray:
        ids = self._vocabulary.word_ids(tokens)
        inputs = {
            "word_vectors": np.asarray(self._table[ids], dtype=np.float32),
            "character_ids": self._vocabulary.character_ids(tokens, self._width),
        }
        states = self._engine.run(inputs)["states"]
        if states.shape != (len(tokens), self._hidden):
            expected = (len(tokens), self._hidden)
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
