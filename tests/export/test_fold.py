"""States that numpy folds are those of the torch student's embedding stage, for any word as it stands in a text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_student import (
    WORDS,
    TorchReference,
    arrays_of,
    random_student,
    small_checkpoint,
    tiny_config,
    write_run,
)
from safetensors.numpy import save_file

from qa_edge_export import fold
from qa_edge_export.checkpoint import read_checkpoint
from qa_edge_export.fold import fold_states
from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import token_form
from qa_edge_export.inputs import ExactInputs
from qa_edge_runtime.engine import load_engine
from qa_edge_runtime.errors import InputError

# In the vocabulary, in upper case, outside it, of characters that are not known, longer than the student reads.
TOKENS = [
    *WORDS,
    "The",
    "SWITCH",
    "Bridge",
    "zxqv",
    "Ångström",
    "谁",
    "\ud800",
    " ",
    "x",
    "a" * 15,
    "a" * 16,
    "a" * 17,
    "switch" * 40,
]
SIZES: list[dict[str, Any]] = [
    {},
    {"word_dim": 0},
    {"hidden": 32, "word_dim": 40, "character_dim": 3},
    {"characters_per_word": 5, "character_kernel": 5},
    {"characters_per_word": 9, "character_kernel": 1},
]


@pytest.mark.parametrize("words", [WORDS, ()], ids=["words", "no words"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_states_are_those_of_torch(tmp_path: Path, sizes: dict[str, Any], words: tuple[str, ...]) -> None:
    student = random_student(tiny_config(**sizes))
    found = fold_states(read_checkpoint(write_run(tmp_path / "run", student, words)), TOKENS)
    expected = TorchReference(student, words).states(TOKENS)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.std(axis=0).min() > 1e-3, "states that are all alike prove nothing"


def test_case_is_told_apart_by_its_characters_though_it_shares_a_vector(tmp_path: Path) -> None:
    lower, upper, other = fold_states(small_checkpoint(tmp_path / "run"), ["switch", "SWITCH", "SWITCJ"])
    assert np.abs(lower - upper).max() > 0.01
    assert np.abs(upper - other).max() > 0.01, "the one has a vector and the other has none"


def test_characters_beyond_the_students_do_not_count(tmp_path: Path) -> None:
    first, second, third = fold_states(small_checkpoint(tmp_path / "run"), ["x" * 16, "x" * 16 + "y", "x" * 15 + "y"])
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 1e-4


def test_words_together_or_alone_in_any_order_have_the_same_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = small_checkpoint(tmp_path / "run")
    expected = fold_states(checkpoint, TOKENS)
    monkeypatch.setattr(fold, "WORDS_AT_ONCE", 4)
    np.testing.assert_allclose(fold_states(checkpoint, TOKENS), expected, atol=1e-6)
    np.testing.assert_allclose(fold_states(checkpoint, TOKENS[::-1])[::-1], expected, atol=1e-6)
    assert fold_states(checkpoint, []).shape == (0, 16)


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3)])
@pytest.mark.parametrize("word_dim", [8, 0])
def test_the_token_graph_gives_unknown_words_the_folded_states(
    tmp_path: Path, engine: str, precision: str, tolerance: float, word_dim: int
) -> None:
    # Larger than the smallest constant that is stored in 16 bits.
    checkpoint = small_checkpoint(tmp_path / "run", hidden=64, word_dim=word_dim)
    unknown = [token for token in TOKENS if not checkpoint.vocabulary.word_id(token)]
    ids = checkpoint.vocabulary.character_ids(unknown, checkpoint.sizes.characters_per_word).astype(np.int32)
    form = token_form(checkpoint.sizes, checkpoint.arrays)
    graph: Graph
    if engine == "onnx":
        from qa_edge_export import onnx_graph

        graph = onnx_graph.token_graph(form, precision=precision)
    else:
        pytest.importorskip("ai_edge_litert")
        from qa_edge_export import tflite_graph

        graph = tflite_graph.token_graph(form, precision=precision, file="token.tflite")
    found = load_engine(graph.content, graph.spec).run({"character_ids": ids})["states"]
    expected = fold_states(checkpoint, unknown)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert (np.abs(found - expected).max() < 1e-5) == (precision == "fp32"), "16 bits that round nothing are not used"


def test_a_gate_that_is_shut_is_no_warning(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    run = write_run(tmp_path / "run", student)
    bias = np.full(16, -200, np.float32)
    save_file({**arrays_of(student), "token.highway.1.gate.bias": bias}, run / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(fold_states(read_checkpoint(run), TOKENS)).all()


def test_exact_inputs_are_the_states_of_each_token_in_its_place(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    checkpoint, reference = read_checkpoint(write_run(tmp_path / "run", student)), TorchReference(student)
    exact, question = ExactInputs(checkpoint), "Where is THE switch?"
    for context in ("The switch is behind the grey panel. The switch is zxqv.", "Switch."):
        inputs, tokens = exact(question, context)
        assert tokens == reference.tokenizer(context)
        texts = [token.text for token in tokens], [token.text for token in reference.tokenizer(question)]
        for side, words in zip(("context", "question"), texts, strict=True):
            np.testing.assert_allclose(inputs[side], reference.states(words), atol=1e-5)
            assert inputs[f"{side}_position"].shape == inputs[side].shape


@pytest.mark.parametrize(("question", "context"), [("", "A switch."), (" \n", "A switch."), ("Who?", "")])
def test_a_blank_text_is_refused_as_the_runtime_does(tmp_path: Path, question: str, context: str) -> None:
    with pytest.raises(InputError, match="or its context is blank"):
        ExactInputs(small_checkpoint(tmp_path / "run"))(question, context)
