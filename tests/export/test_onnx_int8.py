"""The 8-bit ONNX graphs stay near float32, and what they say is in 8 bits really is."""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import pytest
from random_student import random_inputs, small_form

from qa_edge_export.calibrate import limits, observe
from qa_edge_export.graph import Graph
from qa_edge_export.graphs import layer_names
from qa_edge_export.inference_form import InferenceForm, fold_norms, merge_attention
from qa_edge_export.onnx_builder import MICROSOFT
from qa_edge_export.onnx_graph import core_graph
from qa_edge_export.onnx_int8_layers import DynamicInt8Layers, StaticInt8Layers
from qa_edge_export.quantise import quantise_weight

pytest.importorskip("onnxruntime")

from qa_edge_runtime.onnx_engine import OnnxEngine

HIDDEN = 32
LENGTHS = [(60, 9), (7, 4), (1, 1), (130, 20)]
# Root of the mean squared difference of the logits, as a share of their spread. With 32 numbers a state, rounding
# averages out less than with 128.
TOLERANCE = 0.06


@cache
def form_of(heads: int, folded: bool = False) -> InferenceForm:
    form = merge_attention(small_form(hidden=HIDDEN, heads=heads))
    return fold_norms(form) if folded else form


@cache
def limits_of(heads: int, folded: bool = False) -> dict[str, float]:
    questions = [random_inputs(HIDDEN, lengths, seed=1) for lengths in LENGTHS]
    return limits(observe(form_of(heads, folded), questions), "max")


def static_graph(heads: int, *, folded: bool = False, keep: frozenset[str] = frozenset(), scale: float = 1.0) -> Graph:
    found = {point: limit * scale for point, limit in limits_of(heads, folded).items()}
    return core_graph(
        form_of(heads, folded), lambda graph: StaticInt8Layers(graph, limits=found, keep_float=keep), precision="int8"
    )


def logits(graph: Graph) -> np.ndarray:
    engine = OnnxEngine(graph.content, graph.spec)
    outputs = [engine.run(random_inputs(HIDDEN, lengths)) for lengths in LENGTHS]
    return np.concatenate([np.concatenate([one["start_logits"], one["end_logits"]]) for one in outputs])


def difference(graph: Graph, heads: int, folded: bool = False) -> float:
    expected = logits(core_graph(form_of(heads, folded)))
    return float(np.sqrt(np.mean((logits(graph) - expected) ** 2)) / expected.std())


def model_of(graph: Graph) -> Any:
    return onnx.load_from_string(graph.content).graph


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in model_of(graph).node)


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4])
def test_a_weight_read_again_is_off_by_half_a_step(spread: float) -> None:
    weight = np.random.default_rng(0).normal(size=(12, 5, 3), scale=spread).astype(np.float32)
    weight[4] = 0
    numbers, scales = quantise_weight(weight)
    assert numbers.dtype == np.int8 and numbers.shape == weight.shape and scales.dtype == np.float32
    steps = scales[:, None, None]
    assert (np.abs(numbers * steps - weight) <= steps * 0.501).all()
    assert (np.abs(numbers).reshape(12, -1).max(axis=1)[np.arange(12) != 4] == 127).all() and not numbers[4].any()


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("folded", [False, True])
def test_logits_are_near_those_of_float32(heads: int, folded: bool) -> None:
    assert 0 < difference(static_graph(heads, folded=folded), heads, folded) < TOLERANCE
    dynamic = core_graph(form_of(heads, folded), DynamicInt8Layers, precision="int8")
    assert 0 < difference(dynamic, heads, folded) < TOLERANCE


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6])
def test_a_unit_that_reads_nothing_keeps_its_bias(size: float) -> None:
    form = merge_attention(small_form(hidden=HIDDEN))
    for block in (form.encoder, *form.blocks):
        for layer in (block.feedforward.inner, block.feedforward.outer, block.convolutions[0].pointwise):
            layer.weight[::3] *= size
            assert layer.bias is not None
            layer.bias[::3] = np.abs(layer.bias[::3]) + 0.5
    questions = [random_inputs(HIDDEN, lengths, seed=1) for lengths in LENGTHS]
    found = limits(observe(form, questions), "max")
    expected = logits(core_graph(form))
    for make in (DynamicInt8Layers, partial(StaticInt8Layers, limits=found)):
        off = logits(core_graph(form, make, precision="int8")) - expected
        assert np.sqrt(np.mean(off**2)) < TOLERANCE * expected.std()


