"""How many questions an hour a student learns from, and what the time of an update goes to.

    python benchmarks/train_speed.py --features features --labels labels -o docs/benchmarks/train-speed.json

The trainer itself runs, on a fresh student, with stopwatches around its parts: nothing is trained by code of this
benchmark's own. With several variants (--variant, repeated) their rounds are interleaved, so that a noisy machine is
noisy to all; the median round counts. For the speed of several processes start the real thing (docs/training.md): its
metrics have questions_an_hour. One thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from qa_edge import ema, train
from qa_edge.batches import TrainingData
from qa_edge.features import Features
from qa_edge.labels import Labels
from qa_edge.squad import Squad
from qa_edge.student import fused
from qa_edge.student.config import preset_config
from qa_edge.student.qanet import QANet
from qa_edge.train import Trainer
from qa_edge.train_settings import TrainSettings
from qa_edge.trained import TrainedStudent
from qa_edge_runtime.errors import InputError, QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.machine import describe_machine, peak_memory_bytes
from qa_edge_runtime.tokenizer import Tokenizer

STOCK = "stock-layers"  # PyTorch's own between the matrix products, as without a C compiler
PARTS = ("data", "forward", "loss", "backward", "optimiser", "average", "rest")
# name: (settings of training, sizes of the student) that differ from the first variant's.
VARIANTS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "adam": ({}, {}),
    "muon": ({"optimizer": "muon"}, {}),
    "labels-alone": ({"rho": 0.0, "mse_weight": 0.0}, {}),
    "others": ({"others": 0.4}, {}),
    "no-dropout": ({}, {"dropout": 0.0, "character_dropout": 0.0, "survival": 1.0}),
    "8-heads": ({}, {"heads": 8}),
    "float32": ({"precision": "no"}, {}),
    STOCK: ({"optimizer": "muon"}, {}),
}


class Stopwatch:
    """Seconds that calls took, by part; what a part calls of another part counts to that one alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._switch()
            self._running.pop()

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*arguments, **named)

        return timed


class Contender:
    """One variant's trainer, with a stopwatch in it."""

    def __init__(
        self, name: str, features: Features, labels: Labels | None, settings: TrainSettings, run: Path
    ) -> None:
        self.name = name
        changed, sizes = VARIANTS[name]
        self.settings = replace(settings, **changed)
        vocabulary, vectors = features.vocabulary(), features.vectors()
        model = QANet(
            preset_config("edge", word_dim=vectors.shape[1], characters=vocabulary.character_rows, **sizes), seed=0
        )
        student = TrainedStudent(
            model=model, tokenizer=Tokenizer.load(features.folder), vocabulary=vocabulary, vectors=vectors
        )
        data = TrainingData(features, labels, context_limit=settings.context_limit)
        self.trainer = Trainer(run, student, data, Squad(articles=()), self.settings)
        self.trainer.model.train()
        # Batches built ahead by a thread would be timed beside the update, not in it.
        self.trainer.updates.depth = 0
        self.watch = Stopwatch()
        self.rounds: list[dict[str, float]] = []
        self.step = 0

    def round(self, updates: int, *, kept: bool = True) -> None:
        """Some updates; the parts' milliseconds an update are kept."""
        watch, trainer = self.watch, self.trainer
        watch.seconds.clear()
        with (
            mock.patch.object(trainer.data, "batch", watch.wrap("data", trainer.data.batch)),
            mock.patch.object(trainer.model, "with_states", watch.wrap("forward", trainer.model.with_states)),
            mock.patch.object(train, "distillation_loss", watch.wrap("loss", train.distillation_loss)),
            mock.patch.object(train, "interpolate", watch.wrap("loss", train.interpolate)),
            mock.patch.object(torch.Tensor, "backward", watch.wrap("backward", torch.Tensor.backward)),
            mock.patch.object(trainer.optimiser, "step", watch.wrap("optimiser", trainer.optimiser.step)),
            mock.patch.object(ema, "update", watch.wrap("average", ema.update)),
            watch.part("rest"),
            mock.patch.object(fused, "library", (lambda hidden: None) if self.name == STOCK else fused.library),
        ):
            for _ in range(updates):
                trainer._step(self.step)
                self.step += 1
        if kept:
            self.rounds.append({part: 1e3 * watch.seconds[part] / updates for part in PARTS})

    def result(self) -> dict[str, Any]:
        """Medians over the rounds."""
        middle = {part: statistics.median(found[part] for found in self.rounds) for part in PARTS}
        totals = sorted(sum(found.values()) for found in self.rounds)
        total = statistics.median(totals)
        an_hour = 3600 * 1e3 * self.settings.batch_size
        return {
            "questions_an_hour": round(an_hour / total),
            "questions_an_hour_range": [round(an_hour / totals[-1]), round(an_hour / totals[0])],
            "update_ms": round(total, 2),
            "parts_ms": {part: round(value, 2) for part, value in middle.items()},
        }


def measure(
    features: Features,
    labels: Labels | None,
    settings: TrainSettings,
    variants: list[str],
    *,
    rounds: int,
    updates: int,
) -> dict[str, Any]:
    """Interleaved rounds of all variants, in an order of its own each.

    :returns: results by variant.
    """
    with tempfile.TemporaryDirectory() as folder:
        contenders = [Contender(name, features, labels, settings, Path(folder) / name) for name in variants]
        # As the trainer's own loop does, which is not what is called here; the mode is the whole thread's.
        torch.set_flush_denormal(True)
        try:
            for contender in contenders:
                contender.round(updates, kept=False)
            for number in range(rounds):
                for contender in random.Random(number).sample(contenders, len(contenders)):
                    contender.round(updates)
        finally:
            torch.set_flush_denormal(False)
        return {contender.name: contender.result() for contender in contenders}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True, type=Path, help="folder that prepare wrote")
    parser.add_argument("--labels", type=Path, help="folder that label wrote; without it only labels-alone can run")
    parser.add_argument("--variant", action="append", choices=sorted(VARIANTS), help="what to time (muon); repeated")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10, help="in a round")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    variants = list(dict.fromkeys(options.variant or ["muon"]))
    try:
        if options.rounds < 1 or options.updates < 1:
            raise InputError("rounds and updates must be at least 1")
        if options.labels is None and variants != ["labels-alone"]:
            raise InputError("without --labels there is no teacher: only --variant labels-alone can run")
        settings = TrainSettings(
            batch_size=options.batch_size, precision=options.precision, temperature=2.0, mse_weight=0.05, warmup=10
        )
        labels = None if options.labels is None else Labels(options.labels)
        found = measure(
            Features.open(options.features),
            labels,
            settings,
            variants,
            rounds=options.rounds,
            updates=options.updates,
        )
    except QaEdgeError as error:
        sys.exit(f"train_speed: error: {error}")
    report = {
        "machine": describe_machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "allocator": Path(os.environ.get("LD_PRELOAD", "")).name or "the C library's",
        "batch_size": options.batch_size,
        "precision": options.precision,
        "rounds": options.rounds,
        "updates_a_round": options.updates,
        "peak_memory_bytes": peak_memory_bytes(),
        "variants": found,
    }
    width = max(map(len, found))
    print(f"{'':{width}}  questions/h  ms/update  " + "  ".join(f"{part:>9}" for part in PARTS))
    for name, result in found.items():
        total = sum(result["parts_ms"].values())
        parts = "  ".join(f"{value / total:9.1%}" for value in result["parts_ms"].values())
        print(f"{name:{width}}  {result['questions_an_hour']:11,}  {result['update_ms']:9.1f}  {parts}")
    if options.output:
        atomic_write(options.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
