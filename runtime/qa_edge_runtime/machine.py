"""What a measurement has to say about where it was made: processor, load, versions, and the memory it took."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_CPU = Path("/sys/devices/system/cpu")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, its frequency, load of the last minute, system and versions.

    None stands for what the system does not tell. `usable_cores` are those that this process may run on.
    """
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()),
        **processor_frequency(),
        "load_1_minute": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu_model() -> str:
    """The processor's name: of a board where the system knows that (a Raspberry Pi), else of the chip."""
    sources = (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name"), ("/proc/cpuinfo", "Hardware"))
    for source, prefix in sources:
        for line in _read(Path(source)).splitlines():
            if line.startswith(prefix):
                return (line.partition(":")[2] if prefix else line).strip(" \t\0")
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor_frequency(folder: Path = _CPU) -> dict[str, Any]:
    """`governor`, `mhz` now and `max_mhz`, of the fastest of the usable cores; None for what the system does not tell.

    A core that idles says little: ask while one works, or just after.
    """
    governors, current, highest = set(), [], []
    for core in usable_cores():
        scaling = folder / f"cpu{core}" / "cpufreq"
        if governor := _read(scaling / "scaling_governor").strip():
            governors.add(governor)
        current.append(_number(_read(scaling / "scaling_cur_freq"), int) // 1000)
        highest.append(_number(_read(scaling / "cpuinfo_max_freq"), int) // 1000)
    if not any(current):
        lines = _read(Path("/proc/cpuinfo")).splitlines()
        current += [round(_number(line.partition(":")[2], float)) for line in lines if line.startswith("cpu MHz")]
    return {
        "governor": ", ".join(sorted(governors)) or None,
        "mhz": max(current, default=0) or None,
        "max_mhz": max(highest, default=0) or None,
    }


def peak_memory_bytes() -> int | None:
    """Most memory that this process has had resident, in bytes; None where the system does not tell.

    Linux is asked for VmHWM: its ru_maxrss counts the parent's memory too, if the parent was larger when it forked.
    """
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(path: Path) -> str:
    """What the system says in a file; nothing where it has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        return 0
