from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from qa_edge_runtime.errors import InputError

torch = pytest.importorskip("torch")

from qa_edge.interpolate import interpolate  # noqa: E402
from qa_edge.loss_settings import DistillationLoss  # noqa: E402
from qa_edge.losses import (  # noqa: E402
    distillation_loss,
    hard_loss,
    interpolation_loss,
    soft_loss,
    soft_target_loss,
)

LENGTHS, PIECES = [9, 4, 12, 7], [11, 6, 12, 5]


def make_batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Four questions: the second has no answer, the fourth no teacher."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return 4.0 * torch.randn(*shape, generator=generator, dtype=dtype)

    tokens, pieces = max(LENGTHS), max(PIECES)
    mask = torch.arange(tokens)[None, :] < torch.tensor(LENGTHS)[:, None]
    aligned = mask & (torch.rand(4, tokens, generator=generator) < 0.7)
    aligned[:, 0], aligned[3] = True, False
    piece_mask = torch.arange(pieces)[None, :] < torch.tensor(PIECES)[:, None]
    piece_mask[3] = False
    return {
        "start_logits": random(4, tokens),
        "end_logits": random(4, tokens),
        "mask": mask,
        "start": torch.tensor([2, -1, 0, 5]),
        "end": torch.tensor([8, -1, 11, 5]),
        "teacher_start": random(4, tokens),
        "teacher_end": random(4, tokens),
        "aligned": aligned,
        "interpolated": random(4, 2, pieces),
        "teacher_pieces": random(4, 2, pieces),
        "piece_mask": piece_mask,
    }


# --- the same in plain numpy, a question at a time -------------------------------------------------------------------


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def numpy_hard(batch: dict[str, Any], row: int) -> float:
    tokens = LENGTHS[row]
    start = softmax(batch["start_logits"][row, :tokens].numpy())[batch["start"][row]]
    end = softmax(batch["end_logits"][row, :tokens].numpy())[batch["end"][row]]
    return -math.log(start) - math.log(end)


def numpy_soft(batch: dict[str, Any], row: int, temperature: float) -> float:
    aligned, total = batch["aligned"][row].numpy(), 0.0
    for side in ("start", "end"):
        p = softmax(batch[f"{side}_logits"][row].numpy()[aligned] / temperature)
        q = softmax(batch[f"teacher_{side}"][row].numpy()[aligned] / temperature)
        total += temperature**2 * float((q * np.log(q / p)).sum())
    return total


def numpy_mse(batch: dict[str, Any], row: int) -> float:
    difference = (batch["interpolated"] - batch["teacher_pieces"])[row, :, : PIECES[row]].numpy()
    return float((difference**2).mean())


def test_hard_loss_of_each_question_is_numpys() -> None:
    batch = make_batch()
    result = hard_loss(*(batch[name] for name in ("start_logits", "end_logits", "mask", "start", "end")))
    expected = [numpy_hard(batch, 0), 0.0, numpy_hard(batch, 2), numpy_hard(batch, 3)]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_hard_loss_equals_torch_cross_entropy() -> None:
    start_logits, end_logits = torch.randn(5, 8), torch.randn(5, 8)
    start, end = torch.tensor([0, 3, -1, 7, 1]), torch.tensor([2, 3, -1, 7, 6])
    expected = sum(
        torch.nn.functional.cross_entropy(logits, target, ignore_index=-1, reduction="none")
        for logits, target in ((start_logits, start), (end_logits, end))
    )
    result = hard_loss(start_logits, end_logits, torch.ones(5, 8, dtype=torch.bool), start, end)
    torch.testing.assert_close(result, expected)


def test_hard_loss_without_a_label_is_zero_and_keeps_the_graph() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    result = hard_loss(
        logits, logits, torch.ones(2, 3, dtype=torch.bool), torch.tensor([-1, -1]), torch.tensor([-1, -1])
    )
    result.sum().backward()
    assert (result == 0).all() and logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_soft_loss_is_the_divergence_over_aligned_tokens(temperature: float) -> None:
    batch = make_batch()
    names = ("start_logits", "end_logits", "teacher_start", "teacher_end", "aligned")
    result = soft_loss(*(batch[name] for name in names), temperature)
    expected = [numpy_soft(batch, row, temperature) for row in range(3)]
    np.testing.assert_allclose(result, [*expected, 0.0], rtol=1e-10)  # the fourth question has no aligned token


