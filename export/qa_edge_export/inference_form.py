"""The student in its inference form: what a graph has to compute on one question, without what training alone needs.

`inference_form` takes a checkpoint's arrays to layers; each step after it gives a form that computes the same in less:

- `merge_attention`: one head's query and key layers as one matrix, its value and output layers as another;
- `fold_norms`: gains and shifts of layer norms moved into the layers that read them.

Lengths are exact, so that there are no masks; dropout and stochastic depth are identities. The embedding stage depends
on the token alone and is a form of its own (`TokenForm`), for the token table and for the words that are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qa_edge_export.checkpoint import StudentSizes

LAYER_NORM_EPSILON = 1e-6
HIGHWAY_LAYERS = 2
# A shift divided by a smaller gain (the mean gain being 1) would leave the range of its neighbours.
SMALLEST_GAIN = 1e-2

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """Layer norm over the last axis; `gain` and `shift`, shape (hidden,), are None where they are 1 and 0."""

    gain: np.ndarray | None
    shift: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """x weight^T + bias; weight of shape (out, in), bias (out,) or None."""

    weight: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """x + relu(pointwise(depthwise(norm(x)))); depthwise (hidden, kernel), zeros beyond both ends of the text."""

    norm: Norm
    depthwise: np.ndarray
    pointwise: Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedAttention:
    """x + softmax(scores(n) n^T) values(n) with n = norm(x): a single head, two matrices instead of four."""

    norm: Norm
    scores: Dense
    values: Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadedAttention:
    """x + output(softmax(query(n) key(n)^T) value(n)), head by head, n = norm(x); the scale is in the query layer.

    Biases of key and value layers are None: the first shifts all scores of a row alike, which a softmax does not see,
    and the second is passed on unchanged by rows that sum to 1, into the output layer's.
    """

    norm: Norm
    heads: int
    query: Dense
    key: Dense
    value: Dense
    output: Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForward:
    """x + outer(relu(inner(norm(x))))."""

    norm: Norm
    inner: Dense
    outer: Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One encoder block; `name` is the prefix of its arrays in the checkpoint."""

    name: str
    convolutions: tuple[Convolution, ...]
    attention: MergedAttention | HeadedAttention
    feedforward: FeedForward


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """Context-query attention: with S = (c * product) q^T, A = softmax over the question of S + question . q, and
    B = softmax over the context of S + context . c (terms that a softmax does not see are left out),
    projection([c, A q, c * A q, c * A (B^T c)]). The three vectors have shape (hidden,).
    """

    context: np.ndarray
    question: np.ndarray
    product: np.ndarray
    projection: Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class Pointer:
    """Logit of a token: norm(first pass) . first + norm(other pass) . second + bias; vectors of shape (hidden,)."""

    first: np.ndarray
    second: np.ndarray
    bias: float


@dataclass(frozen=True, kw_only=True, eq=False)
class InferenceForm:
    """The core network: encoder on context and on question, fusion, three passes through the blocks, two pointers.

    Start reads passes 1 and 2, end passes 1 and 3, each through `output_norm`. The position signal is added to the
    encoder's input and at the start of every pass.
    """

    sizes: StudentSizes
    encoder: Block
    encoder_norm: Norm
    fusion: Fusion
    blocks: tuple[Block, ...]
    output_norm: Norm
    start: Pointer
    end: Pointer


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenForm:
    """The embedding stage of words that have no vector of their own: characters in, state out.

    :ivar characters: a vector for each character id, shape (characters, character_dim), row 0 (padding) zeros.
    :ivar windows: dense layer over `character_kernel` adjacent characters, weight (hidden, kernel * character_dim);
        the largest value over all windows is taken, then ReLU.
    :ivar projection: the character half of the projection; the unknown word's vector is its bias.
    :ivar highways: (transform, gate) of each highway layer: x + sigmoid(gate(x)) * (relu(transform(x)) - x).
    """

    sizes: StudentSizes
    characters: np.ndarray
    windows: Dense
    projection: Dense
    highways: tuple[tuple[Dense, Dense], ...]


