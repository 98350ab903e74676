"""What each update learns from: it follows from the update's number alone, so it can be made ahead of its time."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from qa_edge.batches import Targets, TrainingData, epoch_batches, moved
from qa_edge.noisy_questions import Noisy
from qa_edge.paragraphs import Others, find_candidates
from qa_edge.student.qanet import Batch

if TYPE_CHECKING:
    from qa_edge.train_settings import TrainSettings

# Building a batch takes a thirtieth of a millisecond a question: one thread keeps far ahead of any device. Two batches
# wait, so that an evaluation or a slow batch does not empty the queue.
DEPTH = 2


class Updates:
    """Batches by number of update.

    On an accelerator a thread builds the next ones and copies them there while the device computes; on a CPU, which
    would have to compute less for it, each is built when it is asked for. The batches are the same.

    :param process: this process's number among `processes`, each of which gets its own share of an update's questions.
    :ivar depth: batches that are built ahead; 0 for none.
    """

    def __init__(
        self,
        data: TrainingData,
        settings: TrainSettings,
        *,
        process: int = 0,
        processes: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.data, self.settings = data, settings
        self.process, self.processes = process, processes
        self.device = device or torch.device("cpu")
        self.depth = 0 if self.device.type == "cpu" else DEPTH
        self.steps_a_pass = max(1, len(data) // settings.batch_size)
        self._candidates = find_candidates(data.features) if settings.others else None
        self._pass: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: dict[int, Future[tuple[Batch, Targets]]] = {}

    def rows(self, step: int) -> NDArray[np.int64]:
        """The questions of this process in an update."""
        number, place = divmod(step, self.steps_a_pass)
        if self._pass[0] != number:
            batches = epoch_batches(self.data.lengths, self.settings.batch_size, seed=self.settings.seed, epoch=number)
            self._pass = (number, batches)
        return self._pass[1][place][self.process :: self.processes]

    def source(self, step: int) -> np.random.SeedSequence:
        """What is random in an update follows from this, on any device: a resumed run needs no generator's state."""
        return np.random.SeedSequence([self.settings.seed, step, self.process])

    def build(self, step: int) -> tuple[Batch, Targets]:
        """The batch of an update, on the device."""
        rows, settings = self.rows(step), self.settings
        others = noisy = None
        if self._candidates is not None:
            generator = np.random.default_rng(self.source(step))
            others = Others(candidates=self._candidates, share=settings.others, generator=generator)
        if settings.noise:
            place = {"seed": settings.seed, "step": step, "process": self.process}
            noisy = Noisy.of_update(settings.noise, self.data.features.noisy_copies, **place)
        batch, targets = self.data.batch(rows, others, noisy)
        return moved(batch, self.device), moved(targets, self.device)

    def __getitem__(self, step: int) -> tuple[Batch, Targets]:
        """The batch of an update; those after it are begun."""
        if not self.depth:
            return self.build(step)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=self._choose_device)
        for number in range(step, step + self.depth + 1):
            if number not in self._waiting:
                self._waiting[number] = self._thread.submit(self.build, number)
        return self._waiting.pop(step).result()

    def _choose_device(self) -> None:
        """A thread begins on the first GPU, and would pin memory for that one."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def close(self) -> None:
        """End the thread; what it has built ahead is given up."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None
        self._waiting.clear()
