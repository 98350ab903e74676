"""Whether anything else ran while something was timed, asked of the system and of the times themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.machine import usable_cores

# A desktop that waits is below 5 %; one busy process on four cores is 25 %.
OTHERS_LIMIT = 0.1
STOLEN_LIMIT = 0.02
# Only asked where the system does not count what others use: it still holds what ended a minute ago.
LOAD_LIMIT = 0.5
PROCESSOR_LIMIT = 0.95
SPREAD_LIMIT = 0.1
# The system counts in steps of 10 ms: below half a second they say nothing.
_SHORTEST_SECONDS = 0.5
_STAT = Path("/proc/stat")


@dataclass(frozen=True, kw_only=True)
class MachineLoad:
    """What else ran meanwhile; None stands for what the system does not tell, or could not in so short a time.

    :ivar others_share: of the time of all usable cores, the share that other processes had (0 to 1).
    :ivar stolen_share: the share that a virtual machine's host gave to others.
    :ivar processor_share: of the time that the tight loop took, the share in which this process had the processor;
        only asked with one thread.
    """

    others_share: float | None
    stolen_share: float | None
    processor_share: float | None


class LoadMeter:
    """Counts from when it is made; `tight_loop` is told of each stretch that should have had the processor alone."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._began, self._own = time.perf_counter(), time.process_time()
        self._busy = _busy_and_stolen(stat)
        self._tight_seconds = self._tight_processor_seconds = 0.0

    def tight_loop(self, seconds: float, processor_seconds: float) -> None:
        """Add a stretch without a pause, by the clock and by the processor's time."""
        self._tight_seconds += seconds
        self._tight_processor_seconds += processor_seconds

    def read(self, *, threads: int = 1) -> MachineLoad:
        """The load since the meter was made."""
        seconds, own = time.perf_counter() - self._began, time.process_time() - self._own
        others = stolen = processor = None
        now = _busy_and_stolen(self._stat)
        if self._busy is not None and now is not None and seconds >= _SHORTEST_SECONDS:
            whole = seconds * len(usable_cores())
            others = min(1.0, max(0.0, now[0] - self._busy[0] - own) / whole)
            stolen = min(1.0, max(0.0, now[1] - self._busy[1]) / whole)
        if threads == 1 and self._tight_seconds:
            processor = min(1.0, self._tight_processor_seconds / self._tight_seconds)
        return MachineLoad(others_share=others, stolen_share=stolen, processor_share=processor)


def disturbances(
    load: MachineLoad, machine: Mapping[str, Any], passes: Sequence[float], *, noun: str = "medians"
) -> tuple[str, ...]:
    """What makes times not worth quoting, a sentence each; nothing on a quiet machine.

    :param machine: what `describe_machine` said before the measurement.
    :param passes: a figure of each pass, which should be the same; `noun` is what it is.
    """
    found = []
    if load.others_share is not None:
        if load.others_share > OTHERS_LIMIT:
            found.append(f"other processes had {load.others_share:.0%} of the processor's cores")
    elif machine["load_1_minute"] is not None and machine["load_1_minute"] > LOAD_LIMIT * machine["usable_cores"]:
        found.append(f"the load was {machine['load_1_minute']} on {machine['usable_cores']} cores before it began")
    if load.stolen_share is not None and load.stolen_share > STOLEN_LIMIT:
        found.append(f"the host of this virtual machine gave {load.stolen_share:.0%} of the cores to others")
    if load.processor_share is not None and load.processor_share < PROCESSOR_LIMIT:
        found.append(f"the queries had the processor for {load.processor_share:.0%} of their time")
    spread = pass_spread(passes)
    if spread > SPREAD_LIMIT:
        found.append(f"the {noun} of the passes are {spread:.0%} apart")
    return tuple(found)


def pass_spread(passes: Sequence[float]) -> float:
    """How far apart figures of passes are: from their 10th percentile to their 90th, as a share of their median.

    The range would grow with the number of passes.
    """
    low, median, high = np.percentile(passes, (10, 50, 90))
    return float((high - low) / median) if median > 0 else 0.0


def _busy_and_stolen(stat: Path) -> tuple[float, float] | None:
    """Seconds that the usable cores have worked, and that a host took from them, since the system started."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace").splitlines()
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):  # a phone may keep it to itself, other systems have none
        return None
    cores = {f"cpu{core}" for core in usable_cores()}
    busy = stolen = counted = 0
    for name, *rest in (line.split() for line in lines if line.startswith("cpu")):
        if name in cores and len(rest) >= 8:
            # user nice system idle iowait irq softirq steal; the time of guests is in user and nice.
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in rest[:8])
            busy, stolen = busy + user + nice + system + irq + softirq, stolen + steal
            counted += 1
    return (busy / tick, stolen / tick) if counted else None
