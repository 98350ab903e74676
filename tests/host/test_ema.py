"""The moving average against a loop in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qa_edge import ema


@pytest.mark.parametrize("ceiling", [0.0, 0.5, 0.97, 0.9999])
def test_the_average_is_the_formula(ceiling: float) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(200, 7))
    expected = weights[0].copy()
    average = torch.from_numpy(weights[0].copy())
    for step in range(1, 200):
        decay = min(ceiling, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights[step]
        ema.update(average, torch.from_numpy(weights[step]), ema.decay_at(step, ceiling))
    np.testing.assert_allclose(average.numpy(), expected, rtol=1e-12)


def test_the_weights_are_left_alone() -> None:
    weights, average = torch.ones(3), torch.zeros(3)
    ema.update(average, weights, 0.75)
    assert weights.tolist() == [1, 1, 1] and average.tolist() == [0.25, 0.25, 0.25]


def test_the_decay_grows_from_a_tenth_to_the_ceiling() -> None:
    decays = [ema.decay_at(step, 0.9999) for step in range(100_000)]
    assert decays[0] == 0.1 and decays[-1] == 0.9999
    assert decays == sorted(decays) and max(decays) == 0.9999


@given(total=st.integers(1, 10_000_000))
def test_a_short_run_has_a_lower_ceiling(total: int) -> None:
    ceiling = ema.decay_ceiling(total)
    assert 0 <= ceiling <= ema.PAPER_CEILING == 0.9999
    # What the first weights still count for at the end of the run.
    first = 1.0
    for step in range(min(total, 5000)):
        first *= ema.decay_at(step, ceiling)
    if 15 <= total <= 5000:
        assert first < 1e-6
    if total >= 150_000:
        assert ceiling == ema.PAPER_CEILING
