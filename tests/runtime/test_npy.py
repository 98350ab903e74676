from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from qa_edge_runtime.npy import view_array

DTYPES = st.sampled_from(["<f4", "<f2", "|i1", "|u1", ">f2", "<i8", "|b1"])
ARRAYS = DTYPES.flatmap(lambda dtype: npst.arrays(np.dtype(dtype), npst.array_shapes(max_dims=3, min_side=0)))


def saved(array: np.ndarray, *, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version, allow_pickle=False)
    return stream.getvalue()


def view(raw: bytes, *, shift: int = 0) -> np.ndarray:
    """The array, its bytes `shift` behind where the allocator put them."""
    return view_array(np.frombuffer(bytes(shift) + raw, dtype=np.uint8)[shift:])


@given(ARRAYS, st.booleans(), st.sampled_from([None, (1, 0), (2, 0), (3, 0)]), st.integers(0, 7))
@settings(deadline=None)
def test_what_numpy_saved_is_viewed(array: np.ndarray, fortran: bool, version: tuple[int, int] | None, shift: int):
    array = np.asfortranarray(array) if fortran else array
    raw = saved(array, version=version)
    found, theirs = view(raw, shift=shift), np.load(io.BytesIO(raw), allow_pickle=False)
    assert (found.dtype, found.shape) == (theirs.dtype, theirs.shape)
    assert found.flags.f_contiguous == theirs.flags.f_contiguous
    assert found.tobytes("A") == theirs.tobytes("A")
    assert found.base is not None and not found.flags.writeable


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: saved(np.eye(3))[:-40] + tail))
def test_any_other_bytes_are_refused_in_one_sentence(raw: bytes) -> None:
    try:
        view(raw)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (HEADER.replace(b"(2, 3)", b"(999999999999, 999999999999)"), "not those of float32"),
        (HEADER.replace(b"(2, 3)", b"(" + b"9, " * 999 + b"9)"), "not those of float32"),
        (HEADER.replace(b"(2, 3)", b"(-2, -3)"), "its header is not one"),
        (HEADER.replace(b"(2, 3)", b"(2.0, 3)"), "its header is not one"),
        (HEADER.replace(b"(2, 3)", b"(" * 2_000), "its header is not one"),
        (HEADER.replace(b"<f4", b"|O"), "its header is not one"),
        (HEADER.replace(b"<f4", b"<f3"), "none of numpy's"),
        (HEADER.replace(b"'<f4'", b"[('a', '<f4')]"), "its header is not one"),
        (HEADER.replace(b"False", b"print()"), "its header is not one"),
        (b"", "its header is not one"),
        (b" " * 60_000, "its header is not one"),
    ],
)
def test_headers_that_numpy_does_not_write(header: bytes, part: str) -> None:
    raw = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + bytes(24)
    with pytest.raises(ValueError) as caught:
        view(raw)
    assert part in str(caught.value)


def test_a_cut_header_is_refused_though_the_array_has_no_bytes() -> None:
    raw = saved(np.empty((0, 6), np.int8))
    assert view(raw).shape == (0, 6)
    for size in range(len(raw)):
        with pytest.raises(ValueError):
            view(raw[:size])
    with pytest.raises(ValueError, match="header"):
        view(raw.replace(b"NUMPY\x01\x00", b"NUMPY\x01\x01"))


def test_bytes_behind_the_array_are_refused() -> None:
    raw = saved(np.eye(3, dtype=np.float32))
    for damaged in (raw + b"\0", raw[:-1]):
        with pytest.raises(ValueError, match="bytes behind its header"):
            view(damaged)
    with pytest.raises(ValueError, match="archive"):
        view(b"PK\x03\x04 and so on")
