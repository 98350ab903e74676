"""The student's layers as ONNX nodes in 8 bits, with ONNX Runtime's integer kernels (domain com.microsoft).

Products run on unsigned activations and signed weights (u8 x s8): two unsigned factors take twice as long. Weights have
a scale for each output channel, activations one for a tensor, fixed beforehand from calibration (`StaticInt8Layers`)
or found at every call (`DynamicInt8Layers`). Layer norms, softmaxes and residuals stay in float32; so does, with fixed
scales, the fusion of context and question: its four inputs are of very different sizes, and with 8 bits in its one
dense layer, which takes 1.5 % of the time, the logits were off by as much as with 8 bits in all others together.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from qa_edge_export.inference_form import Convolution, Dense, FeedForward, HeadedAttention, MergedAttention
from qa_edge_export.onnx_builder import MICROSOFT, GraphBuilder
from qa_edge_export.onnx_layers import FloatLayers
from qa_edge_export.quantise import quantise_weight

MIDDLE = 128  # the unsigned 8-bit number that stands for 0 where activations have both signs


class DynamicInt8Layers(FloatLayers):
    """Dense layers in 8 bits, their inputs quantised at each call; all else in float32. Needs no calibration."""

    def dense(self, x: str, layer: Dense, name: str) -> str:
        """x W^T + b with W in 8 bits."""
        numbers, scales = quantise_weight(layer.weight)
        inputs = [
            x,
            self.graph.constant(np.ascontiguousarray(numbers.T), f"{name}.weight"),
            self.graph.constant(scales, f"{name}.weight.scales"),
            self.graph.constant(np.zeros(len(scales), np.int8), f"{name}.weight.zeros"),
        ]
        if layer.bias is not None:
            inputs.append(self.graph.constant(layer.bias, f"{name}.bias"))
        return self.graph.node("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT)


class StaticInt8Layers(FloatLayers):
    """Dense and depthwise layers and attention in 8 bits with fixed scales.

    :param limits: largest magnitude to represent at each observed point, by the point's path; values beyond it are
        cut off. See `calibrate`.
    :param keep_float: names of layers (such as "blocks.3.attention") that stay in float32.
    """

    def __init__(
        self, graph: GraphBuilder, *, limits: Mapping[str, float], keep_float: AbstractSet[str] = frozenset()
    ) -> None:
        super().__init__(graph)
        self._limits = limits
        self._keep_float = keep_float

    def convolution(self, x: str, layer: Convolution, name: str) -> str:
        """relu(pointwise(depthwise(norm(x)))) with both convolutions in 8 bits."""
        if name in self._keep_float:
            return super().convolution(x, layer, name)
        graph, (hidden, kernel) = self.graph, layer.depthwise.shape
        normed = self._quantise(self.norm(x, layer.norm, hidden, f"{name}.norm"), "normed")
        numbers, scales = quantise_weight(layer.depthwise)
        mixed = graph.node(
            "QLinearConv",
            graph.node("Reshape", normed, graph.constant([1, 1, -1, hidden], "shape.image", "int64")),
            self._scale("normed"),
            self._zero(),
            graph.constant(numbers.reshape(hidden, 1, 1, kernel), f"{name}.depthwise"),
            graph.constant(scales, f"{name}.depthwise.scales"),
            graph.constant(np.zeros(hidden, np.int8), f"{name}.depthwise.zeros"),
            self._scale("mixed"),
            self._zero(),
            domain=MICROSOFT,
            channels_last=1,
            group=hidden,
            kernel_shape=[1, kernel],
            pads=[0, kernel // 2, 0, kernel // 2],
        )
        mixed = graph.node("Reshape", mixed, graph.constant([-1, hidden], "shape.joined", "int64"))
        return graph.node("Relu", self._dense(mixed, "mixed", layer.pointwise, f"{name}.pointwise"))

    def attention(self, x: str, layer: MergedAttention | HeadedAttention, name: str) -> str:
        """Self-attention with all four products in 8 bits; the softmax's output has a scale of its own at each call.

        A fixed scale of 1/255 would lose the small probabilities of a text that is looked at evenly.
        """
        if name in self._keep_float:
            return super().attention(x, layer, name)
        if isinstance(layer, HeadedAttention):
            return self.headed_attention(x, layer, name)
        graph, hidden = self.graph, len(layer.scores.weight)
        normed = self.norm(x, layer.norm, hidden, f"{name}.norm")
        unsigned = self._quantise(normed, "normed")
        keys = graph.node("Transpose", self._quantise(normed, "normed", signed=True), perm=[1, 0])
        query = self._dense(unsigned, "normed", layer.scores, f"{name}.scores", to="query")
        scores = self._product(query, "query", keys, "normed")
        value = self._quantise(self._dense(unsigned, "normed", layer.values, f"{name}.values"), "value", signed=True)
        return self._attend(scores, value)

    def headed_attention(self, x: str, layer: HeadedAttention, name: str) -> str:
        """The same with several heads."""
        if name in self._keep_float:
            return super().headed_attention(x, layer, name)
        hidden, heads = layer.query.weight.shape[0], layer.heads
        normed = self._quantise(self.norm(x, layer.norm, hidden, f"{name}.norm"), "normed")
        query = self._dense(normed, "normed", layer.query, f"{name}.query", to="query")
        key = self._quantise(self._dense(normed, "normed", layer.key, f"{name}.key"), "key", signed=True)
        value = self._quantise(self._dense(normed, "normed", layer.value, f"{name}.value"), "value", signed=True)
        query = self.split(query, heads, hidden, [1, 0, 2])
        scores = self._product(query, "query", self.split(key, heads, hidden, [1, 2, 0]), "key")
        mixed = self.join(self._attend(scores, self.split(value, heads, hidden, [1, 0, 2])), hidden)
        return self._dense(self._quantise(mixed, "attended"), "attended", layer.output, f"{name}.output")

    def feed_forward(self, x: str, layer: FeedForward, name: str) -> str:
        """outer(relu(inner(norm(x)))) in 8 bits; the ReLU is the lower end of an unsigned number."""
        if name in self._keep_float:
            return super().feed_forward(x, layer, name)
        normed = self._quantise(self.norm(x, layer.norm, layer.inner.weight.shape[1], f"{name}.norm"), "normed")
        inner = self._dense(normed, "normed", layer.inner, f"{name}.inner", to="inner", to_positive=True)
        return self._dense(inner, "inner", layer.outer, f"{name}.outer", positive=True)

    def _attend(self, scores: str, value: str) -> str:
        """softmax(scores) value, the softmax in unsigned 8 bits with the scale of its largest number."""
        graph = self.graph
        weights, scale, zero = graph.nodes("DynamicQuantizeLinear", self.softmax(scores), outputs=3)
        inputs = [weights, value, scale, self._scale("value"), zero, self._signed_zero()]
        return graph.node("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _product(self, left: str, left_point: str, right: str, right_point: str) -> str:
        """Unsigned left times signed right, to float32."""
        inputs = [left, right, self._scale(left_point), self._scale(right_point), self._zero(), self._signed_zero()]
        return self.graph.node("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def _dense(
        self,
        x: str,
        point: str,
        layer: Dense,
        name: str,
        *,
        positive: bool = False,
        to: str | None = None,
        to_positive: bool = False,
    ) -> str:
        """x W^T + b on x quantised at a point, to float32, or quantised again at the point `to`.

        :param positive: x has no negative numbers: 0 is the lowest of the unsigned ones.
        :param to_positive: the same of what is given, which makes a ReLU cost nothing.
        """
        graph = self.graph
        numbers, scales = quantise_weight(layer.weight)
        inputs = [
            x,
            self._scale(point, positive=positive),
            self._zero(positive),
            graph.constant(np.ascontiguousarray(numbers.T), f"{name}.weight"),
            graph.constant(scales, f"{name}.weight.scales"),
            graph.constant(np.zeros(len(scales), np.int8), f"{name}.weight.zeros"),
            self._bias(layer, name, scales * self._step(point, positive=positive)),
        ]
        if to is not None:
            inputs += [self._scale(to, positive=to_positive), self._zero(to_positive)]
        return graph.node("QGemm", *inputs, domain=MICROSOFT, transA=0, transB=0, alpha=1.0)

    def _bias(self, layer: Dense, name: str, steps: np.ndarray) -> str:
        if layer.bias is None:
            return ""
        numbers = np.round(layer.bias.astype(np.float64) / steps)
        return self.graph.constant(numbers.astype(np.int32), self.graph.path(f"{name}.bias"))

    def _quantise(self, x: str, point: str, *, signed: bool = False) -> str:
        zero = self._signed_zero() if signed else self._zero()
        return self.graph.node("QuantizeLinear", x, self._scale(point), zero)

    def _step(self, point: str, *, positive: bool = False) -> np.float32:
        limit = max(self._limits[self.graph.path(point)], 1e-6)
        return np.float32(limit / (255 if positive else 127))

    def _scale(self, point: str, *, positive: bool = False) -> str:
        return self.graph.constant(self._step(point, positive=positive), f"{self.graph.path(point)}.scale")

    def _zero(self, positive: bool = False) -> str:
        """The unsigned number that stands for 0."""
        return self.graph.constant(0 if positive else MIDDLE, "zero.positive" if positive else "zero", "uint8")

    def _signed_zero(self) -> str:
        return self.graph.constant(0, "zero.signed", "int8")
