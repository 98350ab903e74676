"""The two ONNX graphs of a bundle, written from the checkpoint's arrays: tokens to states, states to logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from qa_edge_export.checkpoint import StudentSizes
from qa_edge_export.onnx_builder import DTYPES, GraphBuilder
from qa_edge_export.onnx_layers import block, dense, fusion, highway, layer_norm, position_signal
from qa_edge_runtime.manifest import GraphSpec, TensorSpec

HIGHWAY_LAYERS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A graph as it goes into a bundle: its bytes and the tensors that it takes and gives."""

    content: bytes
    spec: GraphSpec


def token_graph(sizes: StudentSizes, arrays: Mapping[str, np.ndarray], file: str = "token.onnx") -> Graph:
    """Tokens to states: word vector, character convolution, projection, highway layers. Tokens do not see each other.

    Inputs `word_vectors`, float32 (tokens, word_dim), and `character_ids`, int64 (tokens, characters_per_word); output
    `states`, float32 (tokens, hidden). A student that reads characters alone has one column of word vectors, which
    the graph takes and does not read, so that every bundle is run in the same way.
    """
    # Padding has the zero vector whatever training left in its row.
    characters = np.concatenate([np.zeros_like(arrays["token.characters"][:1]), arrays["token.characters"][1:]])
    graph = GraphBuilder("token", {**arrays, "token.characters": characters})
    columns = max(sizes.word_dim, 1)
    word_vectors = graph.input("word_vectors", "float32", ["tokens", columns])
    character_ids = graph.input("character_ids", "int64", ["tokens", sizes.characters_per_word])
    parts = [_character_features(graph, character_ids, sizes)]
    if sizes.word_dim:
        parts.insert(0, _exact_words(graph, word_vectors, arrays["token.unknown"]))
    joined = graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    x = dense(graph, joined, "token.projection", bias=False)
    for number in range(HIGHWAY_LAYERS):
        x = highway(graph, x, f"token.highway.{number}")
    graph.output("states", x, "float32", ["tokens", sizes.hidden])
    return _finish(graph, file)


def core_graph(sizes: StudentSizes, arrays: Mapping[str, np.ndarray], file: str = "core.onnx") -> Graph:
    """States of context and question to logits; both may have any length.

    Inputs `context`, float32 (context_tokens, hidden), and `question`, float32 (question_tokens, hidden); outputs
    `start_logits` and `end_logits`, float32 (context_tokens,).
    """
    graph = GraphBuilder("core", arrays)
    hidden, heads = sizes.hidden, sizes.heads
    context = graph.input("context", "float32", ["context_tokens", hidden])
    question = graph.input("question", "float32", ["question_tokens", hidden])

    def place(x: str, scope: str) -> str:
        with graph.scope(scope):
            return position_signal(graph, x, hidden=hidden)

    def encode(x: str, signal: str, scope: str) -> str:
        with graph.scope(scope):
            x = graph.node("Add", x, signal)
            kernel, convolutions = sizes.encoder_kernel, sizes.encoder_convolutions
            x = block(graph, x, "encoder", hidden=hidden, heads=heads, kernel=kernel, convolutions=convolutions)
            return layer_norm(graph, x, "encoder_norm")

    def model_pass(x: str, signal: str, scope: str) -> str:
        with graph.scope(scope):
            x = graph.node("Add", x, signal)
            kernel, convolutions = sizes.model_kernel, sizes.model_convolutions
            for number in range(sizes.model_blocks):
                name = f"blocks.{number}"
                x = block(graph, x, name, hidden=hidden, heads=heads, kernel=kernel, convolutions=convolutions)
            return x

    def logits(first: str, second: str, name: str) -> None:
        with graph.scope(name):
            column = dense(graph, graph.node("Concat", first, second, axis=1), name)
            values = graph.node("Squeeze", column, graph.constant([1], "axes.last", "int64"))
        graph.output(f"{name}_logits", values, "float32", ["context_tokens"])

    context_places = place(context, "context")
    context = encode(context, context_places, "context")
    question = encode(question, place(question, "question"), "question")
    with graph.scope("fusion"):
        x = fusion(graph, context, question, "fusion")
    outputs = []
    for number in range(sizes.passes):
        x = model_pass(x, context_places, f"pass.{number}")
        with graph.scope(f"pass.{number}"):
            outputs.append(layer_norm(graph, x, "output_norm"))
    logits(outputs[0], outputs[1], "start")
    logits(outputs[0], outputs[2], "end")
    return _finish(graph, file)


def _character_features(graph: GraphBuilder, character_ids: str, sizes: StudentSizes) -> str:
    """Dense layer over each window of adjacent characters, largest value of all windows, ReLU; (tokens, hidden).

    A window is a slice of the word's characters laid end to end, and the next one begins one character further on: a
    convolution over one channel whose step is the width of a character's vector, with the weights as they are.
    """
    with graph.scope("token.convolution"):
        letters = graph.node("Gather", graph.weight("token.characters"), character_ids)
        length = sizes.characters_per_word * sizes.character_dim
        line = graph.node("Reshape", letters, graph.constant([-1, 1, 1, length], "shape.letters", "int64"))
        window = sizes.character_kernel * sizes.character_dim
        weight = graph.weight("token.convolution.weight", (sizes.hidden, 1, 1, window))
        bias = graph.weight("token.convolution.bias")
        stride = [1, sizes.character_dim]
        windows = graph.node("Conv", line, weight, bias, kernel_shape=[1, window], strides=stride)
        return graph.node("Relu", graph.node("ReduceMax", windows, axes=[2, 3], keepdims=0))


def _exact_words(graph: GraphBuilder, word_vectors: str, unknown: np.ndarray) -> str:
    """Word vectors, with the unknown word's as trained.

    The words' vectors are float16 from the start, the unknown word's is a float32 weight that the bundle's table
    rounds. Where the rounded row comes in, the graph puts the exact one: logits then are those of training.
    """
    with graph.scope("token.unknown"):
        rounded = graph.constant(unknown.astype(np.float16).astype(np.float32), "token.unknown.rounded")
        same = graph.node("Cast", graph.node("Equal", word_vectors, rounded), to=DTYPES["float32"])
        is_unknown = graph.node("Cast", graph.node("ReduceMin", same, axes=[1], keepdims=1), to=onnx.TensorProto.BOOL)
        return graph.node("Where", is_unknown, graph.weight("token.unknown"), word_vectors)


def _finish(graph: GraphBuilder, file: str) -> Graph:
    model = graph.build()
    spec = GraphSpec(
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
