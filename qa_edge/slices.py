"""One slice of a long run: to its end, to Ctrl-C or to a time limit, with what the next slice goes on from saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from qa_edge.interrupt import noticing_interrupt

if TYPE_CHECKING:
    from qa_edge.checkpoint import TrainingState
    from qa_edge.train import Trainer


class _SliceOver(Exception):
    """Leaves the training loop after an update; no error."""


def train_slice(trainer: Trainer, log: Callable[[str], None], *, deadline: float | None = None) -> TrainingState:
    """Train; Ctrl-C and the deadline end it after an update, with its state saved.

    :param log: is told what happens.
    :param deadline: time of `time.monotonic` at which no further update is begun. Several processes look at their
        clocks every `log_every` updates, and stop together when one of them is late.
    :returns: where the run stands.
    :raises KeyboardInterrupt: after Ctrl-C, in a run of one process; several would not stop after the same update, and
        theirs is the state of the last save.
    """
    before, accelerator = trainer.on_step, trainer.accelerator
    alone = accelerator.num_processes == 1

    def over(step: int) -> bool:
        if deadline is None or not (alone or step % trainer.settings.log_every == 0):
            return False
        late = time.monotonic() >= deadline
        if alone:
            return late
        return bool(accelerator.reduce(torch.tensor(float(late), device=accelerator.device), "sum") > 0)

    with noticing_interrupt(log, enabled=alone) as interrupted:

        def after_update(step: int) -> None:
            if before is not None:
                before(step)
            stop = interrupted()
            if stop or over(step):
                trainer.save()
                raise KeyboardInterrupt if stop else _SliceOver

        trainer.on_step = after_update
        try:
            return trainer.train()
        except _SliceOver:
            return trainer.state
        finally:
            trainer.on_step = before
