"""What a forked child does with its parent's engines: nothing, for ever.

The threads of an engine do not survive a fork. Running it, destroying it and, with that, ending the process would wait
for them for ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Abandoned(Protocol):
    """What `abandon_when_forked` takes."""

    def abandon(self) -> None:
        """Never touch again, nor destroy, what the parent process made."""
        ...


_ENGINES: weakref.WeakSet[Abandoned] = weakref.WeakSet()


def abandon_when_forked(engine: Abandoned) -> None:
    """Have every child that is forked from now on call the engine's `abandon`, before anything else of ours."""
    _ENGINES.add(engine)


def never_destroy(thing: object) -> None:
    """Have an object outlive the process: its destructor is called neither now nor when Python ends."""
    try:
        import ctypes
    except ImportError:  # a Python built without it: as good as can be had
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _abandon_all() -> None:
    for engine in list(_ENGINES):
        engine.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
