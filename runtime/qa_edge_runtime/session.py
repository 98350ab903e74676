"""A bundle's graphs, opened: states of tokens and logits of windows, for as long as it is not closed."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import Engine, choose_engine, open_engine
from qa_edge_runtime.errors import BundleError, EngineError
from qa_edge_runtime.positions import PositionSignals
from qa_edge_runtime.states import LookedUp, TokenStates

_CLOSED = "this Answerer was closed; load the bundle again"


class _Opened(NamedTuple):
    core: Engine
    states: TokenStates


class Session:
    """The engines of one bundle; safe to use from several threads.

    An engine's threads and locks do not survive a fork: a forked child opens its own when it first needs them.

    :param cache_tokens: states of unknown words that are remembered.
    """

    def __init__(
        self, bundle: Bundle, *, engine: str | None, precision: str | None, threads: int, cache_tokens: int
    ) -> None:
        self.bundle = bundle
        self.engine, self.precision = choose_engine(bundle, engine=engine, precision=precision)
        self._threads, self._cache_tokens = threads, cache_tokens
        self._vocabulary = bundle.vocabulary()
        self._positions = PositionSignals(bundle.manifest.hidden)
        self._lock = threading.Lock()
        self._closed = False
        self._opened: _Opened | None = None
        core = self._open().core
        self.engine_name, self.engine_version = core.name, core.version
        _SESSIONS.add(self)

    def states(self, tokens: Sequence[str]) -> LookedUp:
        """States of tokens; see `TokenStates`.

        :raises EngineError: if another thread closes the session meanwhile, or it was closed before.
        """
        states = self._open().states
        try:
            return states(tokens)
        except BundleError:
            if self._closed:
                raise EngineError(_CLOSED) from None
            raise

    def prepare(self, tokens: Sequence[str]) -> int:
        """Compute the states of all unknown words among tokens in as few calls as it takes; gives their number."""
        return self._open().states.prepare(tokens)

    def infer(self, context: np.ndarray, question: np.ndarray) -> np.ndarray:
        """Start and end logits of a context's tokens.

        :param context: states, float32, shape (context_tokens, hidden).
        :param question: the same of the question.
        :return: float32, shape (2, context_tokens).
        :raises BundleError: if the graph gives anything but finite numbers of that shape.
        """
        outputs = self._open().core.run(
            {
                "context": context,
                "question": question,
                "context_position": self._positions(len(context)),
                "question_position": self._positions(len(question)),
            }
        )
        logits = []
        for name in ("start_logits", "end_logits"):
            found = outputs[name]
            if found.shape != (len(context),) or not np.isfinite(found).all():
                raise BundleError(
                    f"bundle {self.bundle.path}: the core graph gave {name} of shape {found.shape} or with NaN,"
                    f" expected {len(context)} finite numbers: export it again"
                )
            logits.append(found)
        return np.stack(logits)

    def forget(self) -> None:
        """Forget the computed token states."""
        if self._opened is not None:
            self._opened.states.clear()

    def close(self) -> None:
        """Let go of the graphs, the cache and the bundle's files."""
        with self._lock:
            self._closed, self._opened = True, None
        self.bundle.close()

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            if self._closed:
                raise EngineError(_CLOSED)
            if self._opened is None:
                core, token = (
                    open_engine(self.bundle, role, engine=self.engine, precision=self.precision, threads=self._threads)
                    for role in ("core", "token")
                )
                states = TokenStates(
                    self._vocabulary,
                    self.bundle.table,
                    token,
                    characters_per_word=self.bundle.manifest.characters_per_word,
                    capacity=self._cache_tokens,
                )
                self._opened = _Opened(core, states)
            return self._opened

    def _forked(self) -> None:
        """In a forked child: engines are opened again, and a lock that another thread held is nobody's."""
        self._lock, self._opened = threading.Lock(), None


_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


# The engines' own hook (`forked`) was registered before this one and so comes first: an engine that is let go of in a
# child before it was abandoned would wait for its parent's threads.
def _after_fork() -> None:
    for session in list(_SESSIONS):
        session._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
