"""The ONNX graphs of a bundle, written from the student's inference form: tokens to states, states to logits."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import Block, InferenceForm, Pointer, TokenForm
from qa_edge_export.onnx_builder import DTYPES, GraphBuilder
from qa_edge_export.onnx_layers import FloatLayers
from qa_edge_runtime.manifest import GraphSpec, TensorSpec

ENGINE = "onnx"
MakeLayers = Callable[[GraphBuilder], FloatLayers]


def token_graph(form: TokenForm, *, precision: str = "fp32", file: str = "token.onnx") -> Graph:
    """States of words that are not in the table, from their characters. Tokens do not see each other.

    Input `character_ids`, int32 (tokens, characters_per_word); output `states`, float32 (tokens, hidden).

    :param precision: "fp32", or "fp16": weights stored in 16 bits.
    """
    graph, sizes = GraphBuilder("token", half=precision == "fp16"), form.sizes
    layers = FloatLayers(graph)
    ids = graph.input("character_ids", "int32", ["tokens", sizes.characters_per_word])
    x = layers.dense(_character_features(graph, ids, form), form.projection, "token.projection")
    for number, (transform, gate) in enumerate(form.highways):
        with graph.scope(f"token.highway.{number}"):
            x = layers.highway(x, transform, gate, f"token.highway.{number}")
    graph.output("states", x, "float32", ["tokens", sizes.hidden])
    return _finish(graph.build(), role="token", precision=precision, file=file)


def core_graph(
    form: InferenceForm, make_layers: MakeLayers = FloatLayers, *, precision: str = "fp32", file: str = "core.onnx"
) -> Graph:
    """States of context and question to logits; both may have any length.

    Inputs, all float32: `context` and `context_position` (context_tokens, hidden), `question` and `question_position`
    (question_tokens, hidden); outputs `start_logits` and `end_logits`, float32 (context_tokens,).

    :param make_layers: makes the layers that write into a builder: `FloatLayers`, or those of 8 bits.
    :param precision: what the layers are, for the manifest; "fp16" stores float32 weights in 16 bits.
    """
    return _finish(
        write_core(form, make_layers, half=precision == "fp16").build(), role="core", precision=precision, file=file
    )


def write_core(form: InferenceForm, make_layers: MakeLayers, *, half: bool = False) -> GraphBuilder:
    """The core network in a builder, written with the layers that are given."""
    graph, hidden = GraphBuilder("core", half=half), form.sizes.hidden
    layers = make_layers(graph)
    context = graph.input("context", "float32", ["context_tokens", hidden])
    question = graph.input("question", "float32", ["question_tokens", hidden])
    context_position = graph.input("context_position", "float32", ["context_tokens", hidden])
    question_position = graph.input("question_position", "float32", ["question_tokens", hidden])

    def encode(x: str, position: str, scope: str) -> str:
        with graph.scope(scope):
            x = _block(layers, graph.node("Add", x, position), form.encoder)
            return layers.norm(x, form.encoder_norm, hidden, "encoder_norm")

    context = encode(context, context_position, "context")
    question = encode(question, question_position, "question")
    with graph.scope("fusion"):
        x = layers.fusion(context, question, form.fusion, "fusion")
    passes = []
    for number in range(form.sizes.passes):
        with graph.scope(f"pass.{number}"):
            x = graph.node("Add", x, context_position)
            for block in form.blocks:
                x = _block(layers, x, block)
            passes.append(layers.norm(x, form.output_norm, hidden, "output_norm"))
    _pointer(graph, passes[0], passes[1], form.start, "start")
    _pointer(graph, passes[0], passes[2], form.end, "end")
    return graph


def _block(layers: FloatLayers, x: str, block: Block) -> str:
    """Encoder block: what each layer gives is added to what it was given (QANet, section 2.2)."""
    graph = layers.graph
    for number, convolution in enumerate(block.convolutions):
        name = f"{block.name}.convolutions.{number}"
        with graph.scope(name):
            x = graph.node("Add", x, layers.convolution(x, convolution, name))
    with graph.scope(f"{block.name}.attention"):
        x = graph.node("Add", x, layers.attention(x, block.attention, f"{block.name}.attention"))
    with graph.scope(f"{block.name}.feedforward"):
        return graph.node("Add", x, layers.feed_forward(x, block.feedforward, f"{block.name}.feedforward"))


def _pointer(graph: GraphBuilder, first: str, second: str, pointer: Pointer, name: str) -> None:
    with graph.scope(name):
        of_first = graph.node("MatMul", first, graph.constant(pointer.first, f"{name}.first"))
        of_second = graph.node("MatMul", second, graph.constant(pointer.second, f"{name}.second"))
        bias = graph.constant(pointer.bias, f"{name}.bias", "float32")
        logits = graph.node("Add", graph.node("Add", of_first, of_second), bias)
    graph.output(f"{name}_logits", logits, "float32", ["context_tokens"])


def _character_features(graph: GraphBuilder, character_ids: str, form: TokenForm) -> str:
    """Dense layer over each window of adjacent characters, largest value of all windows, ReLU; (tokens, hidden).

    A window is a slice of the word's characters laid end to end, and the next one begins one character further on: a
    convolution over one channel whose step is the width of a character's vector, with the weights as they are.
    """
    sizes = form.sizes
    assert form.windows.bias is not None
    with graph.scope("token.convolution"):
        letters = graph.node("Gather", graph.constant(form.characters, "token.characters"), character_ids)
        length = sizes.characters_per_word * sizes.character_dim
        line = graph.node("Reshape", letters, graph.constant([-1, 1, 1, length], "shape.letters", "int64"))
        window = sizes.character_kernel * sizes.character_dim
        filters = form.windows.weight.reshape(sizes.hidden, 1, 1, window)
        weight = graph.constant(filters, "token.convolution.weight")
        bias = graph.constant(form.windows.bias, "token.convolution.bias")
        stride = [1, sizes.character_dim]
        windows = graph.node("Conv", line, weight, bias, kernel_shape=[1, window], strides=stride)
        return graph.node("Relu", graph.node("ReduceMax", windows, axes=[2, 3], keepdims=0))


def _finish(model: onnx.ModelProto, *, role: str, precision: str, file: str) -> Graph:
    spec = GraphSpec(
        role=role,
        engine=ENGINE,
        precision=precision,
        file=file,
        inputs=tuple(_tensor_spec(value) for value in model.graph.input),
        outputs=tuple(_tensor_spec(value) for value in model.graph.output),
    )
    return Graph(content=model.SerializeToString(deterministic=True), spec=spec)


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtypes = {int(number): name for name, number in DTYPES.items()}
    shape = tuple(size.dim_param or int(size.dim_value) for size in tensor.shape.dim)
    return TensorSpec(name=value.name, shape=shape, dtype=dtypes[tensor.elem_type])
