"""Devices, precision and processes of a long run, by accelerate."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from qa_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

# Those that wait for the main process while it prepares or chooses: that may take longer than the usual half an hour.
_PATIENCE = timedelta(days=7)


def open_processes() -> PartialState:
    """The processes that a launcher started together; this one alone where there is none.

    For what works in several processes before anything opens an accelerator, which knows them from here on. Of the two
    only `Accelerator` reads `ACCELERATE_USE_CPU`, without which no process on a CPU knows of the others.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)


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
    try:
        return Accelerator(mixed_precision=precision, kwargs_handlers=[patience])
    except ValueError as error:
        raise InputError(f"precision {precision} cannot be used on this machine: {error}") from error
