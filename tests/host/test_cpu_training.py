from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny_teacher import write_example_teacher
from torch import Tensor

from qa_edge import cpu_training
from qa_edge.cpu_training import matmul_attention, trained_on_cpu
from qa_edge.student.dropout import Dropout, DropoutPool
from qa_edge.teacher import Teacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    teacher = Teacher.load(str(write_example_teacher(tmp_path_factory.mktemp("teacher") / "teacher")))
    torch.manual_seed(0)
    for parameter in teacher.model.parameters():  # no layer close to nothing, so that attention counts
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return teacher


def gradients(teacher: Teacher, *, precision: str | None, fast: bool) -> Tensor:
    """Of a loss over three windows, two of them padded."""
    model = teacher.model.eval()
    ids = torch.randint(5, len(teacher.tokenizer), (3, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = mask[2, 20:] = 0
    model.zero_grad()
    context = trained_on_cpu(model, device=CPU, seed=0) if fast else nullcontext()
    with context, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = model(input_ids=ids, attention_mask=mask)
        loss = (output.start_logits.float().masked_fill(mask == 0, -1e9).logsumexp(-1) - output.end_logits[:, 3]).sum()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_gradients_are_those_of_the_fused_attention(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(cpu_training, "matmul_attention", lambda *a, **k: called.append(1) or matmul_attention(*a, **k))
    exact = gradients(teacher, precision=None, fast=False)
    fused, ours = (gradients(teacher, precision="bf16", fast=fast) for fast in (False, True))
    assert called and teacher.model.config._attn_implementation == "sdpa"
    # Rounding to bfloat16 moves both by about as much.
    assert distance(ours, exact) < 1.5 * distance(fused, exact) < 0.1
    # What is not in bfloat16 is given to the fused one, to the last bit.
    assert torch.equal(gradients(teacher, precision=None, fast=True), exact)


def test_dropout_is_drawn_again_each_step_and_alike_for_the_same(teacher: Teacher) -> None:
    model = teacher.model.train()
    ids = torch.randint(5, len(teacher.tokenizer), (4, 16), generator=torch.Generator().manual_seed(1))
    before = list(model.modules())

    def logits(step: int) -> Tensor:
        torch.manual_seed(step)
        start_step(step)
        return model(input_ids=ids).start_logits

    with torch.no_grad(), trained_on_cpu(model, device=CPU, seed=0) as start_step:
        found = torch.stack([logits(step) for step in (0, 1, 70, 70)])
        drawn = [module for module in model.modules() if isinstance(module, Dropout)]
        assert drawn and all(module.p == 0.1 and module.training for module in drawn)
    assert torch.equal(found[2], found[3]) and not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert list(model.modules()) == before and model.config._attn_implementation == "sdpa"
    model.eval()


def test_attention_drops_what_it_is_told_to() -> None:
    """Values of ones: an output is the sum of the weights that are left, 1 on average."""
    module = SimpleNamespace(is_causal=False)
    query, ones = torch.zeros(2, 4, 32, 8), torch.ones(2, 4, 32, 8)
    output, _ = matmul_attention(module, query, query, ones, None, 0.25, pool=DropoutPool(0))  # type: ignore[arg-type]
    assert output.mean().item() == pytest.approx(1, abs=0.03) and output.std().item() > 0.05


def test_elsewhere_nothing_changes(teacher: Teacher) -> None:
    before = list(teacher.model.modules())
    with trained_on_cpu(teacher.model, device=torch.device("cuda"), seed=0):
        assert teacher.model.config._attn_implementation == "sdpa" and list(teacher.model.modules()) == before


@pytest.mark.parametrize(("heads", "causal"), [(4, False), (2, False), (4, True)])
def test_shared_keys_and_what_is_read_in_order_go_to_the_fused_one(heads: int, causal: bool) -> None:
    module = SimpleNamespace(is_causal=causal, num_key_value_groups=4 // heads, training=False)
    query = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    key = query.flip(2)[:, :heads]
    output, _ = matmul_attention(module, query, key, key, None, pool=DropoutPool(0))  # type: ignore[arg-type]
    keys = key.repeat_interleave(4 // heads, 1)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, keys, keys, is_causal=causal)
    assert torch.allclose(output.float(), wanted.transpose(1, 2).float(), atol=0.02)
