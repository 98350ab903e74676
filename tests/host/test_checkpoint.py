"""Checkpoints and training states: they come back as they were, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_models import random_batch, student_of, tiny_student

from qa_edge.checkpoint import TrainingState, copy_inputs, load_student, save_checkpoint
from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY, Features
from qa_edge.flat import FlatParameters
from qa_edge.squad import read_squad
from qa_edge.trained import TrainedStudent
from qa_edge_runtime.errors import DataError


def saved(folder: Path, **sizes: int) -> Path:
    model = tiny_student(seed=3, **sizes)
    save_checkpoint(folder, model.config, dict(model.named_parameters()))
    return folder


@pytest.mark.parametrize("word_dim", [12, 0])
def test_a_checkpoint_comes_back(tmp_path: Path, word_dim: int) -> None:
    model = tiny_student(seed=3, word_dim=word_dim)
    loaded = load_student(saved(tmp_path, word_dim=word_dim))
    assert loaded.config == model.config
    for (name, one), (other_name, two) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other_name and torch.equal(one, two)
    batch = random_batch([(9, 4), (3, 2)], word_dim=word_dim)
    assert torch.equal(model.eval()(batch), loaded.eval()(batch))


def test_the_names_are_the_contract_with_export(tmp_path: Path) -> None:
    arrays = load_file(saved(tmp_path, heads=2) / "model.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    shapes = {name: array.shape for name, array in arrays.items()}
    expected = {
        "token.unknown": (12,),
        "token.characters": (60, 8),
        "token.convolution.weight": (32, 40),
        "token.convolution.bias": (32,),
        "token.projection.weight": (32, 44),
        "fusion.context": (32,),
        "fusion.question": (32,),
        "fusion.product": (32,),
        "fusion.projection.weight": (32, 128),
        "fusion.projection.bias": (32,),
        "start.weight": (1, 64),
        "start.bias": (1,),
        "end.weight": (1, 64),
        "end.bias": (1,),
    }
    for layer in (0, 1):
        for part in ("transform", "gate"):
            expected[f"token.highway.{layer}.{part}.weight"] = (32, 32)
            expected[f"token.highway.{layer}.{part}.bias"] = (32,)
    for norm in ("encoder_norm", "output_norm"):
        expected |= {f"{norm}.weight": (32,), f"{norm}.bias": (32,)}
    for block, convolutions, kernel in (("encoder", 1, 7), ("blocks.0", 2, 5)):
        norms = [f"convolutions.{i}.norm" for i in range(convolutions)] + ["attention.norm", "feedforward.norm"]
        dense = [f"convolutions.{i}.pointwise" for i in range(convolutions)]
        dense += [f"attention.{name}" for name in ("query", "key", "value", "output")]
        dense += ["feedforward.inner", "feedforward.outer"]
        for name in norms:
            expected |= {f"{block}.{name}.weight": (32,), f"{block}.{name}.bias": (32,)}
        for name in dense:
            expected |= {f"{block}.{name}.weight": (32, 32), f"{block}.{name}.bias": (32,)}
        for i in range(convolutions):
            expected[f"{block}.convolutions.{i}.depthwise"] = (32, kernel)
    assert shapes == expected


def test_a_flat_model_is_the_same_model() -> None:
    model, plain = tiny_student(seed=3), tiny_student(seed=3)
    flat = FlatParameters(model)
    batch = random_batch([(9, 4), (3, 2)])
    assert torch.equal(model.eval()(batch), plain.eval()(batch))
    for one in (model, plain):
        one(batch)[:, :, :3].sin().sum().backward()
    wanted = torch.cat([p.grad.flatten() for p in plain.parameters()])
    torch.testing.assert_close(flat.gradient, wanted)
    assert flat.weights.numel() == sum(p.numel() for p in plain.parameters())
    named = flat.named_arrays(flat.weights)
    assert list(named) == [name for name, _ in plain.named_parameters()]
    for name, parameter in plain.named_parameters():
        assert torch.equal(named[name], parameter)
    flat.weights.zero_()
    assert not any(p.any() for p in model.parameters())
    model(batch)[:, :, :3].sum().backward()  # gradients go on to be gathered in place
    assert not torch.equal(flat.gradient, wanted)


def test_a_checkpoint_is_small(tmp_path: Path) -> None:
    model = tiny_student(
        hidden=128, encoder_convolutions=4, model_blocks=7, character_dim=64, characters=100, word_dim=300
    )
    save_checkpoint(tmp_path, model.config, dict(model.named_parameters()))
    assert (tmp_path / "model.safetensors").stat().st_size < 6e6


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no checkpoint"):
        load_student(tmp_path)
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    arrays, whole = load_file(path), path.read_bytes()
    for damaged, words in [
        ({**arrays, "start.bias": np.zeros(2, np.float32)}, r"start\.bias has shape \(2,\)"),
        ({**arrays, "extra": np.zeros(2, np.float32)}, "extra has shape"),
        ({name: array for name, array in arrays.items() if name != "end.weight"}, r"end\.weight has shape None"),
    ]:
        save_file(damaged, path)
        with pytest.raises(DataError, match=words):
            load_student(tmp_path)
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        load_student(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load_student(tmp_path)


def test_a_trained_student_needs_no_features(tmp_path: Path, tiny_features: Features, tiny_squad_path: Path) -> None:
    """The checkpoint and the three files beside it are all that evaluation reads."""
    student = student_of(tiny_features, seed=4)
    save_checkpoint(tmp_path, student.model.config, dict(student.model.named_parameters()))
    with pytest.raises(DataError):
        TrainedStudent.load(tmp_path)
    copy_inputs(tiny_features.folder, tmp_path)
    names = {"config.json", "model.safetensors", TOKENIZER, VECTORS, VOCABULARY}
    assert {path.name for path in tmp_path.iterdir()} == names
    loaded, squad = TrainedStudent.load(tmp_path), read_squad(tiny_squad_path)
    assert loaded.predict(squad) == student.predict(squad)
    scores = loaded.evaluate(squad)
    assert scores.total == 108 and scores.unanswered == 0


def test_files_of_different_runs_are_refused(tmp_path: Path, tiny_features: Features) -> None:
    student = student_of(tiny_features, seed=4)
    save_checkpoint(tmp_path, student.model.config, dict(student.model.named_parameters()))
    copy_inputs(tiny_features.folder, tmp_path)
    vectors = load_file(tmp_path / VECTORS)["vectors"]
    for wrong, words in (
        ({"other": vectors}, "nothing of that name"),
        ({"vectors": vectors[:-1]}, "different runs"),
        ({"vectors": vectors[:, :-1].copy()}, "no checkpoint of one run"),
    ):
        save_file(wrong, tmp_path / VECTORS)
        with pytest.raises(DataError, match=words):
            TrainedStudent.load(tmp_path)
    (tmp_path / VECTORS).unlink()
    with pytest.raises(DataError, match=r"keep_checkpoint\.py restore"):
        TrainedStudent.load(tmp_path)
    save_file({"vectors": vectors}, tmp_path / VECTORS)
    vocabulary = json.loads((tmp_path / VOCABULARY).read_text())
    (tmp_path / VOCABULARY).write_text(json.dumps({**vocabulary, "characters": vocabulary["characters"][:-1]}))
    with pytest.raises(DataError, match="no checkpoint of one run"):
        TrainedStudent.load(tmp_path)


def test_predictions_are_spans_and_do_not_depend_on_the_batch(tiny_features: Features, tiny_squad_path: Path) -> None:
    student, squad = student_of(tiny_features, seed=4), read_squad(tiny_squad_path)
    items = list(squad.items())
    pairs = [(question.text, paragraph.context) for _, paragraph, question in items][:20]
    together = student.logits(pairs)
    for pair, (start, end) in zip(pairs, together, strict=True):
        ((alone_start, alone_end),) = student.logits([pair])
        assert start.shape == end.shape == (len(student.tokenizer(pair[1])),)
        np.testing.assert_allclose(start, alone_start, atol=1e-4)
        np.testing.assert_allclose(end, alone_end, atol=1e-4)
    predictions = student.predict(squad)
    for _, paragraph, question in items:
        assert predictions[question.id] and predictions[question.id] in paragraph.context
    assert student.model.training  # as it was before


def test_copying_names_what_is_missing(tmp_path: Path, tiny_features: Features) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"vocabulary\.json"):
        copy_inputs(tmp_path / "nothing", tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def state(step: int, value: float = 1.0) -> TrainingState:
    tensors = {"weights": torch.full((5,), value), "random": torch.arange(4, dtype=torch.uint8).view(1, 4)}
    return TrainingState(step=step, best_f1=1 / 3, best_step=7, evaluations_without_gain=2, tensors=tensors)


def test_a_state_comes_back(tmp_path: Path) -> None:
    assert TrainingState.load(tmp_path) is None
    state(12).save(tmp_path)
    found = TrainingState.load(tmp_path)
    assert found is not None
    expected = state(12)
    assert {**vars(found), "tensors": None} == {**vars(expected), "tensors": None}
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors)


def test_the_newest_state_counts_and_older_ones_go(tmp_path: Path) -> None:
    for step in (5, 90, 1000, 99_999_999):
        state(step, value=float(step)).save(tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-99999999"]
    state(3).save(tmp_path / "other")
    found = TrainingState.load(tmp_path)
    assert found is not None and found.step == 99_999_999


def test_a_save_that_was_killed_leaves_the_state_before(tmp_path: Path) -> None:
    """And the rest of it does not stay forever."""
    state(5).save(tmp_path)
    torn = tmp_path / "state" / ".step-00000010.abc.tmp"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    found = TrainingState.load(tmp_path)
    assert found is not None and found.step == 5
    state(10).save(tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000010"]


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import torch
from qa_edge.checkpoint import TrainingState
from qa_edge_runtime.errors import DataError
TrainingState(step=5, tensors={"weights": torch.ones(10)}).save(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    TrainingState(step=6, tensors={"weights": torch.ones(10_000)}).save(Path(sys.argv[1]))
except DataError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, os.fspath(tmp_path)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert result.returncode == 0, result.stderr
    assert "cannot write" in result.stdout
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000005"]
    found = TrainingState.load(tmp_path)
    assert found is not None and found.step == 5


def test_each_array_of_a_state_has_a_file_of_its_own(tmp_path: Path) -> None:
    """So that none is larger than the weights; one that was left behind is missed, and not made anew."""
    state(5).save(tmp_path)
    folder = tmp_path / "state" / "step-00000005"
    names = {path.name for path in folder.iterdir()}
    assert names == {"weights.safetensors", "random.safetensors", "state.json"}
    assert list(load_file(folder / "weights.safetensors")) == ["weights"]
    numbers = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**numbers, "arrays": [5]}))
    with pytest.raises(DataError, match=r"another version \(its arrays are \[5\]\)"):
        TrainingState.load(tmp_path)
    (folder / "state.json").write_text(json.dumps(numbers))
    (folder / "random.safetensors").unlink()
    with pytest.raises(DataError, match="has no array 'random'; put it back"):
        TrainingState.load(tmp_path)


def test_an_older_state_of_one_file_is_read(tmp_path: Path) -> None:
    state(5).save(tmp_path)
    folder = tmp_path / "state" / "step-00000005"
    numbers = json.loads((folder / "state.json").read_text())
    del numbers["arrays"]
    (folder / "state.json").write_text(json.dumps(numbers))
    save_file({name: tensor.numpy() for name, tensor in state(5).tensors.items()}, folder / "tensors.safetensors")
    for name in state(5).tensors:
        (folder / f"{name}.safetensors").unlink()
    found = TrainingState.load(tmp_path)
    assert found is not None and found.step == 5
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in state(5).tensors.items())
    weights, half = np.ones(4, np.float32), np.ones(2, np.float32)
    path = folder / "tensors.safetensors"
    for arrays, words in [
        ({"average": weights}, "has no array 'weights'"),
        ({"weights": weights, "average": half}, r"average has shape \[2\], expected that of the weights, \[4\]"),
        ({"weights": weights, "exp_avg": half}, "exp_avg has shape"),
    ]:
        save_file(arrays, path)
        with pytest.raises(DataError, match=words):
            TrainingState.load(tmp_path)
    save_file({"weights": weights}, path)
    assert TrainingState.load(tmp_path) is not None
    with pytest.raises(DataError, match="has no array 'average'"):
        TrainingState.load(tmp_path, needed=("weights", "average"))


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    state(5).save(tmp_path)
    path = tmp_path / "state" / "step-00000005" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    with pytest.raises(DataError, match="another version"):
        TrainingState.load(tmp_path)
    numbers = {name: value for name, value in json.loads(path.read_text()).items() if name != "mood"}
    for wrong in ({"step": "5"}, {"evaluations_without_gain": None}, {"best_f1": "high"}, {"metrics": [1]}):
        path.write_text(json.dumps({**numbers, **wrong}))
        with pytest.raises(DataError, match="another version"):
            TrainingState.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        TrainingState.load(tmp_path)
