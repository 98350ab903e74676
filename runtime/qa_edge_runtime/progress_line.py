"""How far a long work is, on one line of a terminal that is written over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_EVERY_SECONDS = 0.5


def progress_line(
    description: str, stream: TextIO, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """A function that is told how many units are done, and of how many; the line goes when they all are.

    Nothing is written where the stream is no terminal. No thread draws it, which would disturb what is being timed.

    :param stream: such as `sys.stderr`.
    """
    if not stream.isatty():
        return lambda done, whole: None
    began = shown = clock()

    def show(done: int, whole: int) -> None:
        nonlocal shown
        now = clock()
        if done >= whole:
            stream.write("\r\x1b[K")
            stream.flush()
        elif now - shown >= _EVERY_SECONDS and done:
            left = (now - began) * (whole - done) / done
            stream.write(f"\r{description} {done:,} of {whole:,}, {left:.0f} s left\x1b[K")
            stream.flush()
            shown = now

    return show
