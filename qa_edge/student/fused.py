"""What an encoder block does between its matrix products, for training in bfloat16 on one core of a CPU.

There PyTorch's single layers are bound by memory: each reads and writes whole tensors, and half of an update goes to
them. `fused.c` does in one pass what they do in several. It is compiled when it is first needed, by the machine's own C
compiler for its own processor; without one, with several threads, or in float32, the stock layers do the same.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

COMPILERS = ("cc", "gcc", "clang")
# Sums may be reordered, as vectors do; nothing is said of NaN and infinity, which stay what they are.
FLAGS = (
    *("-O3", "-march=native", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
)
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "norm_forward": (*(_POINTER,) * 8, _COUNT, _COUNT, _NUMBER),
    "norm_backward": (*(_POINTER,) * 11, _COUNT, _COUNT),
    "depthwise_forward": (*(_POINTER,) * 3, *(_COUNT,) * 4),
    "depthwise_backward": (*(_POINTER,) * 5, *(_COUNT,) * 4),
    "residual_forward": (*(_POINTER,) * 4, *(_COUNT,) * 3),
    "relu_backward": (*(_POINTER,) * 5, _COUNT, _COUNT),
    "bias_backward": (_POINTER, _POINTER, _COUNT, _COUNT),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The functions of `fused.c`; None if no compiler is there, or it cannot compile them."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    # Not kept: what is compiled for one processor may not run on another that sees the same folder.
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "fused.so"
        source = Path(__file__).with_name("fused.c")
        try:
            subprocess.run([compiler, *FLAGS, str(source), "-o", str(built), "-lm"], check=True, capture_output=True)
            found = ctypes.CDLL(str(built))
        except (OSError, subprocess.CalledProcessError):
            return None
    for name, arguments in _SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    return found


def pays(x: Tensor) -> bool:
    """Whether these forms take the place of the stock layers for what is computed of x."""
    return _fits(x.dtype, x.device) and torch.is_grad_enabled() and library() is not None


def compiler_missing(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether training in this dtype on this device would be faster if a C compiler were there."""
    return _fits(dtype, device) and library() is None


def _fits(dtype: torch.dtype, device: torch.device) -> bool:
    return dtype is torch.bfloat16 and device.type == "cpu" and torch.get_num_threads() == 1


def norm(
    x: Tensor, layer: torch.nn.LayerNorm, mask: Tensor | None, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Layer norm of the last axis, times dropout's mask and what is kept; and x, for the residual around the layer.

    Where both come together again, the gradient of x is summed while it is made.

    :param x: shape (..., hidden).
    :param mask: of x's shape and dtype, or None.
    :param keep: shape (..., 1), or None.
    """
    kept = None if keep is None else keep.to(x.dtype).contiguous()
    result: tuple[Tensor, Tensor] = _Norm.apply(x.contiguous(), layer.weight, layer.bias, mask, kept, layer.eps)
    return result


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution over tokens with zero "same" padding.

    :param x: shape (batch, tokens, hidden).
    :param kernel: shape (hidden, k), k odd, float32.
    """
    result: Tensor = _Depthwise.apply(x.contiguous(), kernel.t().contiguous())
    return result


def residual(x: Tensor, inner: Tensor, layer: torch.nn.Linear, *, relu: bool = False) -> Tensor:
    """x + layer(inner), or x + ReLU(layer(inner)); all of one shape."""
    product = torch.nn.functional.linear(inner, layer.weight)
    result: Tensor = _Residual.apply(product.contiguous(), layer.bias, x.contiguous(), relu)
    return result


def _call(name: str, *arguments: Tensor | float | None) -> None:
    function = getattr(library(), name)
    function(*(value.data_ptr() if isinstance(value, Tensor) else value for value in arguments))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None, keep: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        hidden, y = x.shape[-1], torch.empty_like(x)
        rows = x.numel() // hidden
        mean, scale = torch.empty(2, rows)
        _call("norm_forward", x, weight, bias, mask, keep, y, mean, scale, rows, hidden, epsilon)
        ctx.save_for_backward(x, weight, mask, keep, mean, scale)
        return y, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask, keep, mean, scale = ctx.saved_tensors
        gradient, residual = (one.contiguous() for one in gradients)
        own, (of_weight, of_bias) = torch.empty_like(x), torch.zeros(2, len(weight))
        of = (gradient, x, weight, mask, keep, mean, scale, residual, own, of_weight, of_bias)
        _call("norm_backward", *of, len(mean), len(weight))
        return own, of_weight, of_bias, None, None, None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        z = torch.empty_like(x)
        _call("depthwise_forward", x, kernel, z, *x.shape, len(kernel))
        ctx.save_for_backward(x, kernel)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        gradient, own, of_kernel = gradients[0].contiguous(), torch.empty_like(x), torch.zeros_like(kernel)
        _call("depthwise_backward", gradient, x, kernel, own, of_kernel, *x.shape, len(kernel))
        return own, of_kernel


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner: Tensor, bias: Tensor, x: Tensor, relu: bool) -> Tensor:
        result, hidden = torch.empty_like(x), len(bias)
        _call("residual_forward", inner, bias, x, result, x.numel() // hidden, hidden, relu)
        ctx.save_for_backward(*((inner, bias) if relu else (None, bias)))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inner, bias = ctx.saved_tensors
        gradient, of_bias = gradients[0].contiguous(), torch.zeros_like(bias)
        rows, hidden = gradient.numel() // len(bias), len(bias)
        if inner is None:
            _call("bias_backward", gradient, of_bias, rows, hidden)
            return gradient, of_bias, gradient, None
        of_inner = torch.empty_like(inner)
        _call("relu_backward", gradient, inner, bias, of_inner, of_bias, rows, hidden)
        return of_inner, of_bias, gradient, None