def inference_form(sizes: StudentSizes, arrays: Arrays) -> InferenceForm:
    """The checkpoint's core network as it was trained: no step taken yet but those that every graph shares.

    :param arrays: by the names of `array_shapes`; their dtype, float32 or float64, is kept.
    """
    return InferenceForm(
        sizes=sizes,
        encoder=_block(arrays, "encoder", sizes.encoder_convolutions, sizes.heads),
        encoder_norm=_norm(arrays, "encoder_norm"),
        fusion=Fusion(
            context=arrays["fusion.context"],
            question=arrays["fusion.question"],
            product=arrays["fusion.product"],
            projection=_dense(arrays, "fusion.projection"),
        ),
        blocks=tuple(
            _block(arrays, f"blocks.{number}", sizes.model_convolutions, sizes.heads)
            for number in range(sizes.model_blocks)
        ),
        output_norm=_norm(arrays, "output_norm"),
        start=_pointer(arrays, "start", sizes.hidden),
        end=_pointer(arrays, "end", sizes.hidden),
    )


def merge_attention(form: InferenceForm) -> InferenceForm:
    """Attention of a single head with two matrices instead of four: 7 % to 15 % less time. More heads: unchanged.

    (n Wq^T + bq)(n Wk^T + bk)^T / sqrt(hidden) is, but for a constant in each row, n (Wq^T Wk) n^T + (bq Wk) n^T.
    """

    def merged(attention: MergedAttention | HeadedAttention) -> MergedAttention | HeadedAttention:
        if isinstance(attention, MergedAttention) or attention.heads > 1:
            return attention
        query, key, value, output = attention.query, attention.key, attention.value, attention.output
        return MergedAttention(
            norm=attention.norm,
            scores=Dense(weight=key.weight.T @ query.weight, bias=_bias(query) @ key.weight),
            values=Dense(weight=output.weight @ value.weight, bias=output.bias),
        )

    return _map_blocks(form, lambda block: replace(block, attention=merged(block.attention)))


def fold_norms(form: InferenceForm) -> InferenceForm:
    """Gains and shifts of layer norms moved into the dense and depthwise layers that read them.

    Behind a depthwise convolution a shift is not a constant (its zeros at both ends are not shifted), so that the norm
    keeps shift / gain; where a gain is too near zero for that, the norm is left as it is. The norm after the encoder
    is read by products of two tokens and is left too.
    """
    return replace(
        _map_blocks(form, _fold_block),
        output_norm=PLAIN,
        start=_fold_pointer(form.output_norm, form.start),
        end=_fold_pointer(form.output_norm, form.end),
    )


def token_form(sizes: StudentSizes, arrays: Arrays) -> TokenForm:
    """The embedding stage with the unknown word's vector folded into it."""
    characters = np.array(arrays["token.characters"])
    characters[0] = 0  # whatever training left there
    projection = arrays["token.projection.weight"]
    words, letters = projection[:, : sizes.word_dim], projection[:, sizes.word_dim :]
    return TokenForm(
        sizes=sizes,
        characters=characters,
        windows=_dense(arrays, "token.convolution"),
        projection=Dense(weight=np.ascontiguousarray(letters), bias=words @ arrays["token.unknown"]),
        highways=tuple(
            (_dense(arrays, f"token.highway.{number}.transform"), _dense(arrays, f"token.highway.{number}.gate"))
            for number in range(HIGHWAY_LAYERS)
        ),
    )


def _norm(arrays: Arrays, name: str) -> Norm:
    return Norm(gain=arrays[f"{name}.weight"], shift=arrays[f"{name}.bias"])


def _dense(arrays: Arrays, name: str) -> Dense:
    return Dense(weight=arrays[f"{name}.weight"], bias=arrays[f"{name}.bias"])


def _pointer(arrays: Arrays, name: str, hidden: int) -> Pointer:
    weight = arrays[f"{name}.weight"][0]
    return Pointer(first=weight[:hidden], second=weight[hidden:], bias=float(arrays[f"{name}.bias"][0]))


