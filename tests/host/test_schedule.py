"""Learning rates: QANet's warm-up and its constant rate, and the cosine that is ours."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge.schedule import SCHEDULES, learning_rate


def rate(step: int, *, schedule: str = "constant", warmup: int = 1000, total: int = 10_000) -> float:
    return learning_rate(step, peak=1e-3, warmup=warmup, total=total, schedule=schedule)


def test_the_warm_up_is_qanets() -> None:
    """As the common re-implementation has it: min(0.001, 0.001 / log(999) * log(step + 1)), step from 0."""
    for step in range(1000):
        assert math.isclose(rate(step), min(1e-3, 1e-3 / math.log(999) * math.log(step + 1)), rel_tol=2e-4)
    assert rate(0) == 0 and rate(999) == rate(1000) == rate(9_999) == 1e-3


def test_the_cosine_falls_to_a_hundredth() -> None:
    assert rate(1000, schedule="cosine") == 1e-3
    assert math.isclose(rate(5500, schedule="cosine"), 1e-3 * (0.01 + 0.99 / 2))
    assert math.isclose(rate(10_000, schedule="cosine"), 1e-5)
    assert math.isclose(rate(9_999, schedule="cosine"), 1e-5, rel_tol=1e-3)
    assert math.isclose(rate(20_000, schedule="cosine"), 1e-5)


@given(
    schedule=st.sampled_from(SCHEDULES), warmup=st.integers(0, 200), total=st.integers(1, 500), peak=st.floats(1e-6, 1)
)
def test_a_rate_is_never_above_the_peak_or_below_zero(schedule: str, warmup: int, total: int, peak: float) -> None:
    rates = [learning_rate(step, peak=peak, warmup=warmup, total=total, schedule=schedule) for step in range(total + 1)]
    assert all(0 <= value <= peak * (1 + 1e-9) for value in rates)
    top = min(max(warmup - 1, 0), total)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_warm_up_it_starts_at_the_peak(warmup: int) -> None:
    assert rate(0, warmup=warmup) == rate(0, warmup=warmup, schedule="cosine") == 1e-3
