from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge_runtime.errors import InputError

torch = pytest.importorskip("torch")
scipy_interpolate = pytest.importorskip("scipy.interpolate")

from qa_edge import interpolate as module  # noqa: E402
from qa_edge.interpolate import ArrayCache, interpolate, interpolation_matrix  # noqa: E402
from qa_edge.loss_settings import INTERPOLATIONS  # noqa: E402


def scipy_matrix(n: int, m: int, kind: str) -> np.ndarray:
    """What interp1d makes of each unit vector."""
    x = np.linspace(0.0, 1.0, n)
    return scipy_interpolate.interp1d(x, np.eye(n), kind=kind, axis=0)(np.linspace(0.0, 1.0, m))


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 13, 150, 400])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 37, 180, 600])
def test_equals_scipy(n: int, m: int, kind: str) -> None:
    expected = scipy_matrix(n, m, kind if n >= 4 else "linear")
    matrix = interpolation_matrix(n, m, kind)
    assert matrix.dtype == np.float32 and matrix.shape == (m, n)
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


@given(st.integers(4, 60), st.integers(1, 90), st.integers(0, 2**32 - 1), st.sampled_from(INTERPOLATIONS))
@settings(max_examples=100, deadline=None)
def test_equals_scipy_on_logits(n: int, m: int, seed: int, kind: str) -> None:
    logits = 8.0 * np.random.default_rng(seed).standard_normal(n)
    spline = scipy_interpolate.interp1d(np.linspace(0.0, 1.0, n), logits, kind=kind)
    result = interpolate(torch.tensor(logits).expand(1, 2, n), [n], [m], kind)
    np.testing.assert_allclose(result[0, 1].numpy(), spline(np.linspace(0.0, 1.0, m)), atol=1e-5)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_ends_coincide_and_constants_stay(kind: str) -> None:
    for n in range(1, 30):
        for m in range(2, 40):
            matrix = interpolation_matrix(n, m, kind)
            np.testing.assert_array_equal(matrix[0], np.eye(n, dtype=np.float32)[0])
            np.testing.assert_allclose(matrix[-1], np.eye(n)[-1], atol=1e-6)
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(interpolation_matrix(n, n, kind), np.eye(n), atol=1e-6)


def test_short_contexts() -> None:
    assert interpolation_matrix(1, 5, "cubic").tolist() == [[1.0]] * 5
    assert interpolation_matrix(7, 1, "cubic").tolist() == [[1.0] + [0.0] * 6]
    assert interpolation_matrix(3, 0, "cubic").shape == (0, 3)
    for n in (2, 3):
        np.testing.assert_array_equal(interpolation_matrix(n, 11, "cubic"), interpolation_matrix(n, 11, "linear"))


def test_a_batch_equals_its_rows_whatever_stands_in_the_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = [3, 40, 1, 17, 9], [5, 31, 4, 0, 9]
    logits = torch.randn(5, 2, 40, generator=generator)
    for row, n in enumerate(student):
        logits[row, :, n:] = [1e30, float("nan"), float("-inf"), -3.0, 7.0][row]
    result = interpolate(logits, student, teacher)
    assert result.shape == (5, 2, 31) and result.dtype == torch.float32
    for row, (n, m) in enumerate(zip(student, teacher, strict=True)):
        matrix = torch.tensor(interpolation_matrix(n, m, "cubic"))
        torch.testing.assert_close(result[row, :, :m], logits[row, :, :n] @ matrix.T, atol=1e-5, rtol=0)
        assert (result[row, :, m:] == 0).all()


def test_gradient_is_that_of_the_matrix_and_zero_in_the_padding() -> None:
    logits = torch.randn(2, 2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: interpolate(x, [12, 6], [15, 9]), logits)
    interpolate(logits, [12, 6], [15, 9]).square().sum().backward()
    assert logits.grad is not None
    assert (logits.grad[0] != 0).all() and (logits.grad[1, :, :6] != 0).all() and (logits.grad[1, :, 6:] == 0).all()


def test_autocast_does_not_round_the_result() -> None:
    logits = torch.randn(1, 2, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = interpolate(logits, [50], [60])
    torch.testing.assert_close(inside, interpolate(logits, [50], [60]), atol=0, rtol=0)
    assert interpolate(logits.bfloat16(), [50], [60]).dtype == torch.float32


def test_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache = ArrayCache(limit_bytes=800)
    made: list[int] = []

    def get(key: int, items: int = 25) -> np.ndarray:
        return cache.get(key, lambda: made.append(key) or np.full(items, key, dtype=np.float64))

    for key in (0, 1, 2, 3, 0, 4, 0, 1):
        assert get(key)[0] == key
        assert cache.size_bytes <= 800
    assert made == [0, 1, 2, 3, 4, 1]
    assert get(9, items=1000).size == 1000 and len(cache) == 4
    with pytest.raises(ValueError, match="read-only"):
        get(1)[0] = 5.0


def test_the_shared_caches_stay_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_matrices", ArrayCache(100_000))
    monkeypatch.setattr(module, "_curvatures", ArrayCache(100_000))
    for n in range(20, 120):
        interpolation_matrix(n, n + 9, "cubic")
    assert 50_000 < module._matrices.size_bytes <= 100_000 and 50_000 < module._curvatures.size_bytes <= 100_000


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="'quintic' is unknown: choose one of linear, cubic"):
        interpolation_matrix(5, 6, "quintic")
    with pytest.raises(InputError, match="from 0 to 6 positions"):
        interpolation_matrix(0, 6)
    for lengths in ([4], [4, 9]):
        with pytest.raises(InputError, match="2 rows of 8 logits"):
            interpolate(torch.zeros(2, 2, 8), lengths, [5, 5])


@pytest.mark.slow
def test_is_cheap_beside_a_training_step() -> None:
    """Under 20 ms of CPU time, 5 % of a step of 0.4 s, for 32 questions whose pairs of lengths are nearly all new."""
    rng = np.random.default_rng(0)
    for n in range(100, 200):
        interpolation_matrix(n, 7, "cubic")
    seconds = []
    for _ in range(20):
        n = rng.integers(130, 171, 32)
        m = (n * rng.uniform(1.05, 1.4, 32)).astype(int)
        logits = torch.randn(32, 2, int(n.max()), requires_grad=True)
        begin = time.process_time()
        interpolate(logits, n.tolist(), m.tolist()).square().sum().backward()
        seconds.append(time.process_time() - begin)
    assert np.median(seconds) < 0.02, seconds
