"""Where a token stands: the sinusoid that the core graph takes beside the states."""

from __future__ import annotations

import math

import numpy as np

# Signals of longer texts are made for one call and not kept: 4,096 positions of 128 numbers are 2 MB.
KEPT_POSITIONS = 4_096


def position_signal(tokens: int, hidden: int) -> np.ndarray:
    """Sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al., 2017, as in tensor2tensor).

    In float32 throughout, as the student was trained.

    :param hidden: numbers of a state; even.
    :returns: float32, shape (tokens, hidden).
    """
    half = hidden // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / max(half - 1, 1)))
    angles = np.arange(tokens, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


class PositionSignals:
    """The signal for texts of any length, made once and grown; safe to use from several threads.

    :param hidden: numbers of a state; even.
    """

    def __init__(self, hidden: int) -> None:
        self._hidden = hidden
        self._kept = position_signal(0, hidden)

    def __call__(self, tokens: int) -> np.ndarray:
        """The signal of the first `tokens` positions: float32, shape (tokens, hidden), read-only."""
        # Threads may make the same signal twice; each then returns its own, which is right.
        signal = self._kept
        if len(signal) < tokens:
            grown = tokens if tokens > KEPT_POSITIONS else min(KEPT_POSITIONS, max(tokens, 2 * len(signal)))
            signal = position_signal(grown, self._hidden)
            signal.flags.writeable = False
            if grown <= KEPT_POSITIONS:
                self._kept = signal
        return signal[:tokens]
