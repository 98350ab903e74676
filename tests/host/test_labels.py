"""The teacher's logits on disk: resumable, shared between processes, refused when they are of something else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from full_disk import fill_disk
from safetensors.numpy import load_file, save_file
from tiny_models import all_texts, write_json, write_tiny_squad, write_tiny_teacher

from qa_edge import labels as module
from qa_edge.labels import Labels, LabelSettings, label
from qa_edge.squad import read_squad
from qa_edge.teacher import Teacher
from qa_edge_runtime.errors import DataError, InputError

SETTINGS = LabelSettings(window=64, stride=16, precision="fp32", batch_tokens=1024)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_QUESTIONS", 10)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_labels_are_the_teachers_logits(tiny_labels: Labels, tiny_teacher: Teacher, tiny_squad_path: Path) -> None:
    squad = read_squad(tiny_squad_path)
    items = list(squad.items())
    assert tiny_labels.questions == len(items)
    expected = tiny_teacher.logits([q.text for _, _, q in items], [p.context for _, p, _ in items], precision="fp32")
    contexts = [paragraph.context for _, paragraph in squad.paragraphs()]
    for number, (_, paragraph, _) in enumerate(items):
        start, end = tiny_labels.logits(number)
        assert start.dtype == end.dtype == np.float16
        pieces = tiny_labels.pieces(contexts.index(paragraph.context))
        assert len(start) == len(end) == len(pieces.starts)
        # float16 has 11 bits.
        np.testing.assert_allclose(start, expected[number].start, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(end, expected[number].end, rtol=1e-3, atol=1e-3)
        assert pieces.starts.tolist() == expected[number].pieces.starts.tolist()
        assert pieces.ends.tolist() == expected[number].pieces.ends.tolist()
        assert (pieces.ends <= len(paragraph.context)).all() and (pieces.starts < pieces.ends).all()


def test_a_run_that_lost_a_shard_makes_the_same_bytes(
    tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path, small_shards: None
) -> None:
    seen: list[tuple[int, int]] = []
    folder = label(
        tiny_squad_path,
        str(tiny_teacher_path),
        tmp_path / "labels",
        settings=SETTINGS,
        on_shard=lambda done, all_of_them: seen.append((done, all_of_them)),
    )
    whole = contents(folder)
    assert seen == [(number, 11) for number in range(1, 12)]
    assert sorted(whole) == sorted(
        ["contexts.safetensors", "manifest.json", *(f"questions-{n:05d}.safetensors" for n in range(11))]
    )
    (folder / "questions-00003.safetensors").unlink()
    (folder / "questions-00010.safetensors").unlink()
    (folder / "contexts.safetensors").unlink()
    with pytest.raises(DataError, match="2 of 11 shards missing"):
        Labels(folder)
    seen.clear()
    label(tiny_squad_path, str(tiny_teacher_path), folder, settings=SETTINGS, on_shard=lambda *done: seen.append(done))
    assert seen == [(10, 11), (11, 11)] and contents(folder) == whole
    seen.clear()
    label(tiny_squad_path, str(tiny_teacher_path), folder, settings=SETTINGS, on_shard=lambda *done: seen.append(done))
    assert seen == []


def test_a_run_stopped_by_ctrl_c_goes_on(
    tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path, small_shards: None
) -> None:
    def stop(done: int, shards: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "a", settings=SETTINGS, on_shard=stop)
    assert sum(name.startswith("questions") for name in contents(tmp_path / "a")) == 4
    label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "a", settings=SETTINGS)
    label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "b", settings=SETTINGS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_work_goes_on_in_shards_of_the_size_it_was_begun_with(
    tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_QUESTIONS", 40)
    folder = label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS)
    whole = contents(folder)
    (folder / "questions-00001.safetensors").unlink()
    monkeypatch.setattr(module, "SHARD_QUESTIONS", 10)
    label(tiny_squad_path, str(tiny_teacher_path), folder, settings=SETTINGS)
    assert contents(folder) == whole and len(whole) == 5


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_share_the_shards(
    tiny_squad_path: Path,
    tiny_teacher_path: Path,
    tmp_path: Path,
    small_shards: None,
    order: tuple[int, ...],
) -> None:
    for process in order:
        label(
            tiny_squad_path, str(tiny_teacher_path), tmp_path / "three", settings=SETTINGS, process=process, processes=3
        )
    label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "one", settings=SETTINGS)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_at_once(tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    code = """
