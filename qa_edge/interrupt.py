"""Ctrl-C: held back while a module is imported, and in a long loop noticed between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_IMPORTING = "<frozen importlib"  # how the frames of Python's import system name their file


def interrupt_outside_imports(number: int, frame: FrameType | None) -> None:
    """A handler of SIGINT that raises KeyboardInterrupt, but not before an import at hand has ended.

    Compiled modules (numpy's, torch's, ONNX Runtime's) turn an interrupt of their imports into errors of their own,
    or swallow it.
    """
    importer = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            importer = frame.f_back
        frame = frame.f_back
    if importer is None:
        raise KeyboardInterrupt
    # Tracing is what runs next in the frame that imports, whether by another line, a return or an exception.
    importer.f_trace = _interrupt
    sys.settrace(lambda frame, event, argument: None)


def _interrupt(frame: FrameType, event: str, argument: object) -> None:
    sys.settrace(None)
    raise KeyboardInterrupt


_USUAL = (signal.default_int_handler, interrupt_outside_imports)


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
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        log("stopping after this update; Ctrl-C again stops at once")

    if not enabled or before not in _USUAL or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
