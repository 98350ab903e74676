"""How long work tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Begins a stage of so many units and gives a function that is told how many more are done."""


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A `Progress` that shows nothing."""
    yield lambda units: None