def _block(arrays: Arrays, name: str, convolutions: int, heads: int) -> Block:
    return Block(
        name=name,
        convolutions=tuple(
            Convolution(
                norm=_norm(arrays, f"{name}.convolutions.{number}.norm"),
                depthwise=arrays[f"{name}.convolutions.{number}.depthwise"],
                pointwise=_dense(arrays, f"{name}.convolutions.{number}.pointwise"),
            )
            for number in range(convolutions)
        ),
        attention=_attention(arrays, f"{name}.attention", heads),
        feedforward=FeedForward(
            norm=_norm(arrays, f"{name}.feedforward.norm"),
            inner=_dense(arrays, f"{name}.feedforward.inner"),
            outer=_dense(arrays, f"{name}.feedforward.outer"),
        ),
    )


def _attention(arrays: Arrays, name: str, heads: int) -> HeadedAttention:
    query, key, value, output = (_dense(arrays, f"{name}.{part}") for part in ("query", "key", "value", "output"))
    scale = query.weight.dtype.type(1 / math.sqrt(query.weight.shape[0] // heads))
    return HeadedAttention(
        norm=_norm(arrays, f"{name}.norm"),
        heads=heads,
        query=Dense(weight=query.weight * scale, bias=_bias(query) * scale),
        key=replace(key, bias=None),
        value=replace(value, bias=None),
        output=Dense(weight=output.weight, bias=output.weight @ _bias(value) + _bias(output)),
    )


def _map_blocks(form: InferenceForm, change: Callable[[Block], Block]) -> InferenceForm:
    return replace(form, encoder=change(form.encoder), blocks=tuple(change(block) for block in form.blocks))


def _fold_block(block: Block) -> Block:
    attention, feedforward = block.attention, block.feedforward
    folded: MergedAttention | HeadedAttention
    if isinstance(attention, MergedAttention):
        scores = _fold_dense(attention.norm, attention.scores)
        # The other factor of the scores is the norm itself: its gain goes to the outputs, its shift adds a constant.
        gain = _gain(attention.norm, scores.weight.shape[0])
        scores = Dense(weight=scores.weight * gain[:, None], bias=_bias(scores) * gain)
        folded = MergedAttention(norm=PLAIN, scores=scores, values=_fold_dense(attention.norm, attention.values))
    else:
        # A shift of the keys' norm is a bias of the key layer, which no softmax sees; so is one of the values'.
        value, output = _fold_dense(attention.norm, attention.value), attention.output
        folded = replace(
            attention,
            norm=PLAIN,
            query=_fold_dense(attention.norm, attention.query),
            key=replace(_fold_dense(attention.norm, attention.key), bias=None),
            value=replace(value, bias=None),
            output=replace(output, bias=output.weight @ _bias(value) + _bias(output)),
        )
    return replace(
        block,
        convolutions=tuple(_fold_convolution(layer) for layer in block.convolutions),
        attention=folded,
        feedforward=replace(feedforward, norm=PLAIN, inner=_fold_dense(feedforward.norm, feedforward.inner)),
    )


def _fold_convolution(layer: Convolution) -> Convolution:
    gain, shift = layer.norm.gain, layer.norm.shift
    if gain is None or np.abs(gain).min() < SMALLEST_GAIN:
        return layer
    return replace(
        layer,
        norm=Norm(gain=None, shift=None if shift is None else shift / gain),
        depthwise=layer.depthwise * gain[:, None],
    )


def _fold_dense(norm: Norm, layer: Dense) -> Dense:
    shift = np.zeros_like(layer.weight[0]) if norm.shift is None else norm.shift
    return Dense(weight=layer.weight * _gain(norm, layer.weight.shape[1]), bias=_bias(layer) + layer.weight @ shift)


def _fold_pointer(norm: Norm, pointer: Pointer) -> Pointer:
    gain = _gain(norm, len(pointer.first))
    shifted = 0.0 if norm.shift is None else float(norm.shift @ pointer.first + norm.shift @ pointer.second)
    return Pointer(first=pointer.first * gain, second=pointer.second * gain, bias=pointer.bias + shifted)


def _gain(norm: Norm, hidden: int) -> np.ndarray:
    return np.ones(hidden, np.float32) if norm.gain is None else norm.gain


def _bias(layer: Dense) -> np.ndarray:
    return np.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias


PLAIN = Norm(gain=None, shift=None)
