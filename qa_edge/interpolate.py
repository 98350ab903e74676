"""The student's logits resampled to the teacher's positions, as a matrix product (paper, section 4.1.3 and Eq. 12).

An interpolation through n points that is read at m points is linear in the points' values, so for given (n, m) it is a
matrix: made once in numpy, multiplied in torch, and the MSE term of Eq. 12 has a gradient. (The published code of the
paper calls scipy instead, outside autograd; the term there trains nothing.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qa_edge.loss_settings import INTERPOLATIONS
from qa_edge_runtime.errors import InputError

# Pairs of lengths hardly repeat over SQuAD, so a larger cache would only fill up: the newest few hundred are enough.
MATRIX_CACHE_BYTES = 64_000_000
CURVATURE_CACHE_BYTES = 64_000_000


class ArrayCache:
    """A bounded map from key to array that forgets the least recently used first.

    :param limit_bytes: the most that its arrays hold together; an array larger than that is made, but not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._arrays: OrderedDict[Hashable, NDArray[np.floating]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, key: Hashable, make: Callable[[], NDArray[np.floating]]) -> NDArray[np.floating]:
        """Return the array of a key, made by `make` if it is not there; it is shared, and read-only."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        array = make()
        array.setflags(write=False)
        with self._lock:
            if key not in self._arrays and array.nbytes <= self.limit_bytes:
                self._arrays[key] = array
                self.size_bytes += array.nbytes
                while self.size_bytes > self.limit_bytes:
                    self.size_bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array


_matrices = ArrayCache(MATRIX_CACHE_BYTES)
_curvatures = ArrayCache(CURVATURE_CACHE_BYTES)


def interpolation_matrix(n: int, m: int, kind: str = "cubic") -> NDArray[np.float32]:
    """Matrix that takes values at n even positions to m even positions, first and last positions of both coinciding.

    Equals `scipy.interpolate.interp1d(numpy.linspace(0, 1, n), values, kind)(numpy.linspace(0, 1, m))`; its cubic is
    the spline whose two outermost pieces at either end are one polynomial ("not-a-knot"). Cubic is linear under four
    positions; one position gives a constant; m = 1 takes the first.

    :param n: student positions, at least 1.
    :param m: teacher positions, at least 0.
    :param kind: `linear` or `cubic`.
    :return: float32, shape (m, n), read-only and shared; rows sum to 1.
    :raises InputError: if the kind is unknown or a length is out of range.
    """
    if kind not in INTERPOLATIONS:
        raise InputError(f"interpolation kind {kind!r} is unknown: choose one of {', '.join(INTERPOLATIONS)}")
    if n < 1 or m < 0:
        raise InputError(f"cannot interpolate from {n} to {m} positions: expected at least 1 and at least 0")
    cubic = kind == "cubic" and n >= 4
    return _matrices.get((n, m, cubic), lambda: _build(n, m, cubic))


def interpolate(
    logits: Tensor, student_lengths: Sequence[int], teacher_lengths: Sequence[int], kind: str = "cubic"
) -> Tensor:
    """Resample a padded batch of student logits to the teacher's positions.

    :param logits: start and end logits over the context's tokens, float, shape (batch, 2, context_tokens); what stands
        beyond a row's length has no influence.
    :param student_lengths: context tokens of each row, at least 1.
    :param teacher_lengths: the teacher's pieces of each row's context; 0 where it has none.
    :param kind: `linear` or `cubic`.
    :return: float32 (float64 for float64), shape (batch, 2, max(teacher_lengths)), zeros beyond a row's length;
        differentiable with respect to `logits`.
    :raises InputError: if the lengths do not fit the batch, or the kind is unknown.
    """
    batch, _, width = logits.shape
    if len(student_lengths) != batch or len(teacher_lengths) != batch or max(student_lengths, default=0) > width:
        raise InputError(
            f"{len(student_lengths)} student lengths up to {max(student_lengths, default=0)} and "
            f"{len(teacher_lengths)} teacher lengths for {batch} rows of {width} logits: "
            "expected one of each a row, none beyond the logits"
        )
    weights = np.zeros((batch, width, max(teacher_lengths, default=0)), dtype=np.float32)
    for row, (n, m) in enumerate(zip(student_lengths, teacher_lengths, strict=True)):
        weights[row, :n, :m] = interpolation_matrix(n, m, kind).T
    inside = torch.arange(width)[None, :] < torch.as_tensor(student_lengths)[:, None]
    # Half precision would round the weights to three digits, and the differences that the MSE squares with them.
    with torch.autocast(logits.device.type, enabled=False):
        full = logits if logits.dtype == torch.float64 else logits.float()
        # Weights of padding are zero, but zero times an infinite logit would still be NaN.
        full = full.masked_fill(~inside[:, None, :].to(logits.device), 0.0)
        return torch.bmm(full, torch.from_numpy(weights).to(full))


def _build(n: int, m: int, cubic: bool) -> NDArray[np.float32]:
    """Weights of the neighbours' values and, for cubic, of the neighbours' second derivatives (grid step 1)."""
    matrix = np.zeros((m, n))
    if n == 1 or m < 2:
        matrix[:, 0] = 1.0
        return matrix.astype(np.float32)
    position = np.linspace(0.0, n - 1.0, m)
    left = np.minimum(position.astype(np.intp), n - 2)
    right_weight = position - left
    left_weight = 1.0 - right_weight
    if cubic:
        # On [left, left + 1] the spline is the line between the values plus these shares of its second derivatives.
        bend = _curvatures.get(n, lambda: curvature(n))
        matrix = ((left_weight**3 - left_weight) / 6.0)[:, None] * bend[left]
        matrix += ((right_weight**3 - right_weight) / 6.0)[:, None] * bend[left + 1]
    rows = np.arange(m)
    matrix[rows, left] += left_weight
    matrix[rows, left + 1] += right_weight
    return matrix.astype(np.float32)


def curvature(n: int) -> NDArray[np.float64]:
    """Matrix from the values at n >= 4 points, one apart, to the second derivatives there of their not-a-knot spline.

    Inside, M[i-1] + 4 M[i] + M[i+1] = 6 (y[i-1] - 2 y[i] + y[i+1]). At the ends the third derivative is continuous,
    M[0] - 2 M[1] + M[2] = 0, which makes 6 M[1] = 6 (y[0] - 2 y[1] + y[2]), and likewise on the right. What is left is
    a system with 4 on the diagonal and 1 beside it, whose inverse is known: with r = sqrt(3) - 2, a root of
    1 + 4 r + r^2, it is r^(j-i) (1 - r^(2i)) (1 - r^(2(k+1-j))) / ((r - 1/r) (1 - r^(2(k+1)))), for i <= j of 1..k.
    """
    bend = np.zeros((n, n))
    inner = np.arange(1, n - 1)
    bend[inner, inner - 1] = bend[inner, inner + 1] = 1.0
    bend[inner, inner] = -2.0
    size = n - 4
    if size > 0:
        root = np.sqrt(3.0) - 2.0
        powers = root ** np.arange(2 * size + 3)
        index = np.arange(1, size + 1)
        low, high = np.minimum.outer(index, index), np.maximum.outer(index, index)
        inverse = powers[high - low] * (1.0 - powers[2 * low]) * (1.0 - powers[2 * (size + 1 - high)])
        inverse *= 1.0 / ((root - 1.0 / root) * (1.0 - powers[2 * (size + 1)]))
        known = 6.0 * bend[2:-2]
        known[0] -= bend[1]
        known[-1] -= bend[-2]
        # `known` has three to six diagonals, but one dense product of this size costs less than walking them.
        bend[2:-2] = inverse @ known
    bend[0] = 2.0 * bend[1] - bend[2]
    bend[-1] = 2.0 * bend[-2] - bend[-3]
    return bend
