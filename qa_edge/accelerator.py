"""Devices, precision and processes of a long run, by accelerate."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from qa_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

# Those that wait for the main process while it prepares or chooses: that may take longer than the usual half an hour.
_PATIENCE = timedelta(days=7)


def open_processes() -> PartialState:
    """The processes that a launcher started together; this one alone where there is none.

    For what works in several processes before anything opens an accelerator, which knows them from here on.

    :raises InputError: if the environment speaks of other processes, and they cannot be reached.
    """
    from accelerate import PartialState

    atexit.register(_leave)
    try:
        return PartialState(cpu=_on_cpus(), timeout=_PATIENCE)
    except ValueError as error:
        raise InputError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE', 'not set')}, but the other processes cannot be reached"
            f" ({' '.join(str(error).split())}): start them by accelerate launch or torchrun, or unset it"
        ) from error


def _leave() -> None:
    """Leave the other processes before Python ends: gloo's threads, still there, would abort it."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _on_cpus() -> bool:
    """Whether the CPU is asked for, or a launcher started several processes where there is nothing else.

    Unless it is told, accelerate takes each of several processes on CPUs for one that is alone.
    """
    from accelerate.utils import parse_flag_from_env
    from torch import accelerator

    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not accelerator.is_available()
    return launched or bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


def agreed(found: bool) -> bool:
    """What the main process found, in all: when a late one looks for a file, the main one may have written it since."""
    from accelerate.utils import broadcast_object_list

    values = [found]
    broadcast_object_list(values)
    return bool(values[0])


def open_accelerator(precision: str) -> Accelerator:
    """The accelerator of this process.

    :param precision: `no` or `bf16`.
    :raises InputError: if the machine cannot use that precision.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    atexit.register(_leave)
    try:
        return Accelerator(cpu=_on_cpus(), mixed_precision=precision, kwargs_handlers=[patience])
    except ValueError as error:
        raise InputError(f"precision {precision} cannot be used on this machine: {error}") from error
