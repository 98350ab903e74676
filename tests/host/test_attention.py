from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny_teacher import write_example_teacher
from torch import Tensor

from qa_edge import attention
from qa_edge.attention import fast_attention
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
    context = fast_attention(model, device=CPU, precision="bf16") if fast else nullcontext()
    with context, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = model(input_ids=ids, attention_mask=mask)
        loss = (output.start_logits.float().masked_fill(mask == 0, -1e9).logsumexp(-1) - output.end_logits[:, 3]).sum()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_gradients_are_those_of_the_fused_attention(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    known = attention.matmul_attention
    monkeypatch.setattr(attention, "matmul_attention", lambda *a, **k: called.append(1) or known(*a, **k))
    exact = gradients(teacher, precision=None, fast=False)
    fused, ours = (gradients(teacher, precision="bf16", fast=fast) for fast in (False, True))
    assert called and teacher.model.config._attn_implementation == "sdpa"
    # Rounding to bfloat16 moves both by about as much.
    assert distance(ours, exact) < 1.5 * distance(fused, exact) < 0.1
    # What is not in bfloat16 is given to the fused one, to the last bit.
    assert torch.equal(gradients(teacher, precision=None, fast=True), exact)


@pytest.mark.parametrize(("device", "precision"), [("cuda", "bf16"), ("cpu", "no")])
def test_elsewhere_the_fused_attention_stays(teacher: Teacher, device: str, precision: str) -> None:
    with fast_attention(teacher.model, device=torch.device(device), precision=precision):
        assert teacher.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("heads", "causal"), [(4, False), (2, False), (4, True)])
def test_shared_keys_and_what_is_read_in_order_go_to_the_fused_one(heads: int, causal: bool) -> None:
    module = SimpleNamespace(is_causal=causal, num_key_value_groups=4 // heads, training=False)
    query = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    key = query.flip(2)[:, :heads]
    output, _ = attention.matmul_attention(module, query, key, key, None)  # type: ignore[arg-type]
    keys = key.repeat_interleave(4 // heads, 1)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, keys, keys, is_causal=causal)
    assert torch.allclose(output.float(), wanted.transpose(1, 2).float(), atol=0.02)
