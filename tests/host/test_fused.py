"""The encoder block's sub-layers in C beside its stock ones: as near to float32, or they are not used."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from qa_edge.student import fused
from qa_edge.student.block import EncoderBlock
from qa_edge.student.dropout import DropoutPool

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Path("/proc/cpuinfo")
BUILT_ANEW = fused.library.__wrapped__
NEEDS_COMPILER = pytest.mark.skipif(not any(map(shutil.which, fused.COMPILERS)), reason="no C compiler")
NEEDS_BFLOAT16 = pytest.mark.skipif(
    not CPU.exists() or "avx512_bf16" not in CPU.read_text(), reason="this processor does not multiply bfloat16"
)


@functools.cache
def compiled(hidden: int, flags: tuple[str, ...]) -> Any:
    with mock.patch.object(fused, "TRIES", (flags,)):
        return BUILT_ANEW(hidden)


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    fused.library.cache_clear()
    yield
    fused.library.cache_clear()


def block(hidden: int, kernel: int, *, dropout: float = 0.0, heads: int = 1) -> EncoderBlock:
    torch.manual_seed(hidden)
    made = EncoderBlock(
        hidden=hidden, heads=heads, kernel=kernel, convolutions=2, dropout=dropout, survival=1.0, pool=DropoutPool(0)
    )
    for parameter in made.parameters():  # no bias is 0, no norm's weight 1
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made.train()


def run(made: EncoderBlock, x: Tensor, lengths: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and gradients of x and all weights, of a batch with padding."""
    kept = (torch.arange(x.shape[1]) < torch.tensor(lengths).unsqueeze(1)).unsqueeze(2)
    bias = torch.where(kept, 0.0, -1e4).transpose(1, 2)
    made.zero_grad()
    own = x.clone().requires_grad_()
    torch.manual_seed(5)  # of the masks' places
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        out = made(own, kept.to(x.dtype), bias, first=1, sublayers=made.sublayers)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(6))
    ((out.float() * weights) * kept).sum().backward()
    assert own.grad is not None
    found = {name: one.grad for name, one in made.named_parameters() if one.grad is not None}
    return out.detach().float() * kept, {"x": own.grad.float(), **found}


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp(min=1e-6))


@NEEDS_COMPILER
@NEEDS_BFLOAT16
@pytest.mark.parametrize(
    ("hidden", "kernel", "lengths"), [(128, 7, [75, 33, 4]), (96, 5, [32, 9]), (32, 7, [2, 1]), (32, 3, [1])]
)
@pytest.mark.parametrize(("dropout", "flags"), [(0.0, ()), (0.25, ()), (0.25, ("-mno-amx-bf16",))])
def test_values_and_gradients_are_as_near_to_float32_as_the_stock_layers(
    hidden: int,
    kernel: int,
    lengths: list[int],
    dropout: float,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "library", lambda hidden: compiled(hidden, flags))
    assert fused.library(hidden) is not None
    made = block(hidden, kernel, dropout=dropout)
    x = torch.randn(len(lengths), max(lengths), hidden, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact, exact_gradients = run(made, x.float(), lengths)
    calls = []
    monkeypatch.setattr(fused, "_call", lambda *a, call=fused._call: (calls.append(a[0]), call(*a)))
    out, gradients = run(made, x, lengths)
    assert set(calls) == set(fused._TENSORS)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "library", lambda hidden: None)
        calls.clear()
        stock, stock_gradients = run(made, x, lengths)
        assert not calls
    assert error(out, exact) < 1.2 * error(stock, exact) + 1e-3 and error(stock, exact) < 0.05
    assert gradients.keys() == stock_gradients.keys() == exact_gradients.keys()
    for name, gradient in gradients.items():
        if name == "attention.key.bias":  # 0 but for rounding: a softmax does not see it
            continue
        expected = exact_gradients[name]
        assert error(gradient, expected) < 1.5 * error(stock_gradients[name], expected) + 0.02, name


@NEEDS_COMPILER
@NEEDS_BFLOAT16
def test_attention_with_several_heads_is_the_stock_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = block(32, 5, heads=2), torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact, _ = run(made, x.float(), [9, 4])
    calls = []
    monkeypatch.setattr(fused, "_call", lambda *a, call=fused._call: (calls.append(a[0]), call(*a)))
    out, gradients = run(made, x, [9, 4])
    assert set(calls) == {name for name in fused._TENSORS if not name.startswith("attention")}
    assert error(out, exact) < 0.02 and "attention.query.weight" in gradients


@NEEDS_COMPILER
@NEEDS_BFLOAT16
def test_what_is_no_number_stays_none() -> None:
    """Training finds weights that are no numbers: no form may turn them into numbers."""
    made, x = block(32, 5), torch.randn(1, 8, 32).bfloat16()
    for name, parameter in made.named_parameters():
        for bad in (torch.nan, -torch.nan):
            before = parameter.data.clone()
            parameter.data.view(-1)[3] = bad
            out, _ = run(made, x, [8])
            assert out.isnan().any(), name
            parameter.data = before
    for bad in (torch.nan, torch.inf):
        x = torch.randn(1, 8, 32).bfloat16()
        x[0, 3, 7] = bad
        out, _ = run(made, x, [8])
        assert out.isnan().any()


@NEEDS_COMPILER
@NEEDS_BFLOAT16
def test_one_thread_in_bfloat16_with_gradients_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer = torch.zeros(2, 3, 32), torch.nn.Linear(32, 32)
    assert fused.pays(x.bfloat16(), layer) and not fused.pays(x, layer) and not fused.pays(x.half(), layer)
    assert not fused.pays(x[:, :, :16].bfloat16(), layer)
    assert not fused.pays(x.bfloat16().to("meta"), layer)
    assert not fused.pays(x.bfloat16(), torch.nn.Linear(32, 32).bfloat16())  # read as float32 they would be garbage
    with torch.no_grad():
        assert not fused.pays(x.bfloat16(), layer)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not fused.pays(x.bfloat16(), layer)


@pytest.mark.usefixtures("compiled_anew")
@pytest.mark.parametrize("reason", ["none", "gone", "fails"])
def test_without_a_compiler_the_stock_layers_do_it(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(line: list[str], **keywords: Any) -> Any:
        raise OSError if reason == "gone" else subprocess.CalledProcessError(1, line)

    monkeypatch.setattr(fused.shutil, "which", lambda name: None if reason == "none" else f"/bin/{name}")
    monkeypatch.setattr(fused.subprocess, "run", started)
    made = block(32, 5)
    x = torch.randn(1, 6, 32).bfloat16()
    assert fused.library(32) is None and not fused.pays(x, made.feedforward)
    assert fused.missing(x.dtype, x.device, 32) and not fused.missing(x.dtype, x.device, 40)
    assert not fused.missing(torch.float32, x.device, 32)
    out, _ = run(made, x, [6])
    assert out.isfinite().all()
