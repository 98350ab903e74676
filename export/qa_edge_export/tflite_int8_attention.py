"""Self-attention in 8 bits throughout: scales are fixed beforehand, from calibration.

Half of the time of a graph with int8 weights goes into the two products of attention, whose factors are both computed:
only fixed scales make them products of integers. Softmax and norm stay in float32, and so does what is added to x.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qa_edge_export.inference_form import Dense, MergedAttention
from qa_edge_export.quantise import row_scales
from qa_edge_export.tflite_builder import GraphBuilder, Scale, Value
from qa_edge_export.tflite_layers import Attention, add, attend_by_heads, dense, layer_norm, matmul, softmax
from qa_edge_runtime.errors import DataError

# Numbers -128 to 127 for probabilities from 0 to 1.
PROBABILITY = Scale(step=1 / 255, zero=-128)


class Int8Attention:
    """Writes attention layers.

    :param limits: largest magnitude to represent at the points `normed`, `query`, `key` (with several heads), `scores`
        and `value` of each attention layer, by the point's path, such as "pass.0/blocks.3.attention/query"; values
        beyond it are cut off. Large scores decide a softmax: their limit should be the largest value seen.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = limits

    def __call__(self, graph: GraphBuilder, x: Value, layer: Attention, name: str) -> Value:
        """Attention on the norm of x, added to x.

        :raises DataError: if the limit of a point is missing.
        """
        normed = quantise(graph, layer_norm(graph, x, layer.norm, f"{name}.norm"), self._scale(graph, "normed"))

        def project(part: Dense, part_name: str, point: str) -> Value:
            return int8_dense(graph, normed, part, f"{name}.{part_name}", self._scale(graph, point))

        if isinstance(layer, MergedAttention):
            query, value = project(layer.scores, "scores", "query"), project(layer.values, "values", "value")
            return add(graph, x, dequantise(graph, self._attend(graph, query, normed, value)))
        parts = {"query": layer.query, "key": layer.key, "value": layer.value}
        projected = (project(part, part_name, part_name) for part_name, part in parts.items())
        mixed = dequantise(graph, attend_by_heads(graph, *projected, heads=layer.heads, attend=self._attend))
        return add(graph, x, dense(graph, mixed, layer.output, f"{name}.output"))

    def _attend(self, graph: GraphBuilder, query: Value, key: Value, value: Value) -> Value:
        """softmax(query key^T) value; a mean of values, which needs no larger scale than they do."""
        scores = matmul(graph, query, key, transpose_right=True, scale=self._scale(graph, "scores"))
        weights = quantise(graph, softmax(graph, dequantise(graph, scores)), PROBABILITY)
        return matmul(graph, weights, value, scale=value.scale)

    def _scale(self, graph: GraphBuilder, point: str) -> Scale:
        path = graph.path(point)
        if path not in self._limits:
            raise DataError(f"calibration has no limit for {path}; calibrate again with this version")
        return Scale(step=max(self._limits[path], 1e-6) / 127)


def int8_dense(graph: GraphBuilder, x: Value, layer: Dense, name: str, scale: Scale) -> Value:
    """x W^T + b from int8 to int8."""
    assert x.scale is not None
    bias = np.zeros(len(layer.weight), np.float32) if layer.bias is None else layer.bias
    return graph.node(
        "FULLY_CONNECTED",
        x,
        graph.int8_matrix(layer.weight, f"{name}.weight"),
        graph.int32_bias(bias, row_scales(layer.weight) * x.scale.step, graph.path(f"{name}.bias")),
        shape=(*x.shape[:-1], len(layer.weight)),
        scale=scale,
        version=12,
        keepNumDims=True,
    )


def quantise(graph: GraphBuilder, x: Value, scale: Scale) -> Value:
    """float32 to int8."""
    return graph.node("QUANTIZE", x, shape=x.shape, scale=scale)


def dequantise(graph: GraphBuilder, x: Value) -> Value:
    """int8 to float32."""
    return graph.node("DEQUANTIZE", x, shape=x.shape, version=2)
