"""The student's layers as TFLite operators: what each one computes, on one question, without padding or masks.

`x` is a line of tokens, float32, shape (1, 1, tokens, hidden): the image that DEPTHWISE_CONV_2D takes, the matrix that
BATCH_MATMUL takes and the rows that FULLY_CONNECTED takes, so that nothing is reshaped between layers. `name` is the
prefix of the layer's arrays. Every operator here is one that XNNPACK takes over, in one piece with its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from qa_edge_export.inference_form import (
    LAYER_NORM_EPSILON,
    Block,
    Convolution,
    Dense,
    FeedForward,
    Fusion,
    HeadedAttention,
    MergedAttention,
    Norm,
    Pointer,
)
from qa_edge_export.tflite_builder import RELU, SAME, VALID, GraphBuilder, Scale, Shape, Value

Attention = MergedAttention | HeadedAttention
WriteAttention = Callable[[GraphBuilder, Value, Attention, str], Value]
Attend = Callable[[GraphBuilder, Value, Value, Value], Value]

# XNNPACK cuts a tensor in up to four, and joins as many.
MOST_SPLITS = 4
NO_STRIDE = {"strideH": 1, "strideW": 1}
NO_DILATION = {"dilationHFactor": 1, "dilationWFactor": 1}


def dense(graph: GraphBuilder, x: Value, layer: Dense, name: str, *, relu: bool = False) -> Value:
    """x W^T + b, then ReLU if asked for. With int8 weights the runtime quantises x row by row as it goes."""
    weight = graph.matrix(layer.weight, f"{name}.weight")
    int8 = graph.precision == "int8"
    options = {"keepNumDims": True, "asymmetricQuantizeInputs": int8, "fusedActivationFunction": RELU if relu else 0}
    # In TensorFlow Lite, 5 may keep leading axes, 6 go without bias, 12 read a scale for each row of an int8 weight: an
    # older runtime (tflite-runtime 2.14) takes 9, one scale for all, and without the 12 would give wrong numbers.
    version = 12 if int8 else 6 if layer.bias is None else 5
    bias = None if layer.bias is None else graph.constant(layer.bias, f"{name}.bias")
    shape = (*x.shape[:-1], len(layer.weight))
    return graph.node("FULLY_CONNECTED", x, weight, bias, shape=shape, version=version, **options)


def layer_norm(graph: GraphBuilder, x: Value, layer: Norm, name: str) -> Value:
    """Layer norm over the last axis."""
    epsilon = graph.constant(np.array([LAYER_NORM_EPSILON], np.float32), "epsilon")
    centred = sub(graph, x, mean(graph, x))
    variance = add(graph, mean(graph, mul(graph, centred, centred)), epsilon)
    x = mul(graph, centred, graph.node("RSQRT", variance, shape=variance.shape))
    if layer.gain is not None:
        x = mul(graph, x, graph.constant(layer.gain, f"{name}.weight"))
    if layer.shift is not None:
        x = add(graph, x, graph.constant(layer.shift, f"{name}.bias"))
    return x


def depthwise(graph: GraphBuilder, x: Value, weight: np.ndarray, name: str) -> Value:
    """Convolution over tokens, each channel by itself, zeros beyond both ends; weight (hidden, kernel)."""
    hidden, kernel = weight.shape
    weights = graph.filter(weight.T.reshape(1, 1, kernel, hidden), name)
    no_bias = graph.constant(np.zeros(hidden, np.float32), "no_bias")
    options = {"padding": SAME, "depthMultiplier": 1, **NO_STRIDE, **NO_DILATION}
    return graph.node("DEPTHWISE_CONV_2D", x, weights, no_bias, shape=x.shape, **options)


def convolution(graph: GraphBuilder, x: Value, layer: Convolution, name: str) -> Value:
    """Depthwise separable convolution of the norm of x, added to x."""
    normed = layer_norm(graph, x, layer.norm, f"{name}.norm")
    mixed = depthwise(graph, normed, layer.depthwise, f"{name}.depthwise")
    return add(graph, x, dense(graph, mixed, layer.pointwise, f"{name}.pointwise", relu=True))


def attention(graph: GraphBuilder, x: Value, layer: Attention, name: str) -> Value:
    """Attention on the norm of x, added to x."""
    normed = layer_norm(graph, x, layer.norm, f"{name}.norm")
    if isinstance(layer, MergedAttention):
        query = dense(graph, normed, layer.scores, f"{name}.scores")
        value = dense(graph, normed, layer.values, f"{name}.values")
        return add(graph, x, attend(graph, query, normed, value))
    parts = {"query": layer.query, "key": layer.key, "value": layer.value}
    projected = (dense(graph, normed, part, f"{name}.{part_name}") for part_name, part in parts.items())
    mixed = attend_by_heads(graph, *projected, heads=layer.heads, attend=attend)
    return add(graph, x, dense(graph, mixed, layer.output, f"{name}.output"))


def attend(graph: GraphBuilder, query: Value, key: Value, value: Value) -> Value:
    """softmax(query key^T) value."""
    return matmul(graph, softmax(graph, matmul(graph, query, key, transpose_right=True)), value)


def attend_by_heads(
    graph: GraphBuilder, query: Value, key: Value, value: Value, *, heads: int, attend: Attend
) -> Value:
    """`attend` in slices of hidden / heads numbers, joined again.

    Heads are taken a few at a time, so that their scores (590 kB each at 384 tokens) are still in the processor's
    cache when they are read again: 15 % less time than all of eight heads at once.
    """
    parts = math.gcd(heads, MOST_SPLITS)
    slices = (_split(graph, _split_heads(graph, x, heads), parts) for x in (query, key, value))
    return _join_heads(graph, concatenate(graph, *(attend(graph, *part) for part in zip(*slices, strict=True)), axis=1))


def feed_forward(graph: GraphBuilder, x: Value, layer: FeedForward, name: str) -> Value:
    """Two dense layers with a ReLU between them on the norm of x, added to x."""
    normed = layer_norm(graph, x, layer.norm, f"{name}.norm")
    inner = dense(graph, normed, layer.inner, f"{name}.inner", relu=True)
    return add(graph, x, dense(graph, inner, layer.outer, f"{name}.outer"))


def block(graph: GraphBuilder, x: Value, layer: Block, attention: WriteAttention = attention) -> Value:
    """Encoder block: convolutions, attention, feed-forward (QANet, section 2.2).

    :param attention: what writes the attention layer, if not in this module's way.
    """
    for number, convolution_layer in enumerate(layer.convolutions):
        with graph.scope(name := f"{layer.name}.convolutions.{number}"):
            x = convolution(graph, x, convolution_layer, name)
    with graph.scope(name := f"{layer.name}.attention"):
        x = attention(graph, x, layer.attention, name)
    with graph.scope(name := f"{layer.name}.feedforward"):
        return feed_forward(graph, x, layer.feedforward, name)


def fusion(graph: GraphBuilder, context: Value, question: Value, layer: Fusion, name: str) -> Value:
    """Context-query attention both ways, joined four ways and projected (QANet, section 2.2; BiDAF; DCN).

    What depends on one token goes into the product of two: (c * product) . q + question . q is
    (c * product + question) . q. The other way round the same gives B^T row by row, without a transpose.
    """
    product = graph.constant(layer.product, f"{name}.product")
    asking = add(graph, mul(graph, context, product), graph.constant(layer.question, f"{name}.question"))
    asked = add(graph, mul(graph, question, product), graph.constant(layer.context, f"{name}.context"))
    over_question = softmax(graph, matmul(graph, asking, question, transpose_right=True))
    over_context = softmax(graph, matmul(graph, asked, context, transpose_right=True))
    context_to_question = matmul(graph, over_question, question)
    question_to_context = matmul(graph, over_question, matmul(graph, over_context, context))
    products = [mul(graph, context, other) for other in (context_to_question, question_to_context)]
    return project_parts(graph, [context, context_to_question, *products], layer.projection, f"{name}.projection")


def project_parts(graph: GraphBuilder, parts: Sequence[Value], layer: Dense, name: str) -> Value:
    """A dense layer on parts that stand side by side, as the sum of one on each: joined, parts of unlike scale would
    share the steps of 8-bit numbers.
    """
    total: Value | None = None
    for number, (part, weight) in enumerate(zip(parts, np.split(layer.weight, len(parts), axis=1), strict=True)):
        bias = layer.bias if number == 0 else None
        projected = dense(graph, part, Dense(weight=weight, bias=bias), f"{name}.{number}")
        total = projected if total is None else add(graph, total, projected)
    assert total is not None
    return total


def pointer(graph: GraphBuilder, first: Value, second: Value, layer: Pointer, name: str) -> Value:
    """Logits of the tokens, shape (tokens,), from two passes after their norms.

    The weights are float32 in every graph: there are few of them, and nothing averages out the error of one.
    """
    halves = []
    for x, half, weight, bias in ((first, "first", layer.first, layer.bias), (second, "second", layer.second, 0.0)):
        weights = graph.constant(weight.reshape(1, -1), f"{name}.{half}")
        offset = graph.constant(np.array([bias], np.float32), f"{name}.{half}.bias")
        shape = (*x.shape[:-1], 1)
        halves.append(graph.node("FULLY_CONNECTED", x, weights, offset, shape=shape, version=5, keepNumDims=True))
    return reshape(graph, add(graph, *halves), (first.shape[2],))


def character_windows(graph: GraphBuilder, letters: Value, layer: Dense, kernel: int, name: str) -> Value:
    """Dense layer over every `kernel` adjacent characters, ReLU, largest value of all windows; (tokens, hidden).

    :param letters: shape (tokens, 1, width, character_dim).
    """
    hidden, size = layer.weight.shape
    tokens, _, width, _ = letters.shape
    windows = int(width) - kernel + 1
    weight = graph.filter(layer.weight.reshape(hidden, 1, kernel, size // kernel), f"{name}.weight")
    bias = None if layer.bias is None else graph.constant(layer.bias, f"{name}.bias")
    options = {"padding": VALID, **NO_STRIDE, **NO_DILATION, "fusedActivationFunction": RELU}
    x = graph.node("CONV_2D", letters, weight, bias, shape=(tokens, 1, windows, hidden), **options)
    options = {"padding": VALID, **NO_STRIDE, "filterHeight": 1, "filterWidth": windows}
    return reshape(graph, graph.node("MAX_POOL_2D", x, shape=(tokens, 1, 1, hidden), **options), (tokens, hidden))


def highway(graph: GraphBuilder, x: Value, transform: Dense, gate: Dense, name: str) -> Value:
    """x + sigmoid(gate(x)) * (relu(transform(x)) - x)."""
    opening = graph.node("LOGISTIC", dense(graph, x, gate, f"{name}.gate"), shape=x.shape)
    transformed = dense(graph, x, transform, f"{name}.transform", relu=True)
    return add(graph, x, mul(graph, opening, sub(graph, transformed, x)))


def add(graph: GraphBuilder, left: Value, right: Value) -> Value:
    """left + right; the right one may be broadcast, here and in the next two."""
    return graph.node("ADD", left, right, shape=left.shape)


def sub(graph: GraphBuilder, left: Value, right: Value) -> Value:
    """left - right."""
    return graph.node("SUB", left, right, shape=left.shape)


def mul(graph: GraphBuilder, left: Value, right: Value) -> Value:
    """left * right, number by number."""
    return graph.node("MUL", left, right, shape=left.shape)


def mean(graph: GraphBuilder, x: Value) -> Value:
    """Mean over the last axis, which stays with size 1."""
    axis = graph.constant(np.array([len(x.shape) - 1], np.int32), "axis.last")
    return graph.node("MEAN", x, axis, shape=(*x.shape[:-1], 1), keepDims=True)


def softmax(graph: GraphBuilder, x: Value) -> Value:
    """Softmax over the last axis."""
    return graph.node("SOFTMAX", x, shape=x.shape, beta=1.0)


def matmul(
    graph: GraphBuilder, left: Value, right: Value, *, transpose_right: bool = False, scale: Scale | None = None
) -> Value:
    """left right, or left right^T, of the two last axes; all three in int8 if a scale is given."""
    shape = (*left.shape[:-1], right.shape[-2] if transpose_right else right.shape[-1])
    version = 1 if scale is None else 2
    return graph.node("BATCH_MATMUL", left, right, shape=shape, version=version, scale=scale, adjY=transpose_right)


def concatenate(graph: GraphBuilder, *parts: Value, axis: int) -> Value:
    """The parts side by side along an axis, which must be of fixed size."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(int(part.shape[axis]) for part in parts)
    return graph.node("CONCATENATION", *parts, shape=tuple(shape), scale=parts[0].scale, axis=axis)


