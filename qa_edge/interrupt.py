"""Ctrl-C during a long loop: noticed between two steps, so that what was done can be saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noticing_interrupt(log: Callable[[str], None], *, enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second one interrupts at once.

    Where signals cannot be caught (another thread, or somebody else's handler) it never tells so, and Ctrl-C does
    what it did before.

    :param log: is told that the loop will stop.
    :param enabled: False where processes would not stop after the same step.
    :raises KeyboardInterrupt: at the end of the block, if Ctrl-C was pressed and nobody has raised it yet.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log("stopping after this update; Ctrl-C again stops at once")

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not enabled or not usual or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt
