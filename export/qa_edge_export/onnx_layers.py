"""The student's layers as ONNX nodes in float32: one question, exact lengths.

`x` is always a value of shape (tokens, hidden), float32; `name` is the prefix of a layer's constants. The three passes
share their blocks, so that a layer is written three times with the same constants.
"""

from __future__ import annotations

import numpy as np

from qa_edge_export.inference_form import (
    LAYER_NORM_EPSILON,
    Convolution,
    Dense,
    FeedForward,
    Fusion,
    HeadedAttention,
    MergedAttention,
    Norm,
)
from qa_edge_export.onnx_builder import GraphBuilder

# exp(-60) is 1e-26: nothing beside the weight of the token that is looked at most.
SCORE_RANGE = 60.0


class FloatLayers:
    """Layers without their residual. Points that quantised layers need the range of are observed as they are made.

    :param graph: where the nodes go.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph

    def dense(self, x: str, layer: Dense, name: str) -> str:
        """x W^T + b."""
        weight = self.graph.constant(np.ascontiguousarray(layer.weight.T), f"{name}.weight")
        if layer.bias is None:
            return self.graph.node("MatMul", x, weight)
        return self.graph.node("Gemm", x, weight, self.graph.constant(layer.bias, f"{name}.bias"))

    def norm(self, x: str, layer: Norm, hidden: int, name: str) -> str:
        """Layer norm over the last axis; observed, as the input of what follows."""
        gain = np.ones(hidden, np.float32) if layer.gain is None else layer.gain
        shift = np.zeros(hidden, np.float32) if layer.shift is None else layer.shift
        plain = layer.gain is None and layer.shift is None
        constants = [
            self.graph.constant(gain, "norm.one" if plain else f"{name}.gain"),
            self.graph.constant(shift, "norm.zero" if plain else f"{name}.shift"),
        ]
        normed = self.graph.node("LayerNormalization", x, *constants, axis=-1, epsilon=LAYER_NORM_EPSILON)
        return self.graph.observe("normed", normed)

    def convolution(self, x: str, layer: Convolution, name: str) -> str:
        """relu(pointwise(depthwise(norm(x))))."""
        hidden, kernel = layer.depthwise.shape
        normed = self.norm(x, layer.norm, hidden, f"{name}.norm")
        mixed = self.depthwise(normed, layer.depthwise, f"{name}.depthwise", hidden, kernel)
        mixed = self.graph.observe("mixed", mixed)
        return self.graph.node("Relu", self.dense(mixed, layer.pointwise, f"{name}.pointwise"))

    def depthwise(self, x: str, weight: np.ndarray, name: str, hidden: int, kernel: int) -> str:
        """Convolution over tokens, channel by channel, zeros beyond both ends.

        Written as an image of one line, (1, hidden, 1, tokens): engines have their quick depthwise kernels for images.
        """
        graph, half = self.graph, kernel // 2
        line = graph.constant([0, 2], "axes.line", "int64")
        image = graph.node("Unsqueeze", graph.node("Transpose", x, perm=[1, 0]), line)
        filters = graph.constant(weight.reshape(hidden, 1, 1, kernel), name)
        mixed = graph.node("Conv", image, filters, group=hidden, kernel_shape=[1, kernel], pads=[0, half, 0, half])
        return graph.node("Transpose", graph.node("Squeeze", mixed, line), perm=[1, 0])

    def attention(self, x: str, layer: MergedAttention | HeadedAttention, name: str) -> str:
        """Self-attention of one merged head, or of several."""
        if isinstance(layer, HeadedAttention):
            return self.headed_attention(x, layer, name)
        graph, hidden = self.graph, len(layer.scores.weight)
        normed = self.norm(x, layer.norm, hidden, f"{name}.norm")
        query = graph.observe("query", self.dense(normed, layer.scores, f"{name}.scores"))
        value = graph.observe("value", self.dense(normed, layer.values, f"{name}.values"))
        scores = graph.observe("scores", graph.node("Gemm", query, normed, transB=1))
        return graph.node("MatMul", self.softmax(scores), value)

    def headed_attention(self, x: str, layer: HeadedAttention, name: str) -> str:
        """Self-attention of several heads, in slices of hidden / heads numbers."""
        graph, (hidden, _) = self.graph, layer.query.weight.shape
        normed = self.norm(x, layer.norm, hidden, f"{name}.norm")
        query = graph.observe("query", self.dense(normed, layer.query, f"{name}.query"))
        key = graph.observe("key", self.dense(normed, layer.key, f"{name}.key"))
        value = graph.observe("value", self.dense(normed, layer.value, f"{name}.value"))
        query = self.split(query, layer.heads, hidden, [1, 0, 2])
        key = self.split(key, layer.heads, hidden, [1, 2, 0])
        value = self.split(value, layer.heads, hidden, [1, 0, 2])
        scores = graph.observe("scores", graph.node("MatMul", query, key))
        mixed = graph.node("MatMul", self.softmax(scores), value)
        mixed = graph.observe("attended", self.join(mixed, hidden))
        return self.dense(mixed, layer.output, f"{name}.output")

    def softmax(self, scores: str) -> str:
        """Softmax over the last axis, of scores that lie at most `SCORE_RANGE` below the largest of their row.

        A trained student hardly looks at most tokens. The exponentials of their scores are numbers below 1e-38, with
        which most processors calculate ten times slower than with others: without the bound this network takes two to
        three times as long. With it no logit changes.
        """
        graph = self.graph
        highest = graph.node("ReduceMax", scores, axes=[-1], keepdims=1)
        lowest = graph.node("Sub", highest, graph.constant(SCORE_RANGE, "softmax.range", "float32"))
        return graph.node("Softmax", graph.node("Max", scores, lowest), axis=-1)

    def split(self, x: str, heads: int, hidden: int, order: list[int]) -> str:
        """(tokens, hidden) to (tokens, heads, hidden / heads), its axes in another order."""
        shape = self.graph.constant([-1, heads, hidden // heads], "shape.heads", "int64")
        return self.graph.node("Transpose", self.graph.node("Reshape", x, shape), perm=order)

    def join(self, x: str, hidden: int) -> str:
        """(heads, tokens, hidden / heads) to (tokens, hidden)."""
        shape = self.graph.constant([-1, hidden], "shape.joined", "int64")
        return self.graph.node("Reshape", self.graph.node("Transpose", x, perm=[1, 0, 2]), shape)

    def feed_forward(self, x: str, layer: FeedForward, name: str) -> str:
        """outer(relu(inner(norm(x))))."""
        normed = self.norm(x, layer.norm, layer.inner.weight.shape[1], f"{name}.norm")
        inner = self.graph.node("Relu", self.dense(normed, layer.inner, f"{name}.inner"))
        return self.dense(self.graph.observe("inner", inner), layer.outer, f"{name}.outer")

    def fusion(self, context: str, question: str, layer: Fusion, name: str) -> str:
        """Context-query attention both ways, joined four ways and projected; see `Fusion`."""
        graph = self.graph
        last, first = graph.constant([1], "axes.last", "int64"), graph.constant([0], "axes.first", "int64")
        of_context = graph.node("MatMul", context, graph.constant(layer.context, f"{name}.context"))
        of_question = graph.node("MatMul", question, graph.constant(layer.question, f"{name}.question"))
        weighted = graph.node("Mul", context, graph.constant(layer.product, f"{name}.product"))
        similarity = graph.node("Gemm", weighted, question, transB=1)
        over_question = graph.node("Add", similarity, graph.node("Unsqueeze", of_question, first))
        over_question = graph.node("Softmax", over_question, axis=1)
        over_context = graph.node("Add", similarity, graph.node("Unsqueeze", of_context, last))
        over_context = graph.node("Softmax", over_context, axis=0)
        context_to_question = graph.node("MatMul", over_question, question)
        summary = graph.node("Gemm", over_context, context, transA=1)
        question_to_context = graph.node("MatMul", over_question, summary)
        parts = [
            context,
            context_to_question,
            graph.node("Mul", context, context_to_question),
            graph.node("Mul", context, question_to_context),
        ]
        joined = graph.node("Concat", *parts, axis=1)
        return self.dense(joined, layer.projection, f"{name}.projection")

    def highway(self, x: str, transform: Dense, gate: Dense, name: str) -> str:
        """x + sigmoid(gate(x)) * (relu(transform(x)) - x)."""
        graph = self.graph
        opened = graph.node("Sigmoid", self.dense(x, gate, f"{name}.gate"))
        transformed = graph.node("Relu", self.dense(x, transform, f"{name}.transform"))
        return graph.node("Add", x, graph.node("Mul", opened, graph.node("Sub", transformed, x)))