def test_soft_loss_of_the_teacher_itself_is_zero() -> None:
    batch = make_batch(dtype=torch.float32)
    teacher, aligned = batch["teacher_start"][:3], batch["aligned"][:3]
    student = torch.where(aligned, teacher, 123.0).requires_grad_()  # what is not aligned may differ
    result = soft_target_loss(student, teacher, aligned, 10.0)
    result.mean().backward()
    assert (result == 0).all()
    assert student.grad is not None and student.grad.abs().max() < 1e-5
    # A constant added to all logits of a context does not change a distribution.
    assert soft_target_loss(student + 7.0, teacher, aligned, 10.0).abs().max() < 1e-3


def test_soft_loss_weighs_by_the_teacher_and_leaves_it_alone() -> None:
    student = torch.tensor([[2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    result = soft_target_loss(student, teacher, torch.ones(1, 2, dtype=torch.bool), 1.0)
    result.backward()
    p = 1.0 / (1.0 + math.exp(-2.0))
    assert result.item() == pytest.approx(0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1.0 - p)))
    assert teacher.grad is None
    assert student.grad is not None and student.grad[0, 0].item() == pytest.approx(p - 0.5)


def test_temperature_squared_keeps_the_gradient_from_shrinking() -> None:
    """At high temperature the loss tends to half the squared difference of the centred logits, mean over tokens."""
    batch = make_batch()
    student, teacher = batch["start_logits"][:1, :9], batch["teacher_start"][:1, :9]
    everything = torch.ones(1, 9, dtype=torch.bool)
    difference = (student - student.mean()) - (teacher - teacher.mean())
    limit = 0.5 * difference.square().mean().item()
    assert soft_target_loss(student, teacher, everything, 1e4).item() == pytest.approx(limit, rel=1e-2)
    gradients = []
    for temperature in (1e3, 1e4):
        moved = student.clone().requires_grad_()
        soft_target_loss(moved, teacher, everything, temperature).backward()
        gradients.append(moved.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-2, atol=1e-3)


def test_interpolation_loss_is_the_mean_over_positions_and_ends() -> None:
    batch = make_batch()
    result = interpolation_loss(batch["interpolated"], batch["teacher_pieces"], batch["piece_mask"])
    np.testing.assert_allclose(result, [*(numpy_mse(batch, row) for row in range(3)), 0.0], rtol=1e-12)
    same = interpolation_loss(batch["teacher_pieces"], batch["teacher_pieces"], batch["piece_mask"])
    assert (same == 0).all()


def test_gradient_of_the_mse_through_the_interpolation() -> None:
    batch = make_batch()
    logits = torch.stack((batch["start_logits"], batch["end_logits"]), dim=1).requires_grad_()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        interpolated = interpolate(logits, LENGTHS, PIECES, "cubic")
        return interpolation_loss(interpolated, batch["teacher_pieces"], batch["piece_mask"])

    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize("config", [DistillationLoss(), DistillationLoss(rho=0.2, temperature=3.0, mse_weight=0.1)])
def test_distillation_loss_weighs_each_question_for_itself(config: DistillationLoss) -> None:
    batch = make_batch()
    terms = distillation_loss(config, **batch)
    total = 0.0
    for row, (labelled, taught) in enumerate([(True, True), (False, True), (True, True), (True, False)]):
        rho = config.rho if labelled else 1.0
        total += (1.0 - rho) * numpy_hard(batch, row) if labelled else 0.0
        if taught:
            total += rho * numpy_soft(batch, row, config.temperature) + config.mse_weight * numpy_mse(batch, row)
    assert terms.total.item() == pytest.approx(total / 4, rel=1e-6)
    assert terms.hard.item() == pytest.approx(np.mean([numpy_hard(batch, row) for row in (0, 2, 3)]), rel=1e-6)
    soft = np.mean([numpy_soft(batch, row, config.temperature) for row in range(3)])
    assert terms.soft.item() == pytest.approx(soft, rel=1e-6)
    assert terms.mse.item() == pytest.approx(np.mean([numpy_mse(batch, row) for row in range(3)]), rel=1e-6)


def test_distillation_loss_is_the_sum_of_its_terms_when_all_have_all() -> None:
    batch = {name: values[[0, 2]] for name, values in make_batch().items()}
    config = DistillationLoss(rho=0.6, temperature=4.0, mse_weight=0.5)
    terms = distillation_loss(config, **batch)
    torch.testing.assert_close(terms.total, 0.4 * terms.hard + 0.6 * terms.soft + 0.5 * terms.mse)


def test_no_padding_has_any_influence() -> None:
    batch = make_batch()
    expected = distillation_loss(DistillationLoss(), **batch)
    for fill in (1e30, -1e30, 0.0):
        filled = dict(batch)
        for name in ("start_logits", "end_logits"):
            filled[name] = torch.where(batch["mask"], batch[name], fill)
        for name in ("teacher_start", "teacher_end"):
            filled[name] = torch.where(batch["aligned"], batch[name], fill)
        for name in ("interpolated", "teacher_pieces"):
            filled[name] = torch.where(batch["piece_mask"][:, None], batch[name], fill)
        torch.testing.assert_close(distillation_loss(DistillationLoss(), **filled), expected)
        wider = {
            name: torch.nn.functional.pad(values, (0, 5), value=False if values.dtype == torch.bool else fill)
            if values.dim() > 1
            else values
            for name, values in filled.items()
        }
        torch.testing.assert_close(distillation_loss(DistillationLoss(), **wider), expected)


def test_order_of_the_batch_has_no_influence() -> None:
    batch = make_batch()
    turned = {name: values[[2, 0, 3, 1]] for name, values in batch.items()}
    torch.testing.assert_close(
        distillation_loss(DistillationLoss(), **turned), distillation_loss(DistillationLoss(), **batch)
    )


@pytest.mark.parametrize(
    ("config", "labelled"),
    [
        pytest.param(DistillationLoss(rho=0.0, mse_weight=0.0), True, id="hard"),
        pytest.param(DistillationLoss(rho=1.0, mse_weight=0.0), True, id="soft"),
        pytest.param(DistillationLoss(rho=0.0, mse_weight=1.0), False, id="mse"),
        pytest.param(DistillationLoss(rho=0.7, mse_weight=0.0), False, id="soft without a label"),
    ],
)
def test_each_term_alone_moves_every_weight(config: DistillationLoss, labelled: bool) -> None:
    torch.manual_seed(0)
    batch = make_batch(dtype=torch.float32)
    if not labelled:
        batch["start"] = batch["end"] = torch.full((4,), -1)
    if config.mse_weight:  # without a label rho is 1: without alignment, nothing but the MSE is left
        batch["aligned"] = torch.zeros_like(batch["aligned"])
    states = torch.randn(4, max(LENGTHS), 6)
    model = torch.nn.Linear(6, 2)
    before = model.weight.detach().clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    values = []
    for _ in range(20):
        logits = model(states)
        batch["start_logits"], batch["end_logits"] = logits.unbind(dim=-1)
        batch["interpolated"] = interpolate(logits.transpose(1, 2), LENGTHS, PIECES)
        terms = distillation_loss(config, **batch)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        values.append(terms.total.item())
    assert (model.weight.detach() != before).all()
    assert values[-1] < values[0]


def test_half_precision_logits_are_computed_in_float32() -> None:
    batch = make_batch(dtype=torch.float32)
    names = ("start_logits", "end_logits", "teacher_start", "teacher_end", "interpolated", "teacher_pieces")
    rounded = batch | {name: batch[name].bfloat16() for name in names}
    expected = distillation_loss(DistillationLoss(), **(rounded | {name: rounded[name].float() for name in names}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = distillation_loss(DistillationLoss(), **rounded)
    assert all(term.dtype == torch.float32 for term in result if term is not None)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_a_batch_without_a_teacher_has_only_labels() -> None:
    batch = make_batch()
    bare = {name: batch[name] for name in ("start_logits", "end_logits", "mask", "start", "end")}
    terms = distillation_loss(DistillationLoss(rho=0.0, mse_weight=0.0), **bare)
    assert terms.soft.item() == terms.mse.item() == 0.0
    assert terms.total.item() == pytest.approx(0.75 * terms.hard.item())
    with pytest.raises(ValueError, match="no aligned teacher logits"):
        distillation_loss(DistillationLoss(mse_weight=0.0), **bare)
    with pytest.raises(ValueError, match="mse_weight is 1"):
        distillation_loss(DistillationLoss(rho=0.0), **bare)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rho", -0.1),
        ("rho", 1.5),
        ("rho", math.nan),
        ("temperature", 0.0),
        ("temperature", math.inf),
        ("mse_weight", -1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is"):
        DistillationLoss(**{name: value})
