"""Muon: torch's own, matrix by matrix, is the measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train import assert_same_run
from tiny_models import student_of, tiny_student
from train_tiny import SETTINGS

from qa_edge.batches import TrainingData
from qa_edge.features import Features
from qa_edge.flat import FlatParameters
from qa_edge.labels import Labels
from qa_edge.muon import SIZE, Muon, orthogonalise
from qa_edge.squad import Squad
from qa_edge.train import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_updates_are_those_of_torch() -> None:
    """Matrices go as by torch.optim.Muon, the rest as by Adam, depthwise filters and tables among it."""
    model = tiny_student()
    flat = FlatParameters(model)
    muon = Muon(flat, lr=0.01, betas=(0.8, 0.999), eps=1e-7, fused=True)
    copies = {name: torch.nn.Parameter(value.detach().clone()) for name, value in flat.named}
    maps = [name for name, value in copies.items() if value.ndim == 2 and "depthwise" not in name]
    maps = [name for name in maps if name not in ("token.characters", "start.weight", "end.weight")]
    # torch scales an update to 0.2 of what makes its numbers 1 in the mean.
    matrices = torch.optim.Muon(
        [copies[name] for name in maps], lr=0.01 * SIZE / 0.2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    )
    rest = torch.optim.Adam(
        [value for name, value in copies.items() if name not in maps], lr=0.01, betas=(0.8, 0.999), eps=1e-7
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        flat.gradient.copy_(torch.randn(flat.gradient.shape, generator=generator))
        for name, gradient in flat.named_arrays(flat.gradient).items():
            copies[name].grad = gradient.clone()
        muon.step()
        matrices.step()
        rest.step()
    for name, value in flat.named:
        # bfloat16 inside: one unit in its last place, of updates of this size.
        tolerance = 1e-3 if name in maps else 1e-6
        assert torch.allclose(value, copies[name], atol=tolerance), name
        assert not torch.equal(value, dict(tiny_student().named_parameters())[name]) or name == "token.unknown"


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-6, 1.0, 1e6])[: shape[0], None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.shape == (shape[0], min(shape[1:])) and values.median() > 0.7 and values.max() < 1.3
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_a_run_goes_on_to_the_same_numbers(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=1, optimizer="muon", save_every=2, log_every=2, evaluate_every=5)

    def train(run: Path, last: int | None) -> None:
        run.mkdir(exist_ok=True)
        data = TrainingData(tiny_features, tiny_labels)
        given = replace(settings, max_steps=last)
        Trainer(run, student_of(tiny_features), data, Squad(articles=()), given).train()

    train(tmp_path / "whole", 5)
    train(tmp_path / "parts", 3)
    train(tmp_path / "parts", 5)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
