"""Which words get a row, how many fit, and that a row read again is the word's state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_student import WORDS, random_student, small_checkpoint, tiny_config, write_run
from safetensors.numpy import load_file, save_file

from qa_edge_export.checkpoint import Checkpoint, read_checkpoint
from qa_edge_export.fold import fold_states
from qa_edge_export.token_table import (
    Table,
    build_table,
    choose_words,
    choose_words_within,
    group_size,
    rank_words,
    row_bytes,
    table_keys,
)
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.source import FolderSource
from qa_edge_runtime.table import TABLE_DTYPES, TokenTable
from qa_edge_runtime.vocabulary import Vocabulary

AWKWARD = ['"quote"', "back\\slash", "é", "谁", "😀", "\ud800", "tab\t", "a" * 300]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    # 96 numbers a state: three groups of 32, each with a scale of its own in 4 bits.
    return small_checkpoint(tmp_path_factory.mktemp("run") / "run", hidden=96)


def size_of(table: Table) -> int:
    return sum(map(len, table.files.values()))


def opened(table: Table, folder: Path) -> tuple[TokenTable, Vocabulary]:
    for name, content in table.files.items():
        (folder / name).write_bytes(content)
    return TokenTable.open(FolderSource(folder), table.spec), Vocabulary.load(folder)


def test_words_are_ranked_by_frequency_after_those_that_are_required(checkpoint: Checkpoint) -> None:
    counts = {"bridge": 3, "The": 9, "the": 20, "zxqv": 50, "water": 3, "is": 1}
    assert rank_words(checkpoint, counts) == ["the", "The", "bridge", "water", "is"]
    required = ["Wern", "is", "Wern", "", "the"]
    assert rank_words(checkpoint, counts, required=required) == ["Wern", "is", "the", "The", "bridge", "water"]
    assert rank_words(checkpoint, {}, required=["Wern"]) == ["Wern"]
    reversed_counts = dict(reversed(counts.items()))
    assert rank_words(checkpoint, reversed_counts) == rank_words(checkpoint, counts), "ties hang on no order"


def test_only_words_with_a_vector_are_worth_a_row(tmp_path: Path) -> None:
    assert rank_words(small_checkpoint(tmp_path / "run", words=()), {"the": 5}) == []


def test_as_many_words_as_are_asked_for(checkpoint: Checkpoint) -> None:
    ranked = list(WORDS)
    assert choose_words(ranked, None) == ranked and choose_words(ranked, 0) == []
    assert choose_words(ranked, 3) == ranked[:3] and choose_words(ranked, len(ranked)) == ranked
    with pytest.raises(InputError, match=r"vocabulary of 1,600 words was asked for, but there are 15: "):
        choose_words(ranked, 1600)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_as_many_words_as_fit_and_not_one_more(checkpoint: Checkpoint, dtype: str) -> None:
    ranked = [*AWKWARD, *(f"word{number}" for number in range(400))]
    empty, full = size_of(build_table(checkpoint, [], dtype)), size_of(build_table(checkpoint, ranked, dtype))
    for budget in (empty, empty + 50, empty + 1000, (empty + full) // 2, full - 1, full + 1, full + 10_000):
        words = choose_words_within(ranked, checkpoint, dtype, budget)
        assert words == ranked[: len(words)]
        assert size_of(build_table(checkpoint, words, dtype)) <= budget
        if len(words) < len(ranked):
            # numpy pads its headers to multiples of 64 bytes.
            assert size_of(build_table(checkpoint, ranked[: len(words) + 1], dtype)) > budget - 2
    assert choose_words_within(ranked, checkpoint, dtype, full + 1) == ranked
    with pytest.raises(InputError, match="10 bytes more"):
        choose_words_within(ranked, checkpoint, dtype, empty - 10)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_a_row_takes_the_bytes_that_it_is_said_to_take(checkpoint: Checkpoint, dtype: str) -> None:
    ten, twenty = (build_table(checkpoint, [f"word{number}" for number in range(10, last)], dtype) for last in (20, 30))
    arrays = [
        sum(len(content) for name, content in table.files.items() if "json" not in name) for table in (ten, twenty)
    ]
    assert arrays[1] - arrays[0] == 10 * row_bytes(dtype, checkpoint.sizes.hidden)


def test_a_word_is_found_however_it_is_typed_and_as_it_stands_first_of_all(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    words = ["Apple", "the", "apple", "NASA", "British", "Nasa", "\u0130zmir", "THE"]
    keys = table_keys(words)
    assert keys == ["Apple", "the", "apple", "nasa", "british", "Nasa", "\u0130zmir", "THE"]
    assert len(set(keys)) == len(words) and table_keys(keys) == keys
    table, vocabulary = opened(build_table(checkpoint, words, "float32"), tmp_path)
    np.testing.assert_array_equal(table.rows(vocabulary.word_ids(words)), fold_states(checkpoint, words))
    typed = {"british": "British", "BRITISH": "British", "nasa": "NASA", "NaSa": "NASA", "APPLE": "apple"}
    np.testing.assert_array_equal(vocabulary.word_ids([*typed]), vocabulary.word_ids([*typed.values()]))


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_rows_read_again_are_the_words_states(checkpoint: Checkpoint, dtype: str, tmp_path: Path) -> None:
    words = [*WORDS, "The", *AWKWARD]
    built = build_table(checkpoint, words, dtype)
    table, vocabulary = opened(built, tmp_path)
    assert built.spec.dtype == dtype and len(table) == len(words) + 1 and vocabulary.words == tuple(table_keys(words))
    assert vocabulary.characters == checkpoint.vocabulary.characters
    states = fold_states(checkpoint, words)
    found = table.rows(vocabulary.word_ids(words))
    assert not table.rows([0]).any()
    if dtype == "float32":
        np.testing.assert_array_equal(found, states)
    elif dtype == "float16":
        np.testing.assert_array_equal(found, states.astype(np.float16).astype(np.float32))
    else:
        # Half a step, which 127 or 7 of reach the largest number of the group; scales are rounded up to 11 bits.
        group = group_size(dtype, checkpoint.sizes.hidden)
        grouped = states.reshape(len(states), -1, group)
        half = np.abs(grouped).max(axis=2, keepdims=True) / (127 if dtype == "int8" else 7) / 2 * 1.01
        assert (np.abs(found.reshape(grouped.shape) - grouped) <= half + 1e-7).all()
        assert group == (32 if dtype == "int4" else 96)


def test_smaller_rows_lose_more(checkpoint: Checkpoint, tmp_path: Path) -> None:
    states, sizes, losses = fold_states(checkpoint, WORDS), [], []
    for dtype in ("float32", "float16", "int8", "int4"):
        folder = tmp_path / dtype
        folder.mkdir()
        built = build_table(checkpoint, WORDS, dtype)
        found = opened(built, folder)[0].rows(range(1, 1 + len(WORDS)))
        losses.append(float(np.sqrt(np.mean((found - states) ** 2) / np.mean(states**2))))
        sizes.append(size_of(built))
    assert sizes == sorted(sizes, reverse=True) and losses == sorted(losses)
    assert losses[0] == 0 and losses[1] < 1e-3 and losses[2] < 1e-2 and losses[3] < 0.1


def test_a_width_that_32_does_not_divide_has_one_scale_a_row() -> None:
    assert group_size("int4", 48) == 48 and group_size("int4", 128) == 32 and group_size("int8", 128) == 128


def test_what_a_table_cannot_hold_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table dtype is 'int3', expected float32, float16, int8, int4"):
        build_table(checkpoint, WORDS, "int3")
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    arrays = load_file(run / "model.safetensors")
    arrays["token.projection.weight"] *= 1e6
    save_file(arrays, run / "model.safetensors")
    large = read_checkpoint(run)
    with pytest.raises(InputError, match="float16 cannot hold: use float32"):
        build_table(large, WORDS, "float16")
    assert build_table(large, WORDS, "float32").spec.rows == len(WORDS) + 1
