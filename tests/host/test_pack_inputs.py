"""Packed inputs: what comes out trains like what went in, and anything else than a whole packed file is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_teacher import Workshop

from qa_edge.batches import TrainingData
from qa_edge.features import Features, read_tensors
from qa_edge.labels import Labels

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import pack_inputs


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tiny_features: Features, tiny_labels: Labels) -> Path:
    file = tmp_path_factory.mktemp("packed") / "inputs.zip"
    assert pack_inputs.main(["pack", str(tiny_features.folder), str(tiny_labels.folder), "-o", str(file)]) == 0
    return file


def test_what_comes_out_is_what_went_in(
    packed: Path, tmp_path: Path, tiny_features: Features, tiny_labels: Labels, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "inputs"
    assert pack_inputs.main(["unpack", str(packed), "-o", str(folder)]) == 0
    for name in ("vocabulary.json", "tokenizer.json", "heldout.json"):
        assert (folder / "features" / name).read_bytes() == (tiny_features.folder / name).read_bytes()
    for name, own in (("features/features.safetensors", tiny_features), ("labels/contexts.safetensors", tiny_labels)):
        before, after = read_tensors(own.folder / Path(name).name), read_tensors(folder / name)
        assert before.keys() == after.keys()
        for array in before:
            assert before[array].dtype == after[array].dtype and np.array_equal(before[array], after[array])
    features, labels = Features.open(folder / "features"), Labels(folder / "labels")
    wide, narrow = tiny_features.vectors().astype(np.float64), features.vectors().astype(np.float64)
    # Half a step of 127 a side, and what float16 itself rounds.
    assert (np.abs(wide - narrow) <= np.abs(wide).max(1, keepdims=True) * (0.5 / 127 + 2**-11)).all()
    assert not np.array_equal(wide, narrow)
    for question in range(tiny_labels.questions):
        ours, theirs = (np.stack(found.logits(question)).astype(np.float64) for found in (tiny_labels, labels))
        step = (ours.max() - ours.min()) / 255
        assert np.abs(ours - theirs).max() <= step / 2 + np.abs(ours).max() * 2**-10
    # A run that was begun with one does not go on with the other, and both train.
    assert (folder / "features/manifest.json").read_bytes() != (tiny_features.folder / "manifest.json").read_bytes()
    assert (folder / "labels/manifest.json").read_bytes() != (tiny_labels.folder / "manifest.json").read_bytes()
    exact, rounded = (
        TrainingData(*both).batch([3, 50])[1] for both in ((tiny_features, tiny_labels), (features, labels))
    )
    assert exact.start.equal(rounded.start) and exact.aligned.equal(rounded.aligned)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert pack_inputs.main(["unpack", str(packed), "-o", str(folder)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert pack_inputs.main(["unpack", str(packed), "-o", str(folder), "--force"]) == 0
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cut_damaged_or_foreign_file_is_one_sentence(
    packed: Path, tmp_path: Path, tiny_features: Features, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = packed.read_bytes()
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("cat.txt", "miaow")
    outside = tmp_path / "outside.zip"
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("index.json", '{"format_version": 1, "files": {"features/../../x": {"sha256": ""}}}')
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(newer, "w") as archive:
        archive.writestr("index.json", '{"format_version": 2, "files": {}}')
    # One member in another's place is whole by its own checks.
    swapped = tmp_path / "swapped.zip"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(swapped, "w") as archive:
        for name in source.namelist():
            other = "starts" if name == "labels/contexts.safetensors/offsets.0" else ""
            archive.writestr(name, source.read(name.replace("offsets", other) if other else name))
    cut, damaged = tmp_path / "cut.zip", tmp_path / "damaged.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    damaged.write_bytes(whole[:5000] + bytes(500) + whole[5500:])
    empty = tmp_path / "empty.zip"
    empty.touch()
    for file, words in (
        (cut, "is cut, damaged or no packed inputs"),
        (damaged, "is cut, damaged or no packed inputs"),
        (empty, "is cut, damaged or no packed inputs"),
        (foreign, "is cut, damaged or no packed inputs"),
        (outside, "it names a file 'features/../../x'"),
        (swapped, "is cut, damaged or no packed inputs"),
        (tiny_features.folder, "is cut, damaged or no packed inputs"),
        (newer, "has format 2, expected 1"),
        (tmp_path / "nothing.zip", "does not exist"),
    ):
        assert pack_inputs.main(["unpack", str(file), "-o", str(tmp_path / "never")]) == 1
        said = capsys.readouterr().err
        assert said.startswith("pack_inputs: error: ") and words in said and said.count("\n") == 1
        assert not (tmp_path / "never").exists() and not list(tmp_path.glob(".never*"))


def test_labels_of_other_data_are_not_packed(shop: Workshop, tiny_labels: Labels, tmp_path: Path) -> None:
    file = tmp_path / "inputs.zip"
    assert pack_inputs.main(["pack", str(shop.run / "features"), str(tiny_labels.folder), "-o", str(file)]) == 1
    assert not file.exists()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20), rising=st.booleans(), beside=st.booleans())
def test_whole_numbers_come_back(values: list[int], rising: bool, beside: bool) -> None:
    array = np.asarray(sorted(values) if rising else values, np.int32)
    base = array[::-1] if beside else None
    stored, coding = pack_inputs.narrow_integers(array, base)
    entry = {**coding, "dtype": "<i4", "shape": list(array.shape)}
    assert np.array_equal(pack_inputs.widen_integers(stored, entry, base), array)


def test_questions_without_pieces_or_with_even_logits_are_rounded_too() -> None:
    arrays = {
        "offsets": np.asarray([0, 0, 3, 3, 5, 5]),
        "start_logits": np.asarray([1, -2, 3, 7, 7], np.float16),
        "end_logits": np.asarray([0, 0, 0, 7, 7], np.float16),
    }
    restored = pack_inputs.restore_logits(*pack_inputs.round_logits(arrays), arrays["offsets"])
    for side, found in restored.items():
        np.testing.assert_allclose(found, arrays[side], atol=5 / 255)
        assert found[3:].tolist() == [7, 7]


@pytest.mark.slow
def test_the_script_for_a_gpu_from_end_to_end_on_this_machine(shop: Workshop, tmp_path: Path) -> None:
    """A slice, its state carried to a place that has nothing else, the rest there; and a sweep."""
    tool = Path(pack_inputs.__file__).with_name("train_on_gpu.sh")
    features, labels = shop.run / "features", shop.run / "labels"
    assert pack_inputs.main(["pack", str(features), str(labels), "-o", str(tmp_path / "inputs.zip")]) == 0
    sizes = "--hidden 16 --model-blocks 1 --encoder-convolutions 1 --model-convolutions 1 --character-dim 8"
    told = {
        **{"PYTHON": sys.executable, "BATCH": "8", "EPOCHS": "2", "WARMUP": "2", "SWEEP_UPDATES": "4"},
        **{"SWEEP_RATES": "1e-3 2e-3", "EVALUATE_EVERY": "4", "SAVE_EVERY": "2", "LOG_EVERY": "2", "PRECISION": "no"},
    }

    def script(mode: str, out: str, extra: str = "", **more: str) -> str:
        result = subprocess.run(
            ["bash", tool, mode, tmp_path / "inputs.zip", tmp_path / out],
            env={**os.environ, **told, **more, "EXTRA": f"{sizes} {extra}"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr + result.stdout
        return result.stdout

    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    assert "to be gone on with" in script("train", "one", "--max-steps 3", WORK=here)
    names = {path.name for path in (tmp_path / "one").rglob("*") if path.is_file()}
    arrays = ("weights", "average", "exp_avg", "exp_avg_sq", "momentum", "step")
    assert names == {"checkpoint.tar", "state.json", *(f"{name}.safetensors" for name in arrays)}
    assert "finished" in script("train", "two", WORK=there, FROM=str(tmp_path / "one"))
    assert "finished" in script("train", "one", WORK=here)
    first, second = ((Path(work) / "run" / "model.safetensors").read_bytes() for work in (here, there))
    assert first == second
    lines = script("sweep", "swept", WORK=here).splitlines()[-3:]
    assert lines == (tmp_path / "swept" / "sweep.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["1e-3", "4"], ["2e-3", "4"]]
    assert all("-" not in line.split()[2:] for line in lines[1:])
