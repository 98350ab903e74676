"""Metrics of a run: JSON lines that survive a kill, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge_runtime.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from qa_edge.losses import LossTerms

FILE = "metrics.jsonl"


def keep_lines(path: Path, *, step: int) -> None:
    """Leave of a file of metrics the lines up to a step, from which a run goes on; one that is not there is begun."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a line cut by a kill
            continue
        if record["step"] <= step:
            kept.append(line)
    atomic_write(path, "".join(f"{line}\n" for line in kept))


class MetricsLog:
    """One curve over all slices of a run: lines of steps that a resumed run repeats are dropped first.

    :param enabled: False in the processes that do not write.
    :param mean: of an array over all processes, which call `gathered` and `write_training` together.
    """

    def __init__(
        self, run: Path, *, enabled: bool = True, mean: Callable[[Tensor], Tensor] = lambda values: values
    ) -> None:
        self.path, self.enabled, self._mean = run / FILE, enabled, mean
        self._board: Any = None
        # Of the updates before a resumed run's first, over all processes; and this process's own since, on its device.
        self._earlier: dict[str, float] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._reset()

    def start(self, *, step: int, gathered: Mapping[str, Any] | None = None) -> None:
        """Begin or go on after `step`.

        :param gathered: what `gathered` gave at that step, so that the next line is the one of an unbroken run.
        """
        self._reset()
        if gathered:
            self._updates, self._earlier = gathered["updates"], dict(gathered["sums"])
        if not self.enabled:
            return
        keep_lines(self.path, step=step)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step + 1)

    def add(self, *, questions: int, norm: Tensor, terms: LossTerms) -> None:
        """Add one update to the means of the next line."""
        self._updates += 1
        self._questions += questions
        values = {"loss": terms.total, "hard": terms.hard, "soft": terms.soft, "mse": terms.mse, "gradient_norm": norm}
        if terms.layers is not None:
            values["layers"] = terms.layers
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach())

    def gathered(self) -> dict[str, Any]:
        """Updates and sums of the line to come, as JSON can hold them without loss; they go into the state.

        Summed in 64 bits: in 32 the last digit of a line would hang on where a run was stopped and resumed.
        """
        if not self._updates:
            return {"updates": 0, "sums": {}}
        import torch  # here, so that reading a run's metrics needs no torch

        own = [torch.stack(values).cpu().double().sum() for values in self._values.values()]
        means = self._mean(torch.stack(own)).tolist() if own else []
        sums = self._earlier | {
            name: self._earlier.get(name, 0.0) + mean for name, mean in zip(self._values, means, strict=True)
        }
        return {"updates": self._updates, "sums": sums}

    def write_training(self, *, step: int, epoch: float, rate: float) -> None:
        """Write the means since the last line and the questions an hour."""
        if self._updates:
            means = {name: round(total / self._updates, 5) for name, total in self.gathered()["sums"].items()}
            speed = round(self._questions / max(time.perf_counter() - self._since, 1e-9) * 3600)
            self.write(kind="training", step=step, epoch=epoch, rate=rate, **means, questions_an_hour=speed)
        self._reset()

    def write(self, *, kind: str, step: int, **values: Any) -> None:
        """Append one line."""
        if not self.enabled:
            return
        with self.path.open("a") as stream:
            stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush what TensorBoard holds."""
        if self._board is not None:
            self._board.close()

    def _reset(self) -> None:
        self._updates = self._questions = 0
        self._earlier, self._values = {}, {}
        self._since = time.perf_counter()
