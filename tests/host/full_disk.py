"""A disk that is full when a chosen file is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest


def fill_disk(patch: pytest.MonkeyPatch, call: int) -> None:
    """Have the write with this number, counted from 1, stop half-way with "no space left"; later ones succeed."""
    whole = Path.write_bytes
    calls = 0

    def write_bytes(self: Path, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls != call:
            return whole(self, data)
        whole(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    patch.setattr(Path, "write_bytes", write_bytes)
