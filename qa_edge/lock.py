"""One process at a time: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qa_edge.recipe import make_folder
from qa_edge_runtime.errors import DataError


@contextmanager
def holding(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock; yields whether it is held.

    Processes of one machine exclude each other, and those of several where their file system shares its locks. Where
    there is no `flock` there is no lock, and several processes have to be given different runs.

    :param path: a file, which is made, or a folder that is there.
    :param wait: until another process has given it back; otherwise False is yielded at once.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path, *, enabled: bool = True) -> Iterator[None]:
    """Make a run's folder, and have no other process work in it meanwhile.

    :param enabled: False for all but one of the processes that work in it together.
    :raises DataError: if another process does, or the folder cannot be made.
    """
    if not enabled:
        yield
        return
    make_folder(folder)
    with holding(folder, wait=False) as held:
        if not held:
            raise DataError(f"another process is at work in {folder}; let it end, stop it, or name another folder")
        yield
