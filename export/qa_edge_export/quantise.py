"""Weights in fewer bits, as the graphs of both engines hold them."""

from __future__ import annotations

import numpy as np

from qa_edge_runtime.errors import InputError

SMALLEST_ROW = 1e-3  # of a weight's largest row: below it rows have the scale of one of this size


def quantise_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weight as int8 in [-127, 127], one scale a row.

    :param weight: float, shape (out, ...).
    :returns: int8 of the same shape, and scales, float32 of shape (out,).
    """
    scales = row_scales(weight)
    rows = weight.reshape(len(weight), -1)
    return np.round(rows / scales[:, None]).astype(np.int8).reshape(weight.shape), scales


def row_scales(weight: np.ndarray) -> np.ndarray:
    """The value of one step in each row of a weight: its largest magnitude is 127 of them.

    Biases are whole numbers of these steps in 32 bits: a row near 0, of a unit that died, would leave them no room.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    floor = SMALLEST_ROW * float(largest.max()) or 1.0
    return np.asarray(np.maximum(largest, floor) / 127, np.float32)


def to_half(array: np.ndarray, name: str) -> np.ndarray:
    """An array in 16 bits.

    :raises InputError: naming it, if it has numbers beyond 65,504.
    """
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            f"{name} has numbers beyond 65,504, which 16 bits cannot hold: export --fp32, with --table float32"
        )
    return half
