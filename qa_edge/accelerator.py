"""Devices, precision and processes of a long run, by accelerate."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from qa_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_accelerator(precision: str) -> Accelerator:
    """The accelerator of this process.

    :param precision: `no` or `bf16`.
    :raises InputError: if the machine cannot use that precision.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    # The others wait for the main process while it prepares, which may take longer than the usual half an hour.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    try:
        return Accelerator(mixed_precision=precision, kwargs_handlers=[patience])
    except ValueError as error:
        raise InputError(f"precision {precision} cannot be used on this machine: {error}") from error
