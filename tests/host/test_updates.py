"""Batches by number of update: built ahead or when asked for, they are the same; splines on a device are numpy's."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import student_of
from train_tiny import SETTINGS

from qa_edge.batches import Targets, TrainingData
from qa_edge.features import Features
from qa_edge.interpolate import interpolate
from qa_edge.labels import Labels
from qa_edge.splines import LONGEST, Splines
from qa_edge.squad import Squad
from qa_edge.student.qanet import Batch
from qa_edge.train import Trainer
from qa_edge.updates import Updates
from qa_edge_runtime.errors import InputError

CHOSEN = replace(SETTINGS, others=0.5)


def same(one: tuple[Batch, Targets], two: tuple[Batch, Targets]) -> bool:
    return all(
        torch.equal(value, vars(other)[name]) if isinstance(value, torch.Tensor) else value is vars(other)[name]
        for record, other in zip(one, two, strict=True)
        for name, value in vars(record).items()
    )


def test_batches_built_ahead_are_those_built_when_asked_for(tiny_features: Features, tiny_labels: Labels) -> None:
    """Over the end of a pass, and from the middle, as a resumed run asks for them."""
    data = TrainingData(tiny_features, tiny_labels)
    now, ahead = Updates(data, CHOSEN), Updates(data, CHOSEN)
    assert now.depth == 0 and now.steps_a_pass == 9
    ahead.depth = 3
    before = threading.active_count()
    expected = {step: now[step] for step in (*range(12), 40)}
    assert threading.active_count() == before
    assert all(same(ahead[step], expected[step]) for step in range(12))
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before
    assert same(ahead[40], expected[40])
    ahead.close()
    assert not same(expected[0], expected[9])


def test_an_error_in_the_thread_is_raised_where_the_batch_is_asked_for(tiny_features: Features) -> None:
    ahead = Updates(TrainingData(tiny_features, None), SETTINGS)
    ahead.depth = 1
    ahead.data.rows = np.full(len(ahead.data), 10**6)
    with pytest.raises(IndexError):
        ahead[0]
    ahead.close()


def test_processes_share_an_updates_questions(tiny_features: Features, tiny_labels: Labels) -> None:
    data = TrainingData(tiny_features, tiny_labels)
    whole = Updates(data, SETTINGS).rows(4)
    parts = [Updates(data, SETTINGS, process=process, processes=2).rows(4) for process in range(2)]
    assert len(whole) == 10 and {len(part) for part in parts} == {5}
    assert sorted(np.concatenate(parts)) == sorted(whole)


def test_an_update_as_on_an_accelerator_is_that_of_a_cpu(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels
) -> None:
    """With batches built ahead and splines from the table: the same losses and weights, to rounding."""
    data, nobody = TrainingData(tiny_features, tiny_labels), Squad(articles=())
    found = []
    for name in ("plain", "fast"):
        trainer = Trainer(tmp_path, student_of(tiny_features), data, nobody, CHOSEN)
        assert trainer.updates.depth == 0 and trainer.splines is None
        if name == "fast":
            trainer.updates.depth, trainer.splines = 2, Splines(int(data.lengths.max()), CHOSEN.interpolation)
        for step in range(3):
            trainer._step(step)
        found.append({**trainer.log.gathered()["sums"], "weights": float(trainer.flat.weights.abs().sum())})
        trainer.updates.close()
    assert found[0] == pytest.approx(found[1], rel=1e-4) and found[0]["mse"] > 0


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, extra=st.integers(0, 9), seed=st.integers(0, 9))
def test_splines_are_the_interpolation_and_its_gradient(
    kind: str, lengths: list[tuple[int, int]], extra: int, seed: int
) -> None:
    students, teachers = (list(side) for side in zip(*lengths, strict=True))
    generator = torch.Generator().manual_seed(seed)
    logits = 10 * torch.randn(len(lengths), 2, max(students) + extra, generator=generator)
    results = []
    for on_device in (False, True):
        given_logits = logits.clone().requires_grad_()
        if on_device:
            table = Splines(max(students), kind)
            found = table(given_logits, torch.tensor(students), torch.tensor(teachers), max(teachers))
        else:
            found = interpolate(given_logits, students, teachers, kind)
        found.sin().sum().backward()
        results.append((found.detach(), given_logits.grad))
    (expected, gradient), (found, other) = results
    assert found.shape == expected.shape and found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(other, gradient, atol=5e-3, rtol=1e-3)


def test_splines_that_cannot_be() -> None:
    with pytest.raises(InputError, match="unknown"):
        Splines(9, "quadratic")
    for longest in (0, LONGEST + 1):
        with pytest.raises(InputError, match=f"{longest} positions"):
            Splines(longest, "cubic")
