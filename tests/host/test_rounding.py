"""Training with the table's rounding: the numbers are the bundle's own, and gradients pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import student_of, tiny_student
from train_tiny import SETTINGS

from qa_edge.batches import TrainingData
from qa_edge.features import Features
from qa_edge.labels import Labels
from qa_edge.squad import Squad
from qa_edge.student.rounding import round_to_int4
from qa_edge.train import Trainer
from qa_edge_export.token_table import INT4_GROUP
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.table import quantise_rows, unpack_nibbles

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_rounds_as_the_table_does() -> None:
    states = np.random.default_rng(0).normal(size=(50, 4 * INT4_GROUP)).astype(np.float32)
    states[0] = 0
    states[1, :INT4_GROUP] = 0
    rows, scales = quantise_rows(states, "int4", INT4_GROUP)
    assert scales is not None
    numbers = unpack_nibbles(rows).reshape(50, 4, INT4_GROUP).astype(np.float32)
    expected = (numbers * scales.astype(np.float32)[:, :, None]).reshape(states.shape)
    found = round_to_int4(torch.from_numpy(states)).numpy()
    # The table's scales may be one float16 larger, so that all of the group fits: a rounding may fall the other way.
    assert np.mean(np.abs(found - expected) > 2e-3) < 0.01 and np.abs(found - states).max() < 0.5


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    states = torch.randn(3, 2 * INT4_GROUP, requires_grad=True)
    weights = torch.randn(3, 2 * INT4_GROUP)
    (round_to_int4(states) * weights).sum().backward()
    assert torch.equal(states.grad, weights)  # type: ignore[arg-type]


def test_training_rounds_and_the_trained_student_does_not(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels
) -> None:
    settings = replace(SETTINGS, table="int4")
    data = TrainingData(tiny_features, tiny_labels)
    trainer = Trainer(
        tmp_path / "run", student_of(tiny_features, hidden=INT4_GROUP), data, Squad(articles=()), settings
    )
    batch, targets = data.batch(np.arange(2))
    with torch.no_grad():
        rounded = trainer.loss(batch, targets).total
        trainer.model.rounds_states = False
        assert abs(float(trainer.loss(batch, targets).total - rounded)) > 1e-6
    assert not tiny_student().rounds_states
    with pytest.raises(InputError, match="multiple of 32"):
        Trainer(tmp_path / "no", student_of(tiny_features, hidden=20), data, Squad(articles=()), settings)
