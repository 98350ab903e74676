"""An encoder block's sub-layers, forward and backward, for training in bfloat16 on one core of a CPU.

PyTorch's single layers are bound by memory there: each reads and writes whole tensors, and matrices of a hundred
columns are too small for the processor's tiles to be busy. `fused.c` takes each example through a whole sub-layer while
it is in the cache. It is compiled when it is first needed, by the machine's own C compiler for its own processor, which
must multiply bfloat16 (AVX-512 BF16, faster with AMX); elsewhere the stock layers do the same.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

COMPILERS = ("cc", "gcc", "clang")
# Sums may be reordered, as vectors do; nothing is said of NaN and infinity, which stay what they are.
FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
)
STEP = 32  # hidden sizes are multiples of it, and tokens are padded to one, as tiles want
# Tensors before the sizes, in the order of `fused.c`.
_TENSORS = {
    "convolution_forward": 13,
    "convolution_backward": 18,
    "attention_forward": 19,
    "attention_backward": 26,
    "feedforward_forward": 12,
    "feedforward_backward": 17,
}
_SIZES = {"convolution_forward": 3, "convolution_backward": 3}


# The second for a system that does not give the tiles.
TRIES = ((), ("-mno-amx-bf16",))


@functools.cache
def library(hidden: int) -> ctypes.CDLL | None:
    """The functions of `fused.c` for a width; None without a compiler, or where the processor has no bfloat16."""
    source = Path(__file__).with_name("fused.c")
    for compiler, flags in itertools.product(filter(None, map(shutil.which, COMPILERS)), TRIES):
        try:
            # Not kept: what is compiled for one processor may not run on another that sees the same folder.
            with tempfile.TemporaryDirectory() as folder:
                built = Path(folder) / "fused.so"
                line = [compiler, *FLAGS, *flags, f"-DHIDDEN={hidden}", str(source), "-o", str(built), "-lm"]
                subprocess.run(line, check=True, capture_output=True)
                found = ctypes.CDLL(str(built))
        except (OSError, subprocess.CalledProcessError):
            continue
        if not found.fused_start():
            for name, tensors in _TENSORS.items():
                sizes = (ctypes.c_int64,) * _SIZES.get(name, 2)
                epsilon = (ctypes.c_float,) if name.endswith("forward") else ()
                getattr(found, name).argtypes = ((ctypes.c_void_p,) * tensors) + sizes + epsilon
            return found
    return None


def pays(x: Tensor, layer: nn.Module) -> bool:
    """Whether these forms take the place of a stock layer for what is computed of x."""
    if not _fits(x.dtype, x.device, x.shape[-1]) or not torch.is_grad_enabled() or library(x.shape[-1]) is None:
        return False
    return all(one.dtype is torch.float32 and one.is_contiguous() for one in layer.parameters())


def missing(dtype: torch.dtype, device: torch.device, hidden: int) -> bool:
    """Whether training in this dtype on this device would be faster if `fused.c` could be compiled."""
    return _fits(dtype, device, hidden) and library(hidden) is None


def _fits(dtype: torch.dtype, device: torch.device, hidden: int) -> bool:
    plain = dtype is torch.bfloat16 and device.type == "cpu" and hidden % STEP == 0
    return plain and torch.get_num_threads() == 1


def convolution(
    x: Tensor, norm: nn.LayerNorm, mask: Tensor | None, keep: Tensor, kernel: Tensor, dense: nn.Linear
) -> Tensor:
    """x + ReLU(dense(depthwise(norm(x) * mask * keep))).

    :param x: bfloat16, shape (batch, tokens, hidden).
    :param mask: dropout's, of x's shape and dtype, or None.
    :param keep: shape (batch, tokens, 1).
    :param kernel: shape (hidden, k), k odd, float32.
    """
    kept = keep.to(x.dtype).contiguous()
    assert len(kept) == len(x)
    # The kernel's own gradient comes back through the transposition.
    weights = (kernel.t().contiguous(), dense.weight, dense.bias)
    result: Tensor = _Convolution.apply(x.contiguous(), norm.weight, norm.bias, norm.eps, mask, kept, *weights)
    return result


def attention(
    x: Tensor,
    norm: nn.LayerNorm,
    mask: Tensor | None,
    bias: Tensor,
    dense: tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear],
) -> Tensor:
    """x + output(softmax(query key / sqrt(hidden) + bias) value) of norm(x) * mask, one head.

    :param x: bfloat16, shape (batch, tokens, hidden).
    :param bias: shape (batch, 1, tokens).
    :param dense: query, key, value, output.
    """
    weights = [one for layer in dense for one in (layer.weight, layer.bias)]
    seen = bias.float().contiguous()
    assert len(seen) == len(x)
    result: Tensor = _Attention.apply(x.contiguous(), norm.weight, norm.bias, norm.eps, mask, seen, *weights)
    return result


def feedforward(x: Tensor, norm: nn.LayerNorm, mask: Tensor | None, inner: nn.Linear, outer: nn.Linear) -> Tensor:
    """x + outer(ReLU(inner(norm(x) * mask))), x bfloat16 of shape (batch, tokens, hidden)."""
    weights = (inner.weight, inner.bias, outer.weight, outer.bias)
    result: Tensor = _FeedForward.apply(x.contiguous(), norm.weight, norm.bias, norm.eps, mask, *weights)
    return result


def _call(name: str, *arguments: Tensor | float | None) -> None:
    x = next(one for one in arguments if isinstance(one, Tensor))
    if getattr(library(x.shape[-1]), name)(
        *(value.data_ptr() if isinstance(value, Tensor) else value for value in arguments)
    ):
        raise MemoryError(f"no memory for {name} of {x.shape[1]} tokens")


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, scale = x.new_empty(2, x.numel() // x.shape[-1], dtype=torch.float32)
    return mean, scale


def _kept(x: Tensor, times: int = 1) -> Tensor:
    batch, tokens, hidden = x.shape
    return x.new_empty(batch, -(-tokens // STEP) * STEP, times * hidden)


def _gradients(
    name: str, gradient: Tensor, saved: tuple[Tensor, ...], weights: tuple[Tensor, ...], *sizes: int
) -> tuple[Tensor, list[Tensor]]:
    """Of x, and of tensors shaped like `weights`."""
    x = saved[0]
    own, of = torch.empty_like(x), [torch.zeros_like(weight) for weight in weights]
    _call(name, gradient.contiguous(), *saved, own, *of, *x.shape[:2], *sizes)
    return own, of


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        mask: Tensor | None,
        keep: Tensor,
        *dense: Tensor,
    ) -> Tensor:
        out, mixed, statistics = torch.empty_like(x), _kept(x), _statistics(x)
        positive = torch.empty_like(x, dtype=torch.uint8)
        inputs = (x, weight, bias, mask, keep, *dense)
        _call("convolution_forward", *inputs, out, mixed, positive, *statistics, *x.shape[:2], len(dense[0]), epsilon)
        ctx.save_for_backward(*inputs[:-1], mixed, positive, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        _, weight, bias, _, _, kernel, dense = saved[:7]
        like = (weight, bias, kernel, dense, bias)
        own, of = _gradients("convolution_backward", gradients[0], saved, like, len(kernel))
        return own, *of[:2], None, None, None, *of[2:]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        mask: Tensor | None,
        seen: Tensor,
        *dense: Tensor,
    ) -> Tensor:
        out, statistics = torch.empty_like(x), _statistics(x)
        states, read, total = _kept(x, 3), _kept(x), torch.empty_like(statistics[0])
        inputs = (x, weight, bias, mask, seen)
        _call("attention_forward", *inputs, *dense, out, states, read, total, *statistics, *x.shape[:2], epsilon)
        ctx.save_for_backward(*inputs, *dense[::2], states, read, total, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        _, weight, bias = saved[:3]
        like = (weight, bias, *(one for dense in saved[5:9] for one in (dense, bias)))
        own, of = _gradients("attention_backward", gradients[0], saved, like)
        return own, *of[:2], None, None, None, *of[2:]


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, mask: Tensor | None, *dense: Tensor
    ) -> Tensor:
        out, middle, statistics = torch.empty_like(x), _kept(x), _statistics(x)
        inputs = (x, weight, bias, mask)
        _call("feedforward_forward", *inputs, *dense, out, middle, *statistics, *x.shape[:2], epsilon)
        ctx.save_for_backward(*inputs, *dense[::2], middle, *statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        _, weight, bias, _, inner, outer = saved[:6]
        own, of = _gradients("feedforward_backward", gradients[0], saved, (weight, bias, inner, bias, outer, bias))
        return own, *of[:2], None, None, *of[2:]
