"""The ONNX graphs in float32 and with 16-bit weights give the torch student's numbers, at any length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from form_reference import core_logits, token_states
from random_student import arrays_of, core_inputs, random_inputs, random_student, sizes_of, small_form, tiny_config

from qa_edge.student.qanet import Batch
from qa_edge_export.checkpoint import StudentSizes, array_shapes
from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import InferenceForm, fold_norms, inference_form, merge_attention, token_form
from qa_edge_export.onnx_builder import HALF_FROM, GraphBuilder
from qa_edge_export.onnx_graph import core_graph, token_graph
from qa_edge_runtime.errors import InputError

pytest.importorskip("onnxruntime")

from qa_edge_runtime.onnx_engine import OnnxEngine

LENGTHS = [(1, 1), (1, 5), (6, 1), (2, 3), (37, 9), (150, 20), (513, 30)]
SIZES: list[dict[str, Any]] = [
    {},
    {"heads": 2},
    {"word_dim": 0, "heads": 8},
    {"model_blocks": 1, "model_convolutions": 2, "encoder_kernel": 3, "character_kernel": 3, "characters_per_word": 7},
    {"encoder_convolutions": 0, "model_convolutions": 0, "model_kernel": 7},
]
STEPS: dict[str, Callable[[InferenceForm], InferenceForm]] = {
    "as trained": lambda form: form,
    "merged": merge_attention,
    "folded": lambda form: fold_norms(merge_attention(form)),
}


def engine(graph: Graph) -> OnnxEngine:
    return OnnxEngine(graph.content, graph.spec)


def logits(graph: OnnxEngine, inputs: dict[str, np.ndarray]) -> np.ndarray:
    outputs = graph.run(inputs)
    return np.stack([outputs["start_logits"], outputs["end_logits"]])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_logits_are_those_of_torch_at_any_length(sizes: dict[str, Any]) -> None:
    config = tiny_config(**sizes)
    student, random, tokens = random_student(config), np.random.default_rng(0), 40
    ids = random.integers(0, config.characters, (tokens, config.characters_per_word))
    ids[:20, 3:] = 0
    unknown = random.random(tokens) < 0.3
    vectors = random.normal(size=(tokens, config.word_dim)).astype(np.float32)
    form = inference_form(sizes_of(config), arrays_of(student))
    graphs = [engine(core_graph(step(form))) for step in STEPS.values()]
    with torch.no_grad():
        states = student.token(*map(torch.from_numpy, (vectors, unknown, ids))).numpy()
    for context_tokens, question_tokens in LENGTHS:
        context, question = (random.integers(0, tokens, count) for count in (context_tokens, question_tokens))
        batch = Batch(
            word_vectors=torch.from_numpy(vectors),
            unknown=torch.from_numpy(unknown),
            character_ids=torch.from_numpy(ids),
            context=torch.from_numpy(context)[None],
            question=torch.from_numpy(question)[None],
            context_lengths=torch.tensor([context_tokens]),
            question_lengths=torch.tensor([question_tokens]),
        )
        with torch.no_grad():
            expected = student(batch)[0].numpy()
        for graph in graphs:
            found = logits(graph, core_inputs(states[context], states[question]))
            assert found.shape == expected.shape == (2, context_tokens)
            np.testing.assert_allclose(found, expected, atol=2e-4)
        if context_tokens > 30:
            assert np.ptp(expected) > 1, "logits without a slope prove nothing"


def test_padding_in_a_batch_changes_nothing_against_the_exact_lengths_of_the_graph() -> None:
    config = tiny_config()
    student, random = random_student(config), np.random.default_rng(1)
    ids = torch.from_numpy(random.integers(0, config.characters, (12, 16)))
    vectors = torch.from_numpy(random.normal(size=(12, config.word_dim)).astype(np.float32))
    context, question = random.integers(0, 12, (2, 9)), random.integers(0, 12, (2, 6))
    lengths = torch.tensor([5, 9]), torch.tensor([6, 2])
    known = torch.zeros(12, dtype=torch.bool)
    batch = Batch(
        word_vectors=vectors,
        unknown=known,
        character_ids=ids,
        context=torch.from_numpy(context),
        question=torch.from_numpy(question),
        context_lengths=lengths[0],
        question_lengths=lengths[1],
    )
    with torch.no_grad():
        expected, states = student(batch).numpy(), student.token(vectors, known, ids).numpy()
    graph = engine(core_graph(merge_attention(inference_form(sizes_of(config), arrays_of(student)))))
    for row, (context_tokens, question_tokens) in enumerate(zip(*map(torch.Tensor.tolist, lengths), strict=True)):
        inputs = core_inputs(states[context[row, :context_tokens]], states[question[row, :question_tokens]])
        np.testing.assert_allclose(logits(graph, inputs), expected[row, :, :context_tokens], atol=1e-4)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_states_of_unknown_words_are_those_of_torch(sizes: dict[str, Any]) -> None:
    config = tiny_config(**sizes)
    student = random_student(config)
    form = token_form(sizes_of(config), arrays_of(student))
    graph = engine(token_graph(form))
    for tokens in (1, 3, 200):
        ids = np.random.default_rng(tokens).integers(0, config.characters, (tokens, config.characters_per_word))
        ids[: tokens // 2, 2:] = 0
        with torch.no_grad():
            unknown = torch.ones(tokens, dtype=torch.bool)
            expected = student.token(torch.zeros(tokens, config.word_dim), unknown, torch.from_numpy(ids)).numpy()
        found = graph.run({"character_ids": ids.astype(np.int32)})["states"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found, token_states(form, ids), atol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("step", STEPS)
def test_fp16_computes_in_float32_on_weights_rounded_to_16_bits(heads: int, step: str) -> None:
    form = STEPS[step](small_form(hidden=32, heads=heads))
    half = core_graph(form, precision="fp16")
    stored = onnx.load_from_string(half.content).graph.initializer
    assert sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in stored) > 10
    assert len(half.content) < 0.8 * len(core_graph(form).content)
    graph, expected = engine(half), rounded(form)
    for lengths in LENGTHS[:-1]:
        inputs = random_inputs(32, lengths)
        right = np.stack(core_logits(expected, inputs["context"], inputs["question"]))
        np.testing.assert_allclose(logits(graph, inputs), right, atol=1e-4 * max(1.0, np.abs(right).max()))


def rounded(layer: Any) -> Any:
    """The form with its larger arrays rounded to 16 bits."""
    if isinstance(layer, tuple):
        return tuple(map(rounded, layer))
    if isinstance(layer, np.ndarray):
        return layer.astype(np.float16).astype(np.float32) if layer.size >= HALF_FROM else layer
    if is_dataclass(layer) and not isinstance(layer, StudentSizes | type):
        return replace(layer, **{field.name: rounded(getattr(layer, field.name)) for field in fields(layer)})
    return layer


def test_weights_beyond_16_bits_are_refused_by_name() -> None:
    form = small_form(hidden=32)
    form.encoder.feedforward.inner.weight[3, 4] = 1e5
    with pytest.raises(InputError, match=r"encoder\.feedforward\.inner\.weight has numbers beyond 65,504"):
        core_graph(form, precision="fp16")


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_weight_is_stored_once_for_all_passes(heads: int, precision: str) -> None:
    config = tiny_config(hidden=32, heads=heads)
    sizes, arrays = sizes_of(config), arrays_of(random_student(config))
    assert {name: array.shape for name, array in arrays.items()} == array_shapes(sizes)
    form = inference_form(sizes, arrays)
    held = {name: array.size for name, array in arrays.items() if not name.startswith("token.")}
    for step in STEPS.values():
        stored = onnx.load_from_string(core_graph(step(form), precision=precision).content).graph.initializer
        assert len({tensor.name for tensor in stored}) == len(stored)
        assert sum(int(np.prod(tensor.dims)) for tensor in stored) < sum(held.values()) + 100
    merged = sum(int(np.prod(tensor.dims)) for tensor in stored)
    assert (merged < 0.9 * sum(held.values())) == (heads == 1)
    model = onnx.load_from_string(token_graph(token_form(sizes, arrays), precision=precision).content)
    numbers = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    # The vector of the unknown word and its half of the projection are one bias.
    gone = arrays["token.unknown"].size + config.word_dim * config.hidden - config.hidden
    assert numbers < sum(array.size for name, array in arrays.items() if name.startswith("token.")) - gone + 10


def test_lengths_are_open_and_writing_again_gives_the_same_bytes() -> None:
    config = tiny_config()
    sizes, arrays = sizes_of(config), arrays_of(random_student(config))
    token, core = token_graph(token_form(sizes, arrays)), core_graph(inference_form(sizes, arrays))
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in token.spec.inputs] == [
        ("character_ids", "int32", ("tokens", 16))
    ]
    assert [(tensor.name, tensor.shape) for tensor in core.spec.inputs] == [
        (f"{side}{kind}", (f"{side}_tokens", 16)) for kind in ("", "_position") for side in ("context", "question")
    ]
    assert [(tensor.name, tensor.shape) for tensor in core.spec.outputs] == [
        ("start_logits", ("context_tokens",)),
        ("end_logits", ("context_tokens",)),
    ]
    assert core_graph(inference_form(sizes, arrays)).content == core.content
    for graph in (token, core):
        model = onnx.load_from_string(graph.content)
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert model.ir_version <= 9 and [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


def test_a_constant_of_two_values_is_refused() -> None:
    graph = GraphBuilder("any")
    graph.constant(np.ones(3), "weight")
    assert graph.constant(np.ones(3), "weight") == "weight"
    for other in (np.zeros(3), np.ones((1, 3))):
        with pytest.raises(ValueError, match="weight"):
            graph.constant(other, "weight")
