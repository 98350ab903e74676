"""Fair timing: every round runs every contender once, in an order drawn anew for each round."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

WARMUP = 2


class Timed(Protocol):
    """What is timed: the work of a round, and what has to be done before it and is not timed."""

    @property
    def call(self) -> Callable[[int], Any]:
        """Does the work of round `n` once."""

    @property
    def prepare(self) -> Callable[[], None]:
        """Called before each call."""


class Samples(NamedTuple):
    """Milliseconds of one contender's calls, one a round: by the clock, and of the processor's own time.

    They are the same on a machine that does nothing else; what the clock has more is somebody else's.
    """

    wall_ms: list[float]
    cpu_ms: list[float]


def run_rounds(
    contenders: Sequence[Timed],
    *,
    rounds: int,
    minutes: float = float("inf"),
    seed: int = 0,
    warmup: int = WARMUP,
    progress: Callable[[int, float], None] = lambda done, seconds: None,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> list[Samples]:
    """Times of every contender.

    What disturbs the machine for a while hits all contenders alike, and who runs after whom changes from round to
    round. Ctrl-C ends the measurement after the last whole round; before the first one it is passed on.

    :param minutes: no round begins later than this; the first one always runs.
    :param warmup: calls of each contender, untimed, before the first round; they have negative numbers.
    :param progress: called after each round with the rounds done and the seconds since the first began.
    :param clock: seconds, and `cpu_clock` those of this process; replaced in tests.
    :return: as many as contenders, each as long as the rounds that were run.
    """
    for contender in contenders:
        for number in range(-warmup, 0):
            contender.prepare()
            contender.call(number)
    generator = random.Random(seed)
    order = list(range(len(contenders)))
    samples = [Samples([], []) for _ in contenders]
    began = clock()
    collecting = gc.isenabled()
    done = 0
    try:
        gc.disable()
        for number in range(rounds):
            if number and clock() - began > 60 * minutes:
                break
            generator.shuffle(order)
            times = [(0.0, 0.0)] * len(contenders)
            for index in order:
                contender = contenders[index]
                contender.prepare()
                cpu_start, start = cpu_clock(), clock()
                contender.call(number)
                end, cpu_end = clock(), cpu_clock()
                times[index] = 1e3 * (end - start), 1e3 * (cpu_end - cpu_start)
            for sample, (wall, cpu) in zip(samples, times, strict=True):
                sample.wall_ms.append(wall)
                sample.cpu_ms.append(cpu)
            done += 1
            gc.collect()
            progress(done, clock() - began)
    except KeyboardInterrupt:
        if not done:
            raise
    finally:
        if collecting:
            gc.enable()
    return [Samples(sample.wall_ms[:done], sample.cpu_ms[:done]) for sample in samples]