def reshape(graph: GraphBuilder, x: Value, shape: Shape) -> Value:
    """The same numbers in another shape, in which at most one axis is open."""
    sizes = [-1 if isinstance(size, str) else size for size in shape]
    target = graph.constant(np.array(sizes, np.int32), f"shape.{'x'.join(map(str, sizes))}")
    return graph.node("RESHAPE", x, target, shape=shape, scale=x.scale, newShape=sizes)


def _split_heads(graph: GraphBuilder, x: Value, heads: int) -> Value:
    """(1, 1, tokens, hidden) to (1, heads, tokens, hidden / heads)."""
    tokens, hidden = x.shape[2:]
    width = int(hidden) // heads
    return _swap_middle(graph, reshape(graph, x, (1, tokens, heads, width)))


def _join_heads(graph: GraphBuilder, x: Value) -> Value:
    """(1, heads, tokens, width) to (1, 1, tokens, heads * width)."""
    _, heads, tokens, width = x.shape
    return reshape(graph, _swap_middle(graph, x), (1, 1, tokens, int(heads) * int(width)))


def _swap_middle(graph: GraphBuilder, x: Value) -> Value:
    order = graph.constant(np.array([0, 2, 1, 3], np.int32), "order.middle")
    shape = (x.shape[0], x.shape[2], x.shape[1], x.shape[3])
    return graph.node("TRANSPOSE", x, order, shape=shape, scale=x.scale, version=1 if x.scale is None else 2)


def _split(graph: GraphBuilder, x: Value, parts: int) -> list[Value]:
    """(1, heads, tokens, width) to equal parts of heads."""
    if parts == 1:
        return [x]
    axis = graph.constant(np.array(1, np.int32), "axis.heads")
    shape = (x.shape[0], int(x.shape[1]) // parts, *x.shape[2:])
    version = 1 if x.scale is None else 2
    return graph.nodes("SPLIT", axis, x, shapes=[shape] * parts, scale=x.scale, version=version, numSplits=parts)
