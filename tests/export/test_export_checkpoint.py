"""A run folder is read whole or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from random_student import WORDS, arrays_of, random_student, tiny_config, word_vectors, write_run
from safetensors.numpy import load_file, save_file

from qa_edge_export.checkpoint import read_checkpoint
from qa_edge_runtime.errors import DataError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", random_student(tiny_config()))


def change_config(**values: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / "config.json"
        config = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))

    return change


def change_array(name: str, array: np.ndarray | None) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        arrays = load_file(run / "model.safetensors")
        arrays.pop(name, None)
        if array is not None:
            arrays[name] = array
        save_file(arrays, run / "model.safetensors")

    return change


def change_vectors(vectors: np.ndarray, name: str = "vectors") -> Callable[[Path], None]:
    return lambda run: save_file({name: vectors}, run / "vectors.safetensors")


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def cut(name: str, size: int = 100) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:size])  # type: ignore[func-returns-value]


def test_what_was_saved_is_read(run: Path) -> None:
    checkpoint = read_checkpoint(run)
    student = random_student(tiny_config())
    assert checkpoint.arrays.keys() == arrays_of(student).keys()
    for name, array in arrays_of(student).items():
        np.testing.assert_array_equal(checkpoint.arrays[name], array)
    np.testing.assert_array_equal(checkpoint.vectors, word_vectors(student.config))
    assert checkpoint.vocabulary.words == WORDS
    assert checkpoint.sizes.hidden == 16 and checkpoint.config["preset"] == "tiny"


def test_characters_alone_need_no_vectors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config(word_dim=0)), words=())
    (run / "vectors.safetensors").unlink()
    assert read_checkpoint(run).vectors.shape == (1, 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "has no config.json"),
        (remove("model.safetensors"), "has no model.safetensors"),
        (remove("vectors.safetensors"), "has no vectors.safetensors"),
        (remove("vocabulary.json"), "has no vocabulary.json"),
        (remove("tokenizer.json"), "has no tokenizer.json"),
        (cut("config.json", 0), "is empty"),
        (cut("config.json", 30), "is not JSON"),
        (cut("model.safetensors"), "not a safetensors file"),
        (cut("model.safetensors", 20_000), "not a safetensors file"),
        (cut("vectors.safetensors", 3), "not a safetensors file"),
        (cut("vocabulary.json", 9), "vocabulary .* is not JSON"),
        (cut("tokenizer.json", 9), "is not JSON"),
        (change_config(format_version=2), "format 2 is newer than this version reads .1.: upgrade qa-edge"),
        (change_config(format_version="absent"), "no format_version"),
        (change_config(hidden="absent"), "does not say hidden"),
        (change_config(hidden="16"), "hidden is '16', expected a whole number"),
        (change_config(heads=3), "even multiple of the 3 heads"),
        (change_config(encoder_kernel=6), "must be odd"),
        (change_config(passes=2), "passes is 2, expected 3"),
        (change_config(characters=12), "different runs"),
        (change_config(model_blocks=3), "no array blocks.2.convolutions.0.norm.weight"),
        (change_config(model_blocks=1), "has an array blocks.1.* upgrade qa-edge"),
        (change_config(word_dim=7), r"token.unknown is float32 \[8\], expected float32 \[7\]"),
        (change_array("fusion.product", None), r"no array fusion.product; expected one of shape \[16\]"),
        (change_array("fusion.product", np.zeros(15, np.float32)), r"fusion.product is float32 \[15\]"),
        (change_array("fusion.product", np.zeros(16)), "fusion.product is float64"),
        (change_array("fusion.product", np.full(16, np.nan, np.float32)), "holds NaN"),
        (change_array("raw.step", np.zeros(1, np.float32)), "an array raw.step that config.json leaves no place for"),
        (change_vectors(np.zeros((3, 8), np.float16)), rf"float16 \[3, 8\], expected float16 \[{len(WORDS) + 1}, 8\]"),
        (change_vectors(np.zeros((len(WORDS) + 1, 8), np.float32)), "vectors is float32"),
        (change_vectors(np.full((len(WORDS) + 1, 8), np.inf, np.float16)), "holds NaN or infinity"),
        (change_vectors(np.zeros((3, 8), np.float16), "words"), "no array vectors"),
    ],
)
def test_a_damaged_run_is_refused_in_one_sentence(run: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(run)
    with pytest.raises(DataError, match=message) as caught:
        read_checkpoint(run)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        read_checkpoint(tmp_path / "file")