import sys
from qa_edge import labels
labels.SHARD_QUESTIONS = 10
labels.label(sys.argv[1], sys.argv[2], sys.argv[3], process=int(sys.argv[4]), processes=2,
    settings=labels.LabelSettings(window=64, stride=16, precision="fp32", batch_tokens=1024))
"""
    arguments = [sys.executable, "-c", code, str(tiny_squad_path), str(tiny_teacher_path), str(tmp_path / "two")]
    running = [subprocess.Popen([*arguments, str(process)]) for process in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert Labels(tmp_path / "two").questions == 108
    assert not [name for name in contents(tmp_path / "two") if name.endswith(".tmp")]


def test_impossible_questions_are_left_out_as_prepare_does(tiny_teacher_path: Path, tmp_path: Path) -> None:
    write_tiny_squad(tmp_path / "plain.json", articles=2, contexts=1, facts=1)
    raw = json.loads((tmp_path / "plain.json").read_text(encoding="utf-8"))
    for article in raw["data"]:
        article["paragraphs"][0]["qas"][0] |= {"answers": [], "is_impossible": True}
    write_json(tmp_path / "data.json", raw)
    labels = Labels(label(tmp_path / "data.json", str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS))
    assert labels.questions == 4 and len(labels.logits(3)[0]) == len(labels.pieces(1).starts)


@pytest.mark.parametrize("call", [1, 2, 6], ids=["manifest", "contexts", "shard"])
def test_a_full_disk_leaves_whole_files_and_the_same_command_goes_on(
    tiny_squad_path: Path,
    tiny_teacher_path: Path,
    tmp_path: Path,
    small_shards: None,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        fill_disk(patch, call)
        with pytest.raises(DataError, match="No space left on device; free some space"):
            label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "full", settings=SETTINGS)
    before = contents(tmp_path / "full")
    assert len(before) == call - 1
    label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "full", settings=SETTINGS)
    whole = contents(label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "whole", settings=SETTINGS))
    assert contents(tmp_path / "full") == whole and before.items() <= whole.items()


def test_a_folder_of_other_things_is_left_alone(tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds letter\.txt but no manifest\.json"):
        label(tiny_squad_path, str(tiny_teacher_path), tmp_path, settings=SETTINGS)
    assert list(contents(tmp_path)) == ["letter.txt"]


def test_labels_of_before_the_configs_hash_are_gone_on_with(
    tiny_labels: Labels, tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_labels.folder, tmp_path / "labels")
    manifest = dict(tiny_labels.manifest)
    assert manifest.pop("teacher_config_sha256")
    write_json(folder / "manifest.json", manifest)
    (folder / "contexts.safetensors").unlink()
    label(tiny_squad_path, str(tiny_teacher_path), folder, settings=SETTINGS)
    assert Labels(folder).manifest == manifest
    assert (folder / "contexts.safetensors").read_bytes() == (tiny_labels.folder / "contexts.safetensors").read_bytes()


def test_word_pieces_of_contexts_show_progress(
    tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[int, list[int]]] = {}

    @contextmanager
    def watched(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        seen[description] = (total, [])
        yield seen[description][1].append

    monkeypatch.setattr(module, "progress", watched)
    monkeypatch.setattr(module, "ENCODED_CONTEXTS", 5)
    folder = label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS)
    assert seen["word pieces"] == (18, [5, 5, 5, 3])
    expected = tiny_squad_path.with_name("labels") / "contexts.safetensors"
    assert (folder / "contexts.safetensors").read_bytes() == expected.read_bytes()


def test_labels_of_something_else_are_refused(tiny_labels: Labels, tiny_squad_path: Path, tmp_path: Path) -> None:
    squad = read_squad(tiny_squad_path)
    before = contents(tiny_labels.folder)
    texts = all_texts(squad)
    weights = write_tiny_teacher(tmp_path / "weights", texts, seed=1)
    # The same weights, other pieces.
    pieces = shutil.copytree(tiny_squad_path.with_name("teacher"), tmp_path / "pieces")
    raw = json.loads((pieces / "tokenizer.json").read_text(encoding="utf-8"))
    raw["normalizer"]["lowercase"] = False
    write_json(pieces / "tokenizer.json", raw)
    # The same weights, other activations.
    config = shutil.copytree(tiny_squad_path.with_name("teacher"), tmp_path / "config")
    write_json(config / "config.json", {**json.loads((config / "config.json").read_text()), "hidden_act": "relu"})
    others = {"teacher_sha256": weights, "tokenizer_sha256": pieces, "teacher_config_sha256": config}
    for key, teacher in others.items():
        with pytest.raises(DataError, match=f"made with {key}") as caught:
            label(tiny_squad_path, str(teacher), tiny_labels.folder, settings=SETTINGS)
        assert "name another folder" in str(caught.value)
    own = tiny_squad_path.with_name("teacher")
    write_tiny_squad(tmp_path / "other.json", seed=5)
    with pytest.raises(DataError, match="squad_sha256"):
        label(tmp_path / "other.json", str(own), tiny_labels.folder, settings=SETTINGS)
    for settings, key in [
        (LabelSettings(window=80, stride=16, precision="fp32"), "window"),
        (LabelSettings(window=64, stride=17, precision="fp32"), "stride"),
        (LabelSettings(window=64, stride=16, precision="bf16"), "precision"),
    ]:
        with pytest.raises(DataError, match=key):
            label(tiny_squad_path, str(own), tiny_labels.folder, settings=settings)
    with pytest.raises(DataError, match="other data"):
        tiny_labels.require(read_squad(tmp_path / "other.json").sha256)
    tiny_labels.require(squad.sha256)
    assert contents(tiny_labels.folder) == before


def test_folders_that_hold_no_labels(tmp_path: Path, tiny_labels: Labels) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Labels(tmp_path)
    write_json(tmp_path / "manifest.json", {"format_version": 2})
    with pytest.raises(DataError, match="format 2"):
        Labels(tmp_path)
    write_json(tmp_path / "manifest.json", [])
    with pytest.raises(DataError, match="format None"):
        Labels(tmp_path)
    for manifest in ({}, {**tiny_labels.manifest, "shard_questions": 0}, {**tiny_labels.manifest, "questions": "5"}):
        write_json(tmp_path / "manifest.json", {"format_version": 1, **manifest})
        with pytest.raises(DataError, match="not one that label wrote"):
            Labels(tmp_path)
    for name, content in contents(tiny_labels.folder).items():
        (tmp_path / name).write_bytes(content)
    shard = tmp_path / "questions-00000.safetensors"
    tensors = load_file(shard)
    for wrong in (
        {**tensors, "offsets": tensors["offsets"][::-1].copy()},
        {**tensors, "offsets": tensors["offsets"][:-1]},
        {**tensors, "end_logits": tensors["end_logits"][:-1]},
        {**tensors, "start_logits": np.full_like(tensors["start_logits"], np.nan)},
        load_file(tmp_path / "contexts.safetensors"),
    ):
        save_file(wrong, shard)
        with pytest.raises(DataError, match=r"questions-00000\.safetensors does not hold what label wrote"):
            Labels(tmp_path).logits(0)
    save_file(tensors, tmp_path / "contexts.safetensors")
    with pytest.raises(DataError, match=r"contexts\.safetensors does not hold what label wrote"):
        Labels(tmp_path)
    (tmp_path / "contexts.safetensors").unlink()
    with pytest.raises(DataError, match=r"contexts\.safetensors"):
        Labels(tmp_path)
    (tmp_path / "contexts.safetensors").write_bytes(b"{}")
    with pytest.raises(DataError, match="cannot be read"):
        Labels(tmp_path)


def test_data_without_a_question_is_one_sentence(tmp_path: Path, tiny_teacher_path: Path) -> None:
    write_json(tmp_path / "data.json", {"data": [{"title": "Nothing", "paragraphs": []}]})
    with pytest.raises(DataError, match="no question"):
        label(tmp_path / "data.json", str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS)
    assert not (tmp_path / "labels").exists()


def test_a_question_too_long_for_the_teacher_is_found_before_the_work(tiny_teacher_path: Path, tmp_path: Path) -> None:
    questions = [{"id": str(number), "question": "why " * (1 + 99 * number)} for number in range(2)]
    write_json(tmp_path / "data.json", {"data": [{"paragraphs": [{"context": "The end.", "qas": questions}]}]})
    with pytest.raises(DataError, match="room for a context"):
        label(tmp_path / "data.json", str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS)
    assert not (tmp_path / "labels").exists()


def test_a_wrong_precision_is_one_sentence() -> None:
    with pytest.raises(InputError, match="precision"):
        LabelSettings(precision="int8")
    with pytest.raises(InputError, match="batch_tokens"):
        LabelSettings(batch_tokens=0)


def test_a_file_where_the_folder_should_be(tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("mine")
    with pytest.raises(DataError, match="cannot make the folder"):
        label(tiny_squad_path, str(tiny_teacher_path), tmp_path / "labels", settings=SETTINGS)
    assert (tmp_path / "labels").read_text() == "mine"
