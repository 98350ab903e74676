"""What the core graph is given for a question, exactly as the trained student has it: no table, nothing rounded; and
what it makes of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qa_edge_export.calibrate import CoreInputs
from qa_edge_export.checkpoint import Checkpoint
from qa_edge_export.fold import fold_states
from qa_edge_runtime.engine import Engine
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.lexical import window_priors
from qa_edge_runtime.positions import PositionSignals
from qa_edge_runtime.tokens import Token, Tokens
from qa_edge_runtime.windows import Window, Windows, merge_logits


class ExactLogits(NamedTuple):
    """Start and end logits of a context's tokens, float32, shape (tokens,), and the windows that it was read in."""

    tokens: Tokens
    windows: Sequence[Window]
    start: np.ndarray
    end: np.ndarray


class ExactInputs:
    """Inputs of the core graph by question and context; each distinct token is folded once and kept."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._positions = PositionSignals(checkpoint.sizes.hidden)
        self._states: dict[str, np.ndarray] = {}

    def __call__(self, question: str, context: str) -> tuple[CoreInputs, Tokens]:
        """The four inputs by name, and the context's tokens.

        :raises InputError: if question or context is blank, which the runtime refuses too.
        """
        if not question.strip() or not context.strip():
            raise InputError(f"the question {question!r:.80} or its context is blank; leave it out")
        tokens, asked = self._checkpoint.tokenizer(context), self._checkpoint.tokenizer(question)
        inputs = {
            "context": self._look_up(tokens),
            "question": self._look_up(asked),
            "context_position": self._positions(len(tokens)),
            "question_position": self._positions(len(asked)),
        }
        return inputs, tokens

    def logits(self, engine: Engine, question: str, context: str) -> ExactLogits:
        """What a core graph makes of a question on the trained student's own states, in the runtime's windows.

        :raises InputError: if question or context is blank.
        """
        inputs, tokens = self(question, context)
        windows, parts = Windows().cut(len(tokens)), []
        for window in windows:
            outputs = engine.run(_window_inputs(inputs, window))
            parts.append(np.stack([outputs["start_logits"], outputs["end_logits"]]))
        priors = window_priors(tokens.texts, self._checkpoint.tokenizer(question).texts, windows)
        return ExactLogits(tokens, windows, *merge_logits(windows, parts, len(tokens), priors))

    def _look_up(self, tokens: Sequence[Token]) -> np.ndarray:
        words = [token.text for token in tokens]
        missing = [word for word in dict.fromkeys(words) if word not in self._states]
        self._states.update(zip(missing, fold_states(self._checkpoint, missing), strict=True))
        return np.stack([self._states[word] for word in words])


def _window_inputs(inputs: CoreInputs, window: Window) -> CoreInputs:
    """What the graph is given for one window of a long context."""
    return {
        **inputs,
        "context": inputs["context"][window.start : window.stop],
        "context_position": inputs["context_position"][: window.stop - window.start],
    }
