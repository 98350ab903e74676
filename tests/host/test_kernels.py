"""The two layers with gradients of their own: values and gradients of torch's stock layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qa_edge.student.kernels import CharacterWindows, DepthwiseConvolution


def stock_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """torch's grouped convolution over (batch, hidden, tokens)."""
    size = kernel.shape[1]
    return F.conv1d(x.mT, kernel.unsqueeze(1), padding=size // 2, groups=x.shape[2]).mT


def stock_windows(letters: Tensor, size: int) -> Tensor:
    """Windows of adjacent characters, put together by hand."""
    count = letters.shape[1] - size + 1
    return torch.stack([letters[:, place : place + size].flatten(1) for place in range(count)], 1)


SHAPES = [(tokens, size) for size in (1, 3, 5, 7) for tokens in (1, 2, 3, 4, 6, 7, 8, 20)]


@pytest.mark.parametrize(("tokens", "size"), SHAPES)
def test_depthwise_convolution_is_the_stock_layer(tokens: int, size: int) -> None:
    torch.manual_seed(tokens * 10 + size)
    x = torch.randn(3, tokens, 6, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(6, size, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(3, tokens, 6, dtype=torch.float64)
    expected = stock_depthwise(x, kernel)
    found = DepthwiseConvolution.apply(x, kernel)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, (x, kernel), gradient)
    given = torch.autograd.grad(found, (x, kernel), gradient)
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize(("tokens", "size"), [(1, 7), (2, 5), (3, 7), (5, 3)])
def test_depthwise_convolution_passes_gradcheck(tokens: int, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, tokens, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DepthwiseConvolution.apply, (x, kernel))


def test_depthwise_convolution_takes_any_layout() -> None:
    """A transposed input and an expanded gradient, as autograd hands them on."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, dtype=torch.float64).mT.requires_grad_()
    kernel = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        torch.autograd.grad(DepthwiseConvolution.apply(x, kernel).sum(), (x, kernel)),
        torch.autograd.grad(stock_depthwise(x, kernel).sum(), (x, kernel)),
    )


def test_depthwise_convolution_in_bfloat16_is_as_close_as_the_stock_layer() -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(4, 50, 16), torch.randn(16, 7)
    upstream = torch.randn(4, 50, 16)

    def gradients(function: object, dtype: torch.dtype) -> list[Tensor]:
        inputs = [value.to(dtype).requires_grad_() for value in (x, kernel)]
        output = function(*inputs)  # type: ignore[operator]
        return [value.float() for value in (output, *torch.autograd.grad(output, inputs, upstream.to(dtype)))]

    exact = gradients(stock_depthwise, torch.float32)
    for own, stock, true in zip(
        gradients(DepthwiseConvolution.apply, torch.bfloat16),
        gradients(stock_depthwise, torch.bfloat16),
        exact,
        strict=True,
    ):
        assert (own - true).norm() < 1.5 * (stock - true).norm() + 1e-3 * true.norm()


@pytest.mark.parametrize(("characters", "size"), [(16, 5), (5, 5), (6, 1), (7, 3)])
def test_character_windows_are_the_stock_windows(characters: int, size: int) -> None:
    torch.manual_seed(0)
    letters = torch.randn(4, characters, 3, dtype=torch.float64, requires_grad=True)
    expected, found = stock_windows(letters, size), CharacterWindows.apply(letters, size)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, letters, gradient), torch.autograd.grad(expected, letters, gradient)
    )
    assert torch.autograd.gradcheck(lambda value: CharacterWindows.apply(value, size), (letters,))


def test_character_windows_and_a_dense_layer_are_a_convolution() -> None:
    """The dense layer's weights are window-major (k * C + c), as the checkpoint's contract says."""
    torch.manual_seed(0)
    letters = torch.randn(3, 16, 4, dtype=torch.float64)
    weight = torch.randn(6, 5 * 4, dtype=torch.float64)
    found = CharacterWindows.apply(letters, 5) @ weight.mT
    expected = F.conv1d(letters.mT, weight.view(6, 5, 4).permute(0, 2, 1)).mT
    torch.testing.assert_close(found, expected)
