"""One process at a time: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def holding(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock; yields whether it is held.

    Processes of one machine exclude each other, and those of several where their file system shares its locks. A system
    without `flock` has no lock, and several processes have to be given different runs.

    :param wait: until another process has given it back; otherwise False is yielded at once.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
