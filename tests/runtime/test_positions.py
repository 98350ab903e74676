from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qa_edge_runtime.positions import KEPT_POSITIONS, PositionSignals, position_signal


def test_signal_by_its_formula() -> None:
    tokens, hidden = 37, 12
    signal = position_signal(tokens, hidden)
    assert (signal.dtype, signal.shape) == (np.float32, (tokens, hidden))
    for place in range(tokens):
        for index in range(hidden // 2):
            angle = place / 10_000 ** (index / (hidden // 2 - 1))
            assert signal[place, index] == pytest.approx(math.sin(angle), abs=1e-5)
            assert signal[place, index + hidden // 2] == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("hidden", [2, 6, 128])
def test_signal_is_the_one_that_the_student_was_trained_with(hidden: int) -> None:
    pytest.importorskip("torch")
    from qa_edge.student.qanet import position_signal as trained

    np.testing.assert_allclose(position_signal(500, hidden), trained(500, hidden).numpy(), atol=2e-5)


def test_grown_signals_are_those_made_at_once() -> None:
    signals = PositionSignals(6)
    for tokens in (5, 3, 0, 6, 100, 7, KEPT_POSITIONS + 10, 50, KEPT_POSITIONS, 2):
        np.testing.assert_array_equal(signals(tokens), position_signal(tokens, 6))
        assert len(signals._kept) <= KEPT_POSITIONS
    with pytest.raises(ValueError, match="read-only"):
        signals(3)[0] = 1


def test_threads_share_a_signal() -> None:
    signals = PositionSignals(6)
    with ThreadPoolExecutor(6) as pool:
        for tokens, signal in enumerate(pool.map(signals, range(300))):
            np.testing.assert_array_equal(signal, position_signal(tokens, 6))
