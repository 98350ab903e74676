"""The table of token states: one row a word, mapped from disk, of which only the rows asked for are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_runtime.entries import MAX_HIDDEN, check_plain_name, expect_one_of, expect_whole
from qa_edge_runtime.errors import BundleError, InputError
from qa_edge_runtime.npy import view_array
from qa_edge_runtime.source import FileRecord, Source

TABLE_NAME = "table.npy"
SCALES_NAME = "table_scales.npy"
TABLE_DTYPES = ("float32", "float16", "int8", "int4")

MAX_ROWS = 1 << 31

# What is added to a 4-bit number, so that it is stored as 0 to 15.
NIBBLE_ZERO = 8
# dtype of a table -> dtype of its file; two 4-bit numbers share a byte.
_STORED = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": np.uint8}


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Files and layout of the table of token states, one row a word; row 0 stands for a word that is not in it.

    :ivar scales_file: None where the rows are floats.
    :ivar dtype: "float32", "float16", "int8" or "int4".
    :ivar rows: words + 1.
    :ivar hidden: numbers of a state; even.
    :ivar group_size: neighbouring numbers of a row that share a scale; `hidden` where there are no scales.
    """

    file: str = TABLE_NAME
    scales_file: str | None = None
    dtype: str
    rows: int
    hidden: int
    group_size: int

    def __post_init__(self) -> None:
        check_plain_name(self.file)
        expect_one_of(self.dtype, TABLE_DTYPES, "table.dtype")
        for entry in ("rows", "hidden", "group_size"):
            value = getattr(self, entry)
            expect_whole(value, f"table.{entry}", most=MAX_ROWS if entry == "rows" else MAX_HIDDEN)
        if self.hidden % 2:
            raise BundleError(f"table.hidden is {self.hidden}, expected an even number")
        if self.hidden % self.group_size or (not self.quantised and self.group_size != self.hidden):
            divisor = "a divisor of " if self.quantised else ""
            raise BundleError(f"table.group_size is {self.group_size}, expected {divisor}hidden ({self.hidden})")
        if self.quantised:
            check_plain_name(self.scales_file)
        elif self.scales_file is not None:
            raise BundleError(f"table.scales_file is {self.scales_file!r:.80}, but rows of {self.dtype} have no scales")

    @property
    def quantised(self) -> bool:
        """Whether the rows are whole numbers, which scales turn to states."""
        return self.dtype in ("int8", "int4")

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the array in the table's file."""
        return self.rows, self.hidden // 2 if self.dtype == "int4" else self.hidden

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return self.hidden // self.group_size


_Arrays = tuple[np.ndarray, "np.ndarray | None"]


