"""Arrays in numpy's .npy form, viewed where they lie: only the header is read, by our own eyes and never evaluated."""

from __future__ import annotations

import math
import re

import numpy as np

_MAGIC = b"\x93NUMPY"
# What numpy writes takes some 128 bytes.
_MAX_HEADER = 4096
_MAX_AXES = 8
# The header exactly as numpy writes it, of numbers alone.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][biuf]\d{1,2})', 'fortran_order': (True|False),"
    rb" 'shape': \(((?:\d{1,19}, )*\d{1,19},?)\), \} *\n"
)


def view_array(raw: np.ndarray) -> np.ndarray:
    """The array that a .npy file holds, as a view of the file's bytes: nothing is copied.

    :param raw: uint8, shape (bytes,), such as a mapped file.
    :raises ValueError: if it is no such file, is cut, or goes on behind the array.
    """
    head = raw[: 12 + _MAX_HEADER].tobytes()
    if head[: len(_MAGIC)] != _MAGIC:
        archive = head[:2] == b"PK"
        raise ValueError(f"it {'is an archive' if archive else 'does not begin as a .npy file does'}")
    # Version 1 counts the header's bytes in 16 bits, the later ones in 32.
    begin = 10 if head[6:7] == b"\x01" else 12
    length = int.from_bytes(head[8:begin], "little")
    header = head[begin : begin + length]
    found = _HEADER.fullmatch(header) if len(header) == length else None
    if found is None or head[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError("its header is not one that numpy writes for an array of numbers")
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError:
        raise ValueError(f"its dtype {found[1].decode()} is none of numpy's") from None
    shape = tuple(int(size) for size in found[3].decode().rstrip(",").split(", "))
    stored = raw[begin + length :]
    if len(shape) > _MAX_AXES or len(stored) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"it has {len(stored)} bytes behind its header, not those of {dtype} {list(shape)!s:.80}")
    return stored.view(dtype).reshape(shape, order="F" if found[2] == b"True" else "C")
