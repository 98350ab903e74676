"""The student's layers as ONNX nodes: what each one computes, on one question, without padding, masks or dropout.

`x` is always a value of shape (tokens, hidden), float32; `name` is the prefix of the layer's arrays in the checkpoint.
"""

from __future__ import annotations

import math

import numpy as np

from qa_edge_export.onnx_builder import GraphBuilder

LAYER_NORM_EPSILON = 1e-6


def dense(graph: GraphBuilder, x: str, name: str, *, bias: bool = True) -> str:
    """x W^T + b, W being [out, in]."""
    inputs = [x, graph.weight(f"{name}.weight")]
    if bias:
        inputs.append(graph.weight(f"{name}.bias"))
    return graph.node("Gemm", *inputs, transB=1)


def layer_norm(graph: GraphBuilder, x: str, name: str) -> str:
    """Layer norm over the last axis."""
    gain, offset = graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")
    return graph.node("LayerNormalization", x, gain, offset, axis=-1, epsilon=LAYER_NORM_EPSILON)


def highway(graph: GraphBuilder, x: str, name: str) -> str:
    """g * relu(W x + b) + (1 - g) * x with g = sigmoid(V x + c), written x + g * (relu(...) - x)."""
    with graph.scope(name):
        gate = graph.node("Sigmoid", dense(graph, x, f"{name}.gate"))
        transformed = graph.node("Relu", dense(graph, x, f"{name}.transform"))
        return graph.node("Add", x, graph.node("Mul", gate, graph.node("Sub", transformed, x)))


def depthwise(graph: GraphBuilder, x: str, name: str, *, hidden: int, kernel: int) -> str:
    """Convolution over tokens, each of the `hidden` channels by itself, zeros beyond both ends.

    Written as an image of one line, (1, hidden, 1, tokens): engines have their quick depthwise kernels for images.
    """
    line = graph.constant([0, 2], "axes.line", "int64")
    image = graph.node("Unsqueeze", graph.node("Transpose", x, perm=[1, 0]), line)
    weight = graph.weight(name, (hidden, 1, 1, kernel))
    half = kernel // 2
    mixed = graph.node("Conv", image, weight, group=hidden, kernel_shape=[1, kernel], pads=[0, half, 0, half])
    return graph.node("Transpose", graph.node("Squeeze", mixed, line), perm=[1, 0])


def convolution(graph: GraphBuilder, x: str, name: str, *, hidden: int, kernel: int) -> str:
    """Depthwise separable convolution; layer norm and residual are the block's."""
    mixed = depthwise(graph, x, f"{name}.depthwise", hidden=hidden, kernel=kernel)
    return graph.node("Relu", dense(graph, mixed, f"{name}.pointwise"))


def attention(graph: GraphBuilder, x: str, name: str, *, hidden: int, heads: int) -> str:
    """Scaled dot-product self-attention: softmax(q k^T / sqrt(hidden / heads)) v, then the output layer."""
    query, key, value = (dense(graph, x, f"{name}.{part}") for part in ("query", "key", "value"))
    width = hidden // heads
    scale = 1 / math.sqrt(width)
    if heads == 1:
        scores = graph.node("Gemm", query, key, transB=1, alpha=scale)
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
        return dense(graph, mixed, f"{name}.output")
    split = graph.constant([-1, heads, width], "shape.heads", "int64")
    joined = graph.constant([-1, hidden], "shape.joined", "int64")
    query = graph.node("Mul", query, graph.constant(scale, "attention.scale", "float32"))
    query = graph.node("Transpose", graph.node("Reshape", query, split), perm=[1, 0, 2])
    key = graph.node("Transpose", graph.node("Reshape", key, split), perm=[1, 2, 0])
    value = graph.node("Transpose", graph.node("Reshape", value, split), perm=[1, 0, 2])
    mixed = graph.node("MatMul", graph.node("Softmax", graph.node("MatMul", query, key), axis=-1), value)
    mixed = graph.node("Reshape", graph.node("Transpose", mixed, perm=[1, 0, 2]), joined)
    return dense(graph, mixed, f"{name}.output")


def feed_forward(graph: GraphBuilder, x: str, name: str) -> str:
    """Two dense layers with a ReLU between them."""
    return dense(graph, graph.node("Relu", dense(graph, x, f"{name}.inner")), f"{name}.outer")


def block(graph: GraphBuilder, x: str, name: str, *, hidden: int, heads: int, kernel: int, convolutions: int) -> str:
    """Encoder block: each layer takes the layer norm of x and is added to x (QANet, section 2.2)."""
    for number in range(convolutions):
        layer = f"{name}.convolutions.{number}"
        with graph.scope(layer):
            normed = layer_norm(graph, x, f"{layer}.norm")
            x = graph.node("Add", x, convolution(graph, normed, layer, hidden=hidden, kernel=kernel))
    with graph.scope(f"{name}.attention"):
        normed = layer_norm(graph, x, f"{name}.attention.norm")
        x = graph.node("Add", x, attention(graph, normed, f"{name}.attention", hidden=hidden, heads=heads))
    with graph.scope(f"{name}.feedforward"):
        normed = layer_norm(graph, x, f"{name}.feedforward.norm")
        return graph.node("Add", x, feed_forward(graph, normed, f"{name}.feedforward"))


def fusion(graph: GraphBuilder, context: str, question: str, name: str) -> str:
    """Context-query attention both ways, joined four ways and projected (QANet, section 2.2; BiDAF; DCN).

    S[i, j] = c_i . w_c + q_j . w_q + (c_i * w_p) . q_j, A its softmax over the question, B over the context;
    c2q = A Q, q2c = A (B^T C).
    """
    last, first = graph.constant([1], "axes.last", "int64"), graph.constant([0], "axes.first", "int64")
    of_context = graph.node("Unsqueeze", graph.node("MatMul", context, graph.weight(f"{name}.context")), last)
    of_question = graph.node("Unsqueeze", graph.node("MatMul", question, graph.weight(f"{name}.question")), first)
    weighted = graph.node("Mul", context, graph.weight(f"{name}.product"))
    similarity = graph.node("Add", graph.node("Gemm", weighted, question, of_question, transB=1), of_context)
    over_question = graph.node("Softmax", similarity, axis=1)
    over_context = graph.node("Softmax", similarity, axis=0)
    context_to_question = graph.node("MatMul", over_question, question)
    summary = graph.node("Gemm", over_context, context, transA=1)
    question_to_context = graph.node("MatMul", over_question, summary)
    joined = graph.node(
        "Concat",
        context,
        context_to_question,
        graph.node("Mul", context, context_to_question),
        graph.node("Mul", context, question_to_context),
        axis=1,
    )
    return dense(graph, joined, f"{name}.projection")


def position_signal(graph: GraphBuilder, x: str, *, hidden: int) -> str:
    """Sines, then cosines, of wavelengths from 2 pi to 10,000 * 2 pi, one row a token of x, whatever its length.

    (Vaswani et al., 2017, section 3.5, laid out as in tensor2tensor.)
    """
    half = hidden // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / max(half - 1, 1)))
    zero, one = graph.constant(0, "zero", "int64"), graph.constant(1, "one", "int64")
    tokens = graph.node("Squeeze", graph.node("Shape", x, start=0, end=1))
    places = graph.node("Cast", graph.node("Range", zero, tokens, one), to=1)
    places = graph.node("Unsqueeze", places, graph.constant([1], "axes.last", "int64"))
    angles = graph.node("Mul", places, graph.constant(rates[None], "position.rates", "float32"))
    return graph.node("Concat", graph.node("Sin", angles), graph.node("Cos", angles), axis=1)
