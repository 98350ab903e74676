"""The ONNX graphs give the torch student's numbers, at any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from random_student import arrays_of, random_student, tiny_config

from qa_edge.student.config import StudentConfig
from qa_edge.student.qanet import Batch, QANet
from qa_edge_export.checkpoint import StudentSizes, array_shapes
from qa_edge_export.onnx_graph import core_graph, token_graph

onnxruntime = pytest.importorskip("onnxruntime")

LENGTHS = [(1, 1), (1, 5), (6, 1), (2, 3), (37, 9), (150, 20), (513, 30)]
SIZES: list[dict[str, Any]] = [
    {},
    {"heads": 2},
    {"word_dim": 0, "heads": 4},
    {"model_blocks": 1, "model_convolutions": 2, "encoder_kernel": 3, "character_kernel": 3, "characters_per_word": 7},
]


def sizes_of(config: StudentConfig) -> StudentSizes:
    return StudentSizes(**{name: getattr(config, name) for name in StudentSizes.__dataclass_fields__})


def session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def run_onnx(
    student: QANet, vectors: np.ndarray, ids: np.ndarray, context: np.ndarray, question: np.ndarray
) -> np.ndarray:
    sizes, arrays = sizes_of(student.config), arrays_of(student)
    states = session(token_graph(sizes, arrays).content).run(None, {"word_vectors": vectors, "character_ids": ids})[0]
    core = session(core_graph(sizes, arrays).content)
    return np.stack(core.run(None, {"context": states[context], "question": states[question]}))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_logits_are_those_of_torch_at_any_length(sizes: dict[str, Any]) -> None:
    config = tiny_config(**sizes)
    student, random, tokens = random_student(config), np.random.default_rng(0), 40
    ids = random.integers(0, config.characters, (tokens, config.characters_per_word))
    ids[:20, 3:] = 0
    unknown = random.random(tokens) < 0.3
    vectors = random.normal(size=(tokens, config.word_dim)).astype(np.float16).astype(np.float32)
    given = vectors.copy()
    given[unknown] = student.token.unknown.detach().numpy().astype(np.float16)
    if config.word_dim == 0:
        given = random.normal(size=(tokens, 1)).astype(np.float32)
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
        found = run_onnx(student, given, ids, context, question)
        assert found.shape == expected.shape == (2, context_tokens)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        if context_tokens > 30:
            assert np.ptp(expected) > 1, "logits without a slope prove nothing"


def test_padding_in_a_batch_changes_nothing_against_the_exact_lengths_of_the_graph() -> None:
    config = tiny_config()
    student, random = random_student(config), np.random.default_rng(1)
    ids = random.integers(0, config.characters, (12, 16))
    vectors = random.normal(size=(12, config.word_dim)).astype(np.float32)
    context, question = random.integers(0, 12, (2, 9)), random.integers(0, 12, (2, 6))
    lengths = torch.tensor([5, 9]), torch.tensor([6, 2])
    batch = Batch(
        word_vectors=torch.from_numpy(vectors),
        unknown=torch.zeros(12, dtype=torch.bool),
        character_ids=torch.from_numpy(ids),
        context=torch.from_numpy(context),
        question=torch.from_numpy(question),
        context_lengths=lengths[0],
        question_lengths=lengths[1],
    )
    with torch.no_grad():
        expected = student(batch).numpy()
    for row, (context_tokens, question_tokens) in enumerate(zip(*map(torch.Tensor.tolist, lengths), strict=True)):
        found = run_onnx(student, vectors, ids, context[row, :context_tokens], question[row, :question_tokens])
        np.testing.assert_allclose(found, expected[row, :, :context_tokens], atol=1e-4)


def test_the_unknown_word_keeps_its_float32_vector() -> None:
    config = tiny_config()
    student = random_student(config)
    arrays = arrays_of(student)
    arrays["token.unknown"] = np.linspace(0.1, 0.9, config.word_dim, dtype=np.float32) / 3
    with torch.no_grad():
        student.token.unknown.copy_(torch.from_numpy(arrays["token.unknown"]))
        ids = torch.ones(1, 16, dtype=torch.int64)
        expected = student.token(torch.zeros(1, config.word_dim), torch.ones(1, dtype=torch.bool), ids).numpy()
    rounded = arrays["token.unknown"].astype(np.float16).astype(np.float32)[None]
    assert not np.array_equal(rounded[0], arrays["token.unknown"])
    inputs = {"word_vectors": rounded, "character_ids": ids.numpy()}
    found = session(token_graph(sizes_of(config), arrays).content).run(None, inputs)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_weight_is_stored_once_under_its_own_name() -> None:
    config = tiny_config(heads=2)
    student = random_student(config)
    arrays, sizes = arrays_of(student), sizes_of(config)
    assert {name: array.shape for name, array in arrays.items()} == array_shapes(sizes)
    token, core = (onnx.load_from_string(write(sizes, arrays).content) for write in (token_graph, core_graph))
    stored = [initializer.name for model in (token, core) for initializer in model.graph.initializer]
    assert sorted(name for name in stored if name in arrays) == sorted(arrays)
    numbers = sum(int(np.prod(initializer.dims)) for initializer in core.graph.initializer)
    held = sum(array.size for name, array in arrays.items() if not name.startswith("token."))
    assert numbers < held + 100


def test_lengths_are_open_and_writing_again_gives_the_same_bytes() -> None:
    config = tiny_config()
    sizes, arrays = sizes_of(config), arrays_of(random_student(config))
    token, core = token_graph(sizes, arrays), core_graph(sizes, arrays)
    assert [tensor.shape for tensor in token.spec.inputs] == [("tokens", 8), ("tokens", 16)]
    assert [(tensor.name, tensor.shape) for tensor in core.spec.inputs] == [
        ("context", ("context_tokens", 16)),
        ("question", ("question_tokens", 16)),
    ]
    assert [(tensor.name, tensor.shape) for tensor in core.spec.outputs] == [
        ("start_logits", ("context_tokens",)),
        ("end_logits", ("context_tokens",)),
    ]
    assert core_graph(sizes, arrays).content == core.content
    model = onnx.load_from_string(core.content)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert model.ir_version <= 9 and [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
