"""A checkpoint is kept without what is large, and gets it back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_teacher import Workshop

from qa_edge.squad import read_squad
from qa_edge_runtime.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import keep_checkpoint

GLOVE = b"the 0.5 -1.0\nof 0.25 2.0\nswitch 1.0 3.0\n"


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_bytes(GLOVE)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    Vocabulary(words=("switch", "the"), characters=("a",)).save(folder)
    (folder / "config.json").write_text(json.dumps({"format_version": 1, "word_dim": 2}))
    write_recipe(folder, {"vectors": {"path": "glove.txt", "sha256": sha256(GLOVE).hexdigest(), "mark": ""}})
    return folder


def write_recipe(folder: Path, inputs: Any) -> None:
    (folder / "recipe.json").write_text(json.dumps({"format_version": 1, "kind": "distill", "inputs": inputs}))


def test_vectors_come_back_in_the_vocabularys_order(
    checkpoint: Path, glove: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    assert keep_checkpoint.main(["restore", str(checkpoint), "--vectors", str(glove)]) == 0
    found = numpy_files.load_file(checkpoint / "vectors.safetensors")["vectors"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [[0, 0], [1, 3], [0.5, -1]])
    assert "vectors of 2 words; the file is the one of the recipe" in capsys.readouterr().out


@pytest.mark.parametrize("inputs", [{"features": {"path": "features", "sha256": "0" * 64, "mark": ""}}, {}, None])
def test_a_recipe_that_names_no_file_is_said(
    checkpoint: Path, glove: Path, capsys: pytest.CaptureFixture[str], inputs: Any
) -> None:
    write_recipe(checkpoint, inputs)
    assert keep_checkpoint.main(["restore", str(checkpoint), "--vectors", str(glove)]) == 0
    assert "the recipe names no SHA-256 to compare with" in capsys.readouterr().out


def config(**values: Any) -> Callable[[Path, Path], Any]:
    return lambda folder, glove: (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, glove: glove.write_bytes(GLOVE + b"is 1.0 1.0\n"), "its SHA-256 is another"),
        (lambda folder, glove: glove.unlink(), "glove.txt does not exist"),
        (config(format_version=1), "word_dim is missing, expected a whole number"),
        (config(word_dim="many"), "word_dim is 'many', expected a whole number"),
        (config(word_dim=0), "trained without word vectors"),
        (lambda folder, glove: (folder / "config.json").write_text("[]"), "word_dim is missing"),
        (lambda folder, glove: (folder / "config.json").unlink(), "config.json"),
        (lambda folder, glove: (folder / "recipe.json").unlink(), "has no recipe.json"),
        (
            lambda folder, glove: Vocabulary(words=("bridge", "the"), characters=()).save(folder),
            "has no vector of 1 words of",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(
    checkpoint: Path,
    glove: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path, Path], Any],
    message: str,
) -> None:
    damage(checkpoint, glove)
    assert keep_checkpoint.main(["restore", str(checkpoint), "--vectors", str(glove)]) == 1
    printed, errors = capsys.readouterr()
    assert not printed and message in errors and errors.count("\n") == 1
    assert not (checkpoint / "vectors.safetensors").exists()


def test_a_missing_safetensors_is_one_sentence(
    checkpoint: Path, glove: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert keep_checkpoint.main(["restore", str(checkpoint), "--vectors", str(glove)]) == 1
    assert 'pip install "qa-edge[train]"' in capsys.readouterr().err


def test_a_run_is_kept_without_paths_and_made_whole_again(shop: Workshop, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert keep_checkpoint.main(["keep", str(shop.run), str(kept)]) == 0
    names = {path.name for path in kept.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "vocabulary.json",
        "tokenizer.json",
        "recipe.json",
        "scores.json",
    }
    assert str(shop.train.parent) not in (kept / "recipe.json").read_text()
    assert keep_checkpoint.main(["keep", str(shop.run), str(kept)]) == 1, "it exists"
    assert keep_checkpoint.main(["restore", str(kept), "--squad", str(shop.train)]) == 0
    assert read_squad(kept / "heldout.json").articles == read_squad(shop.run / "heldout.json").articles
    assert keep_checkpoint.main(["restore", str(kept), "--squad", str(shop.dev)]) == 1, "another file"


def test_a_checkpoint_that_was_kept_is_replaced_when_asked(
    shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["keep", str(shop.run), str(tmp_path / "kept")]
    assert keep_checkpoint.main(kept) == 0
    (tmp_path / "kept" / "model.safetensors").write_bytes(b"old")
    assert keep_checkpoint.main(kept) == 1
    assert "exists already" in capsys.readouterr().err
    assert keep_checkpoint.main([*kept, "--force"]) == 0
    assert (tmp_path / "kept" / "model.safetensors").read_bytes() == (shop.run / "model.safetensors").read_bytes()