class TokenTable:
    """Rows of a table as float32 states; the table itself stays as it is stored, on disk if it was mapped from there.

    :param stored: rows in the dtype of the table, C order, shape `spec.stored_shape`.
    :param scales: float16, C order, shape (rows, groups); None where the rows are floats.
    :raises BundleError: if the arrays are not as the spec declares, a scale is not finite, or row 0 is not zeros.
    """

    def __init__(self, spec: TableSpec, stored: np.ndarray, scales: np.ndarray | None = None) -> None:
        self.spec = spec
        _check_array(spec.file, stored, np.dtype(_STORED[spec.dtype]), spec.stored_shape)
        if spec.quantised != (scales is not None):
            raise BundleError(f"{spec.file}: rows of {spec.dtype} have {'' if spec.quantised else 'no '}scales")
        if scales is not None:
            _check_array(str(spec.scales_file), scales, np.dtype(np.float16), (spec.rows, spec.groups))
            if not np.isfinite(scales).all():
                raise BundleError(f"{spec.scales_file} has a scale that is not finite; export the bundle again")
        # As a plain array a mapped file is still mapped, and rows of it are taken without numpy's work on a subclass.
        # Both in one, so that a thread that asks for rows while another closes the table has both or neither.
        self._arrays: _Arrays | None = (np.asarray(stored), None if scales is None else np.asarray(scales))
        if self.rows(np.zeros(1, dtype=np.int64)).any():
            raise BundleError(f"{spec.file}: row 0, of words that are not in the table, is not zeros; export it again")

    @classmethod
    def open(cls, source: Source, spec: TableSpec, files: Mapping[str, FileRecord] | None = None) -> TokenTable:
        """Map the files of a table, read-only, where they lie in a folder or an archive.

        :param files: what their sizes and hashes must be; not checked if not given.
        :raises BundleError: if a file is not an array that numpy wrote, or not as declared.
        """
        names = [name for name in (spec.file, spec.scales_file) if name is not None]
        mapped = [source.map(name, None if files is None else files[name]) for name in names]
        try:
            return cls(spec, *(_view(name, raw) for name, raw in zip(names, mapped, strict=True)))
        except BundleError as error:
            raise BundleError(f"bundle {source.path}: {error}") from error

    def close(self) -> None:
        """Let go of the arrays, and so of the files if they are mapped; asking for rows afterwards is a BundleError."""
        self._arrays = None

    def __len__(self) -> int:
        return self.spec.rows

    @property
    def hidden(self) -> int:
        """Numbers in a state."""
        return self.spec.hidden

    def rows(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """States of words, by id; only their rows are read and copied.

        :param ids: whole numbers from 0 to rows - 1, shape (n,).
        :returns: float32, shape (n, hidden).
        :raises BundleError: if the table was closed.
        """
        arrays = self._arrays
        if arrays is None:
            raise BundleError(f"{self.spec.file} was closed; open the bundle again")
        index = np.asarray(ids, dtype=np.intp)
        stored, scales = arrays[0][index], arrays[1]
        if scales is None:
            return stored.astype(np.float32)
        values = unpack_nibbles(stored) if self.spec.dtype == "int4" else stored
        grouped = values.reshape(len(index), self.spec.groups, self.spec.group_size)
        states = grouped * scales[index].astype(np.float32)[:, :, None]
        return states.reshape(len(index), self.spec.hidden)


def quantise_rows(states: np.ndarray, dtype: str, group_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows and scales as a bundle stores them: the format's one definition, which export uses.

    A scale is the smallest float16 with which its whole group can be stored, so that a value that is read again is off
    by half a scale at most. 4-bit numbers reach from -8 to 7: the sign of the scale puts the longer side at -8.

    :param states: float, shape (rows, hidden), hidden even; row 0 is zeros.
    :param dtype: "float32", "float16", "int8" or "int4".
    :param group_size: neighbouring numbers of a row that share a scale; a divisor of hidden.
    :returns: the rows (int4: uint8, shape (rows, hidden / 2), see `pack_nibbles`), and scales, float16 of shape
        (rows, hidden / group_size), or None where the rows are floats.
    :raises InputError: if states are not finite, beyond what the dtype holds, or of a shape that cannot be grouped.
    """
    if dtype not in TABLE_DTYPES:
        raise InputError(f"table dtype is {dtype!r:.40}, expected {', '.join(TABLE_DTYPES)}")
    values = np.asarray(states, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] % 2 or group_size < 1 or values.shape[1] % group_size:
        raise InputError(
            f"states of shape {values.shape} in groups of {group_size}; expected (rows, hidden) with hidden even and a"
            " multiple of the group"
        )
    if not np.isfinite(values).all():
        raise InputError("states hold NaN or numbers that are not finite; expected those of a trained student")
    scales: np.ndarray | None = None
    with np.errstate(over="ignore"):
        if dtype in ("float32", "float16"):
            stored = np.ascontiguousarray(values, dtype=_STORED[dtype])
            checked = stored
        else:
            grouped = values.reshape(len(values), values.shape[1] // group_size, group_size)
            scales = checked = _fit_scales(grouped, dtype)
    if not np.isfinite(checked).all():
        raise InputError(f"states reach {np.abs(values).max():.3g}, which a table of {dtype} cannot hold: use float32")
    if scales is None:
        return stored, None
    steps = scales.astype(np.float32)[:, :, None]
    lowest, highest = (-127, 127) if dtype == "int8" else (-8, 7)
    # Where a scale is 0 the whole group is: there is nothing to divide.
    whole = np.rint(np.divide(grouped, steps, out=np.zeros_like(grouped), where=steps != 0))
    numbers = np.clip(whole, lowest, highest).astype(np.int8).reshape(values.shape)
    return (numbers if dtype == "int8" else pack_nibbles(numbers)), scales


def pack_nibbles(values: np.ndarray) -> np.ndarray:
    """Two numbers a byte: the even column in the low four bits, the odd one in the high four, each plus 8.

    :param values: whole numbers from -8 to 7, shape (rows, columns), columns even.
    :returns: uint8, shape (rows, columns / 2).
    """
    nibbles = (values + NIBBLE_ZERO).astype(np.uint8)
    return nibbles[:, 0::2] | nibbles[:, 1::2] << 4


def unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    """The numbers that `pack_nibbles` packed.

    :param packed: uint8, shape (rows, columns / 2).
    :returns: int8, from -8 to 7, shape (rows, columns).
    """
    values = np.empty((len(packed), 2 * packed.shape[1]), dtype=np.int8)
    values[:, 0::2] = packed & 15
    values[:, 1::2] = packed >> 4
    values -= NIBBLE_ZERO
    return values


def _fit_scales(grouped: np.ndarray, dtype: str) -> np.ndarray:
    """Scales of groups, float16 of shape (rows, groups), rounded away from zero: the longest value still fits."""
    highest = np.maximum(grouped.max(axis=2), 0).astype(np.float64)
    lowest = np.maximum(-grouped.min(axis=2), 0).astype(np.float64)
    if dtype == "int8":
        exact = np.maximum(highest, lowest) / 127
    else:
        exact = np.maximum(np.maximum(highest, lowest) / 8, np.minimum(highest, lowest) / 7)
    scales = exact.astype(np.float16)
    scales = np.where(scales < exact, np.nextafter(scales, np.float16(np.inf)), scales)
    return scales if dtype == "int8" else np.where(highest > lowest, -scales, scales)


def _view(name: str, raw: np.ndarray) -> np.ndarray:
    try:
        return view_array(raw)
    except ValueError as error:
        raise BundleError(f"{name} is not a table that numpy reads ({error})") from None


def _check_array(name: str, array: np.ndarray, dtype: np.dtype, shape: tuple[int, int]) -> None:
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else ", column by column"
        raise BundleError(
            f"{name} is {array.dtype} {list(array.shape)}{order}; the manifest declares {dtype} {list(shape)},"
            " row by row"
        )
