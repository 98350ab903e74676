"""A student's forms evaluated in float64, from the formulas in their docstrings: what every graph must give."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from qa_edge_export.inference_form import (
    Block,
    Convolution,
    Dense,
    HeadedAttention,
    InferenceForm,
    MergedAttention,
    Norm,
    Pointer,
    TokenForm,
)

EPSILON = 1e-6

Observe = Callable[[str, np.ndarray], None]


def core_logits(
    form: InferenceForm, context: np.ndarray, question: np.ndarray, observe: Observe = lambda path, values: None
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end logits, float64, shape (context_tokens,), of states of shape (tokens, hidden), without position.

    :param observe: called with path and values of the points in attention layers that 8-bit graphs need the range of.
    """
    c, q = (
        _norm(_block(_place(np.asarray(states, np.float64)), form.encoder, side, observe), form.encoder_norm)
        for side, states in (("context", context), ("question", question))
    )
    x = _fuse(form, c, q)
    passes = []
    for number in range(form.sizes.passes):
        x = _place(x)
        for block in form.blocks:
            x = _block(x, block, f"pass.{number}", observe)
        passes.append(_norm(x, form.output_norm))
    return _point(form.start, passes[0], passes[1]), _point(form.end, passes[0], passes[2])


def token_states(form: TokenForm, character_ids: np.ndarray) -> np.ndarray:
    """States, float64, shape (tokens, hidden), of character ids of shape (tokens, characters_per_word)."""
    letters = _wide(form.characters)[character_ids]
    kernel = form.sizes.character_kernel
    windows = [
        _dense(letters[:, first : first + kernel].reshape(len(letters), -1), form.windows)
        for first in range(letters.shape[1] - kernel + 1)
    ]
    x = _dense(np.maximum(np.max(windows, 0), 0), form.projection)
    for transform, gate in form.highways:
        x = x + (np.maximum(_dense(x, transform), 0) - x) / (1 + np.exp(-_dense(x, gate)))
    return x


def position_signal(tokens: int, hidden: int) -> np.ndarray:
    """Sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi; float64, shape (tokens, hidden)."""
    half = hidden // 2
    rates = np.exp(np.arange(half) * -(math.log(1e4) / max(half - 1, 1)))
    angles = np.arange(tokens)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def _place(x: np.ndarray) -> np.ndarray:
    return x + position_signal(*x.shape)


def _block(x: np.ndarray, block: Block, scope: str, observe: Observe) -> np.ndarray:
    for layer in block.convolutions:
        x = _convolve(x, layer)
    x = _attend(x, block.attention, lambda point, values: observe(f"{scope}/{block.name}.attention/{point}", values))
    feedforward = block.feedforward
    return x + _dense(np.maximum(_dense(_norm(x, feedforward.norm), feedforward.inner), 0), feedforward.outer)


def _convolve(x: np.ndarray, layer: Convolution) -> np.ndarray:
    tokens, kernel = len(x), layer.depthwise.shape[1]
    padded = np.pad(_norm(x, layer.norm), ((kernel // 2, kernel // 2), (0, 0)))
    mixed = sum(padded[shift : shift + tokens] * _wide(layer.depthwise)[:, shift] for shift in range(kernel))
    return x + np.maximum(_dense(np.asarray(mixed), layer.pointwise), 0)


def _attend(x: np.ndarray, layer: MergedAttention | HeadedAttention, observe: Observe) -> np.ndarray:
    n = _norm(x, layer.norm)
    observe("normed", n)
    if isinstance(layer, MergedAttention):
        parts = {"query": _dense(n, layer.scores), "key": n, "value": _dense(n, layer.values)}
    else:
        parts = {part: _dense(n, getattr(layer, part)) for part in ("query", "key", "value")}
    for point, values in parts.items():
        observe(point, values)
    heads = 1 if isinstance(layer, MergedAttention) else layer.heads
    mixed = []
    for query, key, value in zip(*(np.split(part, heads, 1) for part in parts.values()), strict=True):
        observe("scores", query @ key.T)
        mixed.append(_softmax(query @ key.T) @ value)
    joined = np.concatenate(mixed, 1)
    return x + (joined if isinstance(layer, MergedAttention) else _dense(joined, layer.output))


def _fuse(form: InferenceForm, c: np.ndarray, q: np.ndarray) -> np.ndarray:
    fusion = form.fusion
    similarity = (c * _wide(fusion.product)) @ q.T
    over_question = _softmax(similarity + q @ _wide(fusion.question))
    over_context = _softmax((similarity + (c @ _wide(fusion.context))[:, None]).T).T
    joined = [c, over_question @ q, c * (over_question @ q), c * (over_question @ (over_context.T @ c))]
    return _dense(np.concatenate(joined, 1), fusion.projection)


def _point(pointer: Pointer, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first @ _wide(pointer.first) + second @ _wide(pointer.second) + pointer.bias


def _norm(x: np.ndarray, norm: Norm) -> np.ndarray:
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + EPSILON)
    gain = 1.0 if norm.gain is None else _wide(norm.gain)
    return x * gain + (0.0 if norm.shift is None else _wide(norm.shift))


def _dense(x: np.ndarray, layer: Dense) -> np.ndarray:
    return x @ _wide(layer.weight).T + (0.0 if layer.bias is None else _wide(layer.bias))


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)
