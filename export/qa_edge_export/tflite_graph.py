"""The two TFLite graphs of a bundle, written from the student's inference form: states to logits, characters to states.

Lengths are open: a runtime names them with resize_tensor_input before it allocates. Inputs and outputs are found by
name in the signature `serving_default`.
"""

from __future__ import annotations

from collections.abc import Mapping

from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import InferenceForm, TokenForm
from qa_edge_export.tflite_builder import PRECISIONS, GraphBuilder, Value
from qa_edge_export.tflite_int8_attention import Int8Attention
from qa_edge_export.tflite_layers import (
    add,
    attention,
    block,
    character_windows,
    dense,
    fusion,
    highway,
    layer_norm,
    pointer,
    reshape,
)
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.manifest import GraphSpec

TOKEN_PRECISIONS = ("fp32", "fp16")


def core_graph(form: InferenceForm, *, precision: str, file: str, limits: Mapping[str, float] | None = None) -> Graph:
    """States of context and question to logits; both may have any length.

    Inputs `context` and `context_position`, float32 (context_tokens, hidden), `question` and `question_position`,
    float32 (question_tokens, hidden); outputs `start_logits` and `end_logits`, float32 (context_tokens,).

    :param precision: "fp32"; "fp16": weights of half the size, the same arithmetic; "int8": matrices in int8, their
        inputs quantised as they come.
    :param limits: for "int8": attention in 8 bits throughout, see `Int8Attention`.
    :raises InputError: if there is no such precision, or it has no use for limits.
    :raises DataError: if a limit is missing.
    """
    _check_precision("core", precision, PRECISIONS)
    if limits is not None and precision != "int8":
        raise InputError(f"limits are for a graph in int8, not in {precision}")
    write_attention = attention if limits is None else Int8Attention(limits)
    graph = GraphBuilder("core", precision)
    context, question, context_position, question_position = (
        _line(graph, f"{side}{kind}", f"{side}_tokens", form.sizes.hidden)
        for kind in ("", "_position")
        for side in ("context", "question")
    )

    def encode(x: Value, position: Value) -> Value:
        x = block(graph, add(graph, x, position), form.encoder, write_attention)
        return layer_norm(graph, x, form.encoder_norm, "encoder_norm")

    with graph.scope("context"):
        context = encode(context, context_position)
    with graph.scope("question"):
        question = encode(question, question_position)
    with graph.scope("fusion"):
        x = fusion(graph, context, question, form.fusion, "fusion")
    passes = []
    for number in range(form.sizes.passes):
        with graph.scope(f"pass.{number}"):
            x = add(graph, x, context_position)
            for layer in form.blocks:
                x = block(graph, x, layer, write_attention)
            passes.append(layer_norm(graph, x, form.output_norm, "output_norm"))
    for name, pointing, second in (("start", form.start, passes[1]), ("end", form.end, passes[2])):
        with graph.scope(name):
            graph.output(f"{name}_logits", pointer(graph, passes[0], second, pointing, name))
    return _finish(graph, role="core", precision=precision, file=file)


def token_graph(form: TokenForm, *, precision: str = "fp32", file: str) -> Graph:
    """Characters of words that have no vector of their own to states. Tokens do not see each other.

    Input `character_ids`, int32 (tokens, characters_per_word); output `states`, float32 (tokens, hidden).

    :param precision: "fp32", or "fp16" for weights of half the size.
    :raises InputError: if there is no such precision.
    """
    _check_precision("token", precision, TOKEN_PRECISIONS)
    graph = GraphBuilder("token", precision)
    width = form.sizes.characters_per_word
    ids = graph.input("character_ids", "int32", ("tokens", width))
    vectors = graph.filter(form.characters, "token.characters")
    length = form.characters.shape[1]
    letters = graph.node("GATHER", vectors, ids, shape=("tokens", width, length))
    letters = reshape(graph, letters, ("tokens", 1, width, length))
    x = character_windows(graph, letters, form.windows, form.sizes.character_kernel, "token.convolution")
    x = dense(graph, x, form.projection, "token.projection")
    for number, (transform, gate) in enumerate(form.highways):
        with graph.scope(name := f"token.highway.{number}"):
            x = highway(graph, x, transform, gate, name)
    graph.output("states", x)
    return _finish(graph, role="token", precision=precision, file=file)


def _check_precision(role: str, precision: str, known: tuple[str, ...]) -> None:
    if precision not in known:
        raise InputError(f"a TFLite {role} graph cannot be in {precision!r:.40}, expected {', '.join(known)}")


def _line(graph: GraphBuilder, name: str, tokens: str, hidden: int) -> Value:
    return reshape(graph, graph.input(name, "float32", (tokens, hidden)), (1, 1, tokens, hidden))


def _finish(graph: GraphBuilder, *, role: str, precision: str, file: str) -> Graph:
    inputs, outputs = graph.specs()
    spec = GraphSpec(role=role, engine="tflite", precision=precision, file=file, inputs=inputs, outputs=outputs)
    return Graph(content=graph.build(), spec=spec)
