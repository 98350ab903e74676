"""Every step of the inference form computes the same, and the first form is the torch student."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from form_reference import core_logits, token_states
from random_student import arrays_of, random_student, tiny_config

from qa_edge.student.config import StudentConfig
from qa_edge.student.qanet import Batch
from qa_edge_export.checkpoint import StudentSizes
from qa_edge_export.inference_form import (
    PLAIN,
    HeadedAttention,
    InferenceForm,
    MergedAttention,
    fold_norms,
    inference_form,
    merge_attention,
    token_form,
)

SIZES: list[dict[str, Any]] = [
    {},
    {"heads": 8},
    {"heads": 2, "model_convolutions": 0, "encoder_convolutions": 0},
    {"model_kernel": 7, "encoder_kernel": 3, "model_blocks": 1},
]
LENGTHS = [(1, 1), (2, 5), (7, 1), (40, 12)]


def sizes_of(config: StudentConfig) -> StudentSizes:
    return StudentSizes(**{name: getattr(config, name) for name in StudentSizes.__dataclass_fields__})


def wide_arrays(config: StudentConfig) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in arrays_of(random_student(config)).items()}


def assert_same_logits(found: InferenceForm, expected: InferenceForm, tolerance: float = 1e-10) -> None:
    random = np.random.default_rng(3)
    for lengths in LENGTHS:
        context, question = (random.normal(size=(tokens, expected.sizes.hidden)) for tokens in lengths)
        left, right = (np.stack(core_logits(form, context, question)) for form in (found, expected))
        assert np.abs(left - right).max() <= tolerance * np.abs(right).max()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_each_step_gives_the_same_logits_in_float64(sizes: dict[str, Any]) -> None:
    config = tiny_config(**sizes)
    form = inference_form(sizes_of(config), wide_arrays(config))
    merged = merge_attention(form)
    assert_same_logits(merged, form)
    assert_same_logits(fold_norms(merged), form)
    assert_same_logits(fold_norms(form), form)


def test_one_head_is_merged_and_more_are_not() -> None:
    for heads, kind in ((1, MergedAttention), (8, HeadedAttention)):
        config = tiny_config(heads=heads)
        merged = merge_attention(inference_form(sizes_of(config), wide_arrays(config)))
        assert all(type(block.attention) is kind for block in (merged.encoder, *merged.blocks))


@pytest.mark.parametrize("heads", [1, 8])
def test_gains_near_zero_are_folded_where_nothing_is_divided_by_them(heads: int) -> None:
    config = tiny_config(heads=heads)
    arrays = wide_arrays(config)
    for name in arrays:
        if name.endswith("norm.weight"):
            arrays[name][::3] *= 1e-9
            arrays[name][1] = 0
    form = inference_form(sizes_of(config), arrays)
    folded = fold_norms(merge_attention(form))
    assert_same_logits(folded, form)
    for block, before in zip(folded.blocks, form.blocks, strict=True):
        assert block.attention.norm is PLAIN and block.feedforward.norm is PLAIN
        assert block.convolutions[0].norm is before.convolutions[0].norm


def test_gains_of_either_sign_are_folded_before_depthwise_layers() -> None:
    config = tiny_config()
    arrays = wide_arrays(config)
    for name in arrays:
        if name.endswith("norm.weight"):
            arrays[name][::2] *= -0.05
    form = inference_form(sizes_of(config), arrays)
    folded = fold_norms(form)
    assert_same_logits(folded, form)
    assert all(layer.norm.gain is None for block in folded.blocks for layer in block.convolutions)


def test_steps_taken_twice_change_nothing_more() -> None:
    config = tiny_config()
    form = inference_form(sizes_of(config), wide_arrays(config))
    once = fold_norms(merge_attention(form))
    assert_same_logits(fold_norms(merge_attention(once)), form)


@pytest.mark.parametrize("sizes", [{}, {"heads": 8}, {"word_dim": 0, "heads": 4}], ids=str)
def test_forms_give_the_torch_students_states_and_logits(sizes: dict[str, Any]) -> None:
    config = tiny_config(**sizes)
    student, random = random_student(config), np.random.default_rng(0)
    arrays = arrays_of(student)
    form, tokens = inference_form(sizes_of(config), arrays), 30
    ids = random.integers(0, config.characters, (tokens, config.characters_per_word))
    ids[:15, 3:] = 0
    for context_tokens, question_tokens in LENGTHS:
        context, question = (random.integers(0, tokens, count) for count in (context_tokens, question_tokens))
        batch = Batch(
            word_vectors=torch.zeros(tokens, config.word_dim),
            unknown=torch.ones(tokens, dtype=torch.bool),
            character_ids=torch.from_numpy(ids),
            context=torch.from_numpy(context)[None],
            question=torch.from_numpy(question)[None],
            context_lengths=torch.tensor([context_tokens]),
            question_lengths=torch.tensor([question_tokens]),
        )
        with torch.no_grad():
            expected = student(batch)[0].numpy()
        states = token_states(token_form(form.sizes, arrays), ids)
        found = np.stack(core_logits(form, states[context], states[question]))
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_token_form_does_not_change_the_arrays_it_was_given() -> None:
    config = tiny_config()
    arrays = arrays_of(random_student(config))
    assert arrays["token.characters"][0].any()
    form = token_form(sizes_of(config), arrays)
    assert not form.characters[0].any() and arrays["token.characters"][0].any()
    padding = np.zeros((1, config.characters_per_word), np.int32)
    assert np.isfinite(token_states(replace(form), padding)).all()
