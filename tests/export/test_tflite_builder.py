"""The writer of TFLite files: constants, storage, options, and the sentence for a missing package."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from qa_edge_runtime.errors import MissingExtraError

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from qa_edge_export.quantise import row_scales
from qa_edge_export.tflite_builder import BUFFER_ALIGNMENT, GraphBuilder, Scale


def test_a_constant_asked_for_twice_is_stored_once_and_has_one_value() -> None:
    graph = GraphBuilder("small")
    first = graph.constant(np.arange(3, dtype=np.float32), "three")
    assert graph.constant(np.arange(3, dtype=np.float64), "three") == first
    with pytest.raises(ValueError, match="the constant three was given two values"):
        graph.constant(np.ones(3, np.float32), "three")
    with pytest.raises(ValueError, match="two values"):
        graph.constant(np.arange(4, dtype=np.float32), "three")


def test_an_option_that_the_operator_does_not_have_is_refused() -> None:
    graph = GraphBuilder("small")
    x = graph.input("x", "float32", ("tokens", 2))
    with pytest.raises(ValueError, match="SOFTMAX has no option alpha"):
        graph.node("SOFTMAX", x, shape=x.shape, alpha=1.0)
    with pytest.raises(ValueError, match="RSQRT has no option beta"):
        graph.node("RSQRT", x, shape=x.shape, beta=1.0)


def test_rows_of_an_int8_matrix_use_their_whole_range() -> None:
    matrix = np.array([[0.5, -1.0], [1e-3, 0.0], [0.0, 0.0]], np.float32)
    graph = GraphBuilder("small", "int8")
    x = graph.input("x", "float32", ("tokens", 2))
    weight = graph.matrix(matrix, "weight")
    options = {"version": 12, "asymmetricQuantizeInputs": True}
    graph.output("y", graph.node("FULLY_CONNECTED", x, weight, None, shape=("tokens", 3), **options))
    model = schema.ModelT.InitFromPackedBuf(graph.build())
    stored = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"weight")
    numbers = np.frombuffer(bytes(model.buffers[stored.buffer].data), np.int8).reshape(3, 2)
    np.testing.assert_array_equal(numbers, [[64, -127], [127, 0], [0, 0]])
    np.testing.assert_allclose(stored.quantization.scale, row_scales(matrix))
    np.testing.assert_allclose(numbers * row_scales(matrix)[:, None], matrix, atol=0.5 / 127)


def test_data_of_buffers_is_aligned() -> None:
    graph = GraphBuilder("small", "fp16")
    x = graph.input("x", "float32", ("tokens", 5))
    arrays = {f"weight.{size}": np.random.default_rng(size).normal(size=(size, 5)) for size in (1, 3, 7)}
    for name, array in arrays.items():
        graph.output(
            f"y.{name}", graph.node("FULLY_CONNECTED", x, graph.matrix(array, name), None, shape=("tokens", 1))
        )
    content = graph.build()
    for array in arrays.values():
        assert content.index(array.astype("<f2").tobytes()) % BUFFER_ALIGNMENT == 0


def test_int8_values_keep_their_scale_through_a_runtime() -> None:
    graph = GraphBuilder("small")
    x = graph.input("x", "float32", ("tokens", 4))
    number = graph.node("QUANTIZE", x, shape=x.shape, scale=Scale(step=0.5, zero=-128))
    graph.output("y", graph.node("DEQUANTIZE", number, shape=x.shape, version=2))
    interpreter = Interpreter(model_content=graph.build())
    interpreter.resize_tensor_input(0, [1, 4])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([[0, 0.7, 127.5, -3]], np.float32))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(found, [[0, 0.5, 127.5, 0]])


def test_without_the_package_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "qa_edge_export.tflite_builder")
    with pytest.raises(MissingExtraError, match=r'TFLite export needs: pip install "qa-edge\[tflite\]"'):
        importlib.import_module("qa_edge_export.tflite_builder")
