"""A tiny training run, also as a program that kills itself: `train_tiny.py FEATURES LABELS RUN [LAST_UPDATE]`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tiny_models import student_of

from qa_edge.batches import TrainingData
from qa_edge.checkpoint import TrainingState
from qa_edge.features import HELDOUT, Features
from qa_edge.labels import Labels
from qa_edge.squad import Squad, read_squad
from qa_edge.train import Trainer
from qa_edge.train_settings import TrainSettings

SETTINGS = TrainSettings(
    epochs=3,
    batch_size=10,
    warmup=5,
    evaluate_every=14,
    log_every=5,
    save_every=10,
    temperature=2.0,
    mse_weight=0.1,
)
"""Nine updates a pass and 27 in all; evaluations, lines of metrics and saves fall on different updates."""


def train(
    run: Path,
    features: Features,
    labels: Labels | None,
    settings: TrainSettings = SETTINGS,
    *,
    heldout: Squad | None = None,
    on_step: Callable[[int], None] | None = None,
    seed: int = 1,
    **sizes: object,
) -> TrainingState:
    """Run, or go on with, a tiny training in a folder, with dropout and stochastic depth unless told otherwise."""
    run.mkdir(parents=True, exist_ok=True)
    data = TrainingData(features, labels, context_limit=settings.context_limit)
    if heldout is None:
        heldout = read_squad(features.folder / HELDOUT)
    return Trainer(run, student_of(features, seed=seed, **sizes), data, heldout, settings, on_step=on_step).train()


def main(features: str, labels: str, run: str, last: str = "0") -> None:
    torch.set_num_threads(1)

    def die(step: int) -> None:
        if step == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    settings = replace(SETTINGS, epochs=2)
    train(Path(run), Features.open(features), Labels(labels), settings, on_step=die)


if __name__ == "__main__":
    main(*sys.argv[1:])
