"""Slices by time: a run that stops at the clock and goes on is the run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_train import assert_same_run
from tiny_models import student_of
from train_tiny import SETTINGS, train

from qa_edge.batches import TrainingData
from qa_edge.checkpoint import TrainingState
from qa_edge.features import HELDOUT, Features
from qa_edge.labels import Labels
from qa_edge.slices import train_slice
from qa_edge.squad import read_squad
from qa_edge.train import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def a_slice(run: Path, features: Features, labels: Labels, deadline: float | None) -> tuple[TrainingState, list[str]]:
    said: list[str] = []
    heldout = read_squad(features.folder / HELDOUT)
    trainer = Trainer(run, student_of(features, seed=1), TrainingData(features, labels), heldout, SETTINGS)
    return train_slice(trainer, said.append, deadline=deadline), said


def test_slices_by_the_clock_are_the_run(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    """Each ends between two saves and two lines of metrics, after one update: the time was over at its beginning."""
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    parts.mkdir()
    for step in (1, 2, 3):
        state, said = a_slice(parts, tiny_features, tiny_labels, time.monotonic())
        assert state.step == step and not state.finished and not said
        assert [path.name for path in (parts / "state").iterdir()] == [f"step-{step:08d}"]
    state, _ = a_slice(parts, tiny_features, tiny_labels, time.monotonic() + 3600)
    assert state.step == 27 and state.finished
    train(whole, tiny_features, tiny_labels)
    assert_same_run(parts, whole)
    again, _ = a_slice(parts, tiny_features, tiny_labels, time.monotonic())
    assert again.finished and again.step == 27
