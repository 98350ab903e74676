"""What a measurement has to say about where it was made: processor, load, versions, and the memory it took."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load of the last minute (None where the system has no such figure), system and versions."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_1_minute": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu_model() -> str:
    """The processor's name: of a board where the system knows that (a Raspberry Pi), else of the chip."""
    for source, prefix in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            lines = Path(source).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(prefix):
                return (line.partition(":")[2] if prefix else line).strip(" \t\0")
    return platform.processor() or platform.machine() or "unknown"


def peak_memory_bytes() -> int | None:
    """Most memory that this process has had resident, in bytes; None where the system does not tell.

    Linux is asked for VmHWM: its ru_maxrss counts the parent's memory too, if the parent was larger when it forked.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