@pytest.mark.parametrize("heads", [1, 4])
def test_a_static_graph_computes_on_whole_numbers(heads: int) -> None:
    graph, form = static_graph(heads), form_of(heads)
    runs = [form.encoder, form.encoder, *form.blocks * 3]
    convolutions, attentions = sum(len(block.convolutions) for block in runs), len(runs)
    found = operators(graph)
    assert found["QLinearConv"] == convolutions and found["Conv"] == 0
    # Two dense layers of a feed-forward, two or four of an attention, the pointwise half of a convolution.
    assert found["QGemm"] == convolutions + attentions * (2 + (2 if heads == 1 else 4))
    assert found["MatMulIntegerToFloat"] == 2 * attentions
    # Each softmax's output has a scale of its own; that of the fusion's two stays in float32.
    assert found["DynamicQuantizeLinear"] == attentions == found["Softmax"] - 2
    left = [node.name for node in model_of(graph).node if node.op_type in ("MatMul", "Gemm")]
    assert all(name.startswith(("fusion/", "start/", "end/")) for name in left)


def test_a_dynamic_graph_has_its_dense_layers_in_whole_numbers() -> None:
    found, form = operators(core_graph(form_of(1), DynamicInt8Layers, precision="int8")), form_of(1)
    runs = [form.encoder, form.encoder, *form.blocks * 3]
    dense = sum(len(block.convolutions) + 4 for block in runs) + 1
    assert found["DynamicQuantizeMatMul"] == dense
    assert found["QGemm"] == found["QLinearConv"] == 0 < found["Conv"]


@pytest.mark.parametrize("heads", [1, 4])
def test_left_factors_are_unsigned_and_right_ones_signed(heads: int) -> None:
    graph = model_of(static_graph(heads))
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    seen = 0
    for node in graph.node:
        zeros = {"QGemm": (2, 5), "QLinearConv": (2, 5), "MatMulIntegerToFloat": (4, 5)}.get(node.op_type)
        if zeros is None:
            continue
        left, right = (node.input[number] for number in zeros)
        # The softmax's zero point is found at each call: it is no constant, and unsigned by definition.
        assert kinds.get(left, onnx.TensorProto.UINT8) == onnx.TensorProto.UINT8
        assert kinds[right] == onnx.TensorProto.INT8
        seen += 1
    assert seen > 50


@pytest.mark.parametrize("heads", [1, 4])
def test_weights_are_stored_once_in_8_bits_whatever_the_scales_of_the_passes(heads: int) -> None:
    form = form_of(heads)
    held = 0
    for block in (form.encoder, *form.blocks):
        attention = block.attention
        names = ("scores", "values") if heads == 1 else ("query", "key", "value", "output")
        held += sum(getattr(attention, name).weight.size for name in names)
        held += block.feedforward.inner.weight.size + block.feedforward.outer.weight.size
        held += sum(layer.depthwise.size + layer.pointwise.weight.size for layer in block.convolutions)
    stored = [tensor for tensor in model_of(static_graph(heads)).initializer if len(tensor.dims) > 1]
    assert sum(int(np.prod(tensor.dims)) for tensor in stored if tensor.data_type == onnx.TensorProto.INT8) == held
    assert [tensor.name for tensor in stored if tensor.data_type == onnx.TensorProto.FLOAT] == [
        "fusion.projection.weight"
    ]


@pytest.mark.parametrize("heads", [1, 4])
def test_kept_layers_are_in_float32_and_no_others(heads: int) -> None:
    every = layer_names(form_of(heads))
    for kept in ("encoder.attention", "blocks.1.feedforward", "blocks.0.convolutions.0"):
        graph = static_graph(heads, keep=frozenset({kept}))
        for name in every:
            nodes = [node for node in model_of(graph).node if f"/{name}/" in f"/{node.name}"]
            assert nodes
            whole = [node.op_type for node in nodes if node.domain == MICROSOFT or "Quantize" in node.op_type]
            assert bool(whole) == (name != kept), name
        assert difference(graph, heads) < TOLERANCE


@pytest.mark.parametrize("heads", [1, 4])
def test_with_all_layers_kept_the_graph_is_the_float32_one(heads: int) -> None:
    graph = static_graph(heads, keep=frozenset(layer_names(form_of(heads))))
    assert not any(node.domain == MICROSOFT for node in model_of(graph).node)
    np.testing.assert_allclose(logits(graph), logits(core_graph(form_of(heads))), atol=1e-5)


def test_limits_far_too_small_or_too_large_cost_more_than_those_that_were_measured() -> None:
    measured = difference(static_graph(1), 1)
    assert difference(static_graph(1, scale=0.05), 1) > 5 * measured
    assert difference(static_graph(1, scale=20), 1) > 5 * measured


def test_a_longer_text_than_any_that_was_calibrated_on_still_runs() -> None:
    graph = static_graph(4)
    found = OnnxEngine(graph.content, graph.spec).run(random_inputs(HIDDEN, (700, 40)))
    assert found["start_logits"].shape == (700,) and np.isfinite(found["end_logits"]).all()


def test_writing_again_gives_the_same_bytes() -> None:
    assert static_graph(1).content == static_graph(1).content
    assert static_graph(1).spec.precision == "int8"
