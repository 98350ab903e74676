from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tiny_bundle import npy

from qa_edge_runtime.errors import BundleError, InputError
from qa_edge_runtime.source import FolderSource
from qa_edge_runtime.table import (
    TABLE_DTYPES,
    TableSpec,
    TokenTable,
    pack_nibbles,
    quantise_rows,
    unpack_nibbles,
)

# Rows, hidden and group size; hidden is even and a multiple of the group.
SIZES = st.tuples(st.integers(0, 5), st.integers(1, 4), st.sampled_from([1, 2, 3, 8])).map(
    lambda sizes: (sizes[0], 2 * sizes[1] * sizes[2], sizes[2])
)


@st.composite
def states_and_groups(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    rows, hidden, group_size = draw(SIZES)
    numbers = st.floats(-50_000, 50_000, width=32) | st.floats(-(2**-20), 2**-20, width=32) | st.floats(-4, 4, width=32)
    states = draw(npst.arrays(np.float32, (rows, hidden), elements=numbers))
    return np.vstack([np.zeros((1, hidden), np.float32), states]), group_size


def table_of(states: np.ndarray, dtype: str, group_size: int) -> TokenTable:
    """A table as it is after the way through its files' bytes."""
    rows, scales = quantise_rows(states, dtype, group_size)
    spec = TableSpec(
        dtype=dtype,
        scales_file=None if scales is None else "table_scales.npy",
        rows=len(states),
        hidden=states.shape[1],
        group_size=group_size if scales is not None else states.shape[1],
    )
    return TokenTable(spec, rows, scales)


@given(states_and_groups())
@settings(max_examples=200, deadline=None)
def test_a_quantised_value_is_off_by_half_a_scale_at_most(case: tuple[np.ndarray, int]) -> None:
    states, group_size = case
    for dtype in ("int8", "int4"):
        rows, scales = quantise_rows(states, dtype, group_size)
        assert scales is not None and scales.dtype == np.float16
        found = table_of(states, dtype, group_size).rows(np.arange(len(states)))
        assert (found.dtype, found.shape) == (np.float32, states.shape)
        steps = np.abs(np.repeat(scales.astype(np.float64), group_size, axis=1))
        assert (np.abs(found - states) <= 0.5 * steps * (1 + 1e-5)).all()
        assert rows.nbytes == states.size * (1 if dtype == "int8" else 0.5)
        # As fine as the numbers of the group allow, up to the rounding of a float16 (coarse below its normal numbers).
        longest = np.abs(states.astype(np.float64)).reshape(len(states), -1, group_size).max(axis=2)
        finest = longest / (127 if dtype == "int8" else 7) * (1 + 2**-10) + 6e-8
        assert (np.abs(scales.astype(np.float64)) <= finest).all()


@given(states_and_groups())
@settings(max_examples=100, deadline=None)
def test_floats_are_kept_as_they_are(case: tuple[np.ndarray, int]) -> None:
    states, group_size = case
    ids = np.arange(len(states))
    np.testing.assert_array_equal(table_of(states, "float32", group_size).rows(ids), states)
    np.testing.assert_array_equal(
        table_of(states, "float16", group_size).rows(ids), states.astype(np.float16).astype(np.float32)
    )


@given(
    npst.arrays(
        np.int8, st.tuples(st.integers(0, 6), st.integers(0, 6).map(lambda n: 2 * n)), elements=st.integers(-8, 7)
    )
)
def test_four_bits_are_packed_without_loss(values: np.ndarray) -> None:
    packed = pack_nibbles(values)
    assert (packed.dtype, packed.shape) == (np.uint8, (values.shape[0], values.shape[1] // 2))
    np.testing.assert_array_equal(unpack_nibbles(packed), values)


def test_layout_of_four_bits_worked_out_by_hand() -> None:
    # Even columns in the low four bits, odd ones in the high four, each plus 8.
    assert pack_nibbles(np.array([[-8, 7, 0, -1]])).tolist() == [[0xF0, 0x78]]
    states = np.array([[0, 0, 0, 0], [8, -7, 2, 1], [-8, 7, 2, 1]], np.float32)
    rows, scales = quantise_rows(states, "int4", 4)
    assert scales is not None
    assert scales.tolist() == [[0.0], [-1.0], [1.0]]
    assert rows.tolist() == [[0x88, 0x88], [0xF0, 0x76], [0xF0, 0x9A]]


@given(st.lists(st.integers(0, 9), max_size=20), st.sampled_from(TABLE_DTYPES))
def test_rows_stand_in_the_order_of_their_ids(ids: list[int], dtype: str) -> None:
    states = np.linspace(-1, 1, 120, dtype=np.float32).reshape(10, 12)
    states[0] = 0
    table = table_of(states, dtype, 4)
    whole = table.rows(np.arange(10))
    np.testing.assert_array_equal(table.rows(np.array(ids, dtype=np.int64)), whole[ids])


def write_table(folder: Path, states: np.ndarray, dtype: str, group_size: int) -> TableSpec:
    rows, scales = quantise_rows(states, dtype, group_size)
    (folder / "table.npy").write_bytes(npy(rows))
    if scales is not None:
        (folder / "table_scales.npy").write_bytes(npy(scales))
    return table_of(states, dtype, group_size).spec


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a mapped file, through however many views."""
    holder: Any = array
    while isinstance(holder, np.ndarray):
        holder = holder.base
    return isinstance(holder.obj if isinstance(holder, memoryview) else holder, mmap.mmap)


STATES = np.vstack([np.zeros(8), np.random.default_rng(3).normal(size=(20, 8))]).astype(np.float32)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_a_table_on_disk_is_mapped_and_not_read(tmp_path: Path, dtype: str) -> None:
    table = TokenTable.open(FolderSource(tmp_path), write_table(tmp_path, STATES, dtype, 8))
    assert (len(table), table.hidden) == (21, 8)
    for array in table._arrays or ():
        assert array is None or is_mapped(array)
        assert array is None or not array.flags.writeable
    np.testing.assert_array_equal(table.rows([3, 1]), table_of(STATES, dtype, 8).rows([3, 1]))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"dtype": "int16"}, "table.dtype is 'int16', expected float32, float16, int8 or int4"),
        ({"dtype": None}, "table.dtype is missing"),
        ({"rows": 0}, "table.rows is 0"),
        ({"rows": True}, "table.rows is True"),
        ({"hidden": -4}, "table.hidden is -4"),
        ({"hidden": 7, "group_size": 7}, "table.hidden is 7, expected an even number"),
        ({"group_size": 3}, "table.group_size is 3, expected a divisor of hidden (8)"),
        ({"group_size": 16}, "table.group_size is 16"),
        ({"scales_file": None}, "None is not a plain file name"),
        ({"scales_file": "../scales.npy"}, "'../scales.npy' is not a plain file name"),
        ({"dtype": "float16"}, "table.scales_file is 'table_scales.npy', but rows of float16 have no scales"),
        ({"dtype": "float32", "scales_file": None, "group_size": 4}, "table.group_size is 4, expected hidden (8)"),
    ],
)
def test_declarations_that_make_no_table(fields: dict[str, Any], part: str) -> None:
    whole = {"dtype": "int8", "scales_file": "table_scales.npy", "rows": 21, "hidden": 8, "group_size": 8}
    with pytest.raises(BundleError) as caught:
        TableSpec(**{**whole, **fields})
    assert part in str(caught.value)


def test_arrays_that_are_not_as_declared() -> None:
    rows, scales = quantise_rows(STATES, "int8", 4)
    assert scales is not None
    spec = table_of(STATES, "int8", 4).spec
    for wrong in (rows[:-1], rows[:, :-1], rows.astype(np.uint8), np.asfortranarray(rows), rows[None]):
        with pytest.raises(BundleError, match=r"^table\.npy is .*the manifest declares int8 \[21, 8\], row by row$"):
            TokenTable(spec, wrong, scales)
    for wrong in (scales[:-1], scales[:, :1], scales.astype(np.float32), np.asfortranarray(scales)):
        with pytest.raises(BundleError, match=r"^table_scales\.npy is .*declares float16 \[21, 2\], row by row$"):
            TokenTable(spec, rows, wrong)
    with pytest.raises(BundleError, match="have scales"):
        TokenTable(spec, rows, None)
    with pytest.raises(BundleError, match=r"int8 \[20, 8\]"):
        TokenTable(replace(spec, rows=20), rows, scales)
    for bad in (np.nan, np.inf):
        damaged = scales.copy()
        damaged[7, 1] = bad
        with pytest.raises(BundleError, match="a scale that is not finite"):
            TokenTable(spec, rows, damaged)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_row_of_no_word_is_zeros(dtype: str) -> None:
    with pytest.raises(BundleError, match="row 0"):
        table_of(STATES[1:], dtype, 8)


@pytest.mark.parametrize(
    ("states", "dtype", "group_size", "part"),
    [
        (STATES, "int2", 8, "table dtype is 'int2'"),
        (STATES, "int8", 3, "in groups of 3"),
        (STATES, "int8", 0, "in groups of 0"),
        (STATES[0], "int8", 8, "states of shape"),
        (STATES[:, :7], "int8", 7, "hidden even"),
        (np.full((2, 8), np.nan), "float32", 8, "NaN"),
        (np.full((2, 8), 70_000.0), "float16", 8, "cannot hold"),
        (np.full((2, 8), 1e9), "int8", 8, "cannot hold"),
        (np.full((2, 8), -1e9), "int4", 8, "cannot hold"),
    ],
)
def test_states_that_no_table_holds(states: np.ndarray, dtype: str, group_size: int, part: str) -> None:
    with pytest.raises(InputError) as caught:
        quantise_rows(states, dtype, group_size)
    assert part in str(caught.value)
