from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import (
    COLUMNS,
    HIDDEN,
    TABLE,
    WORDS,
    core_graph,
    graph_specs,
    npy,
    tiny_files,
    token_graph,
    write_tiny_bundle,
)

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest, TableSpec
from qa_edge_runtime.engine import OnnxEngine
from qa_edge_runtime.errors import BundleError, DataError, EngineError, InputError, MissingExtraError


def refusal(path: Path) -> str:
    """The one sentence with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        Answerer.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def change_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def put(path: Path, name: str, content: bytes) -> None:
    """Replace a file and its record, as one would who means to."""
    (path / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    change_manifest(path, lambda manifest: manifest["files"].update({name: record}))


def test_opens_what_was_written(tiny_path: Path) -> None:
    bundle = Bundle.open(tiny_path)
    assert bundle.manifest.name == "tiny"
    assert bundle.manifest.hidden == HIDDEN
    assert isinstance(bundle.table, np.memmap)
    np.testing.assert_array_equal(bundle.table, TABLE)
    assert bundle.vocabulary().words == WORDS
    assert len(bundle.cases()) == 2
    assert bundle.size_bytes == sum(len(content) for content in tiny_files().values())


def test_hashes_are_those_of_the_files(tiny_path: Path) -> None:
    for name, record in Bundle.open(tiny_path).manifest.files.items():
        content = (tiny_path / name).read_bytes()
        assert record.sha256 == hashlib.sha256(content).hexdigest()
        assert record.size_bytes == len(content)


def test_manifest_survives_the_way_through_json(tiny_path: Path) -> None:
    manifest = replace(Bundle.open(tiny_path).manifest, name="Übung 🙂", scores={"exact_match": 70.5, "f1": 80.25})
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("name", sorted(tiny_files()))
def test_missing_file(copied_path: Path, name: str) -> None:
    (copied_path / name).unlink()
    assert f"{name} is missing" in refusal(copied_path)


@pytest.mark.parametrize("name", sorted(tiny_files()))
def test_cut_file(copied_path: Path, name: str) -> None:
    content = (copied_path / name).read_bytes()
    (copied_path / name).write_bytes(content[:-1])
    assert f"{name} has {len(content) - 1} bytes instead of {len(content)}" in refusal(copied_path)


@pytest.mark.parametrize("name", sorted(tiny_files()))
def test_changed_byte(copied_path: Path, name: str) -> None:
    content = bytearray((copied_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied_path / name).write_bytes(content)
    assert f"{name} has changed" in refusal(copied_path)


def test_folder_in_place_of_a_file(copied_path: Path) -> None:
    (copied_path / "core.onnx").unlink()
    (copied_path / "core.onnx").mkdir()
    assert "core.onnx is not a file" in refusal(copied_path)


def test_newer_format_is_named_whatever_else_it_holds(copied_path: Path) -> None:
    (copied_path / "manifest.json").write_text('{"format_version": 3, "files": "elsewhere"}')
    assert "bundle format 3 is newer than this runtime reads (1): upgrade qa-edge-runtime" in refusal(copied_path)


def test_missing_bundle_file_bundle_and_missing_manifest(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.qab")
    (tmp_path / "file.qab").write_text("text")
    assert "is a file" in refusal(tmp_path / "file.qab")
    (tmp_path / "empty.qab").mkdir()
    assert "manifest.json is missing" in refusal(tmp_path / "empty.qab")
    os.mkfifo(tmp_path / "empty.qab" / "manifest.json")
    assert "manifest.json is not a file" in refusal(tmp_path / "empty.qab")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"format_version": 1}',
        b'{"format_version": NaN}',
        b'{"format_version": true}',
        b'{"format_version": "1"}',
        b'{"format_version": 0}',
        b'{"format_version": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_a_manifest(copied_path: Path, content: bytes) -> None:
    (copied_path / "manifest.json").write_bytes(content)
    assert "manifest.json" in refusal(copied_path)


def test_manifest_beyond_reason_is_not_read(copied_path: Path) -> None:
    (copied_path / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    assert f"more than {MAX_MANIFEST_BYTES} bytes" in refusal(copied_path)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b.onnx", "a\\b.onnx", "..", ".hidden", "", "C:x", "x\0y", "x\n", "manifest.json"],
)
def test_names_that_lead_elsewhere(copied_path: Path, name: str) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 0}

    change_manifest(copied_path, add)
    assert "is not a plain file name" in refusal(copied_path)


def test_graph_file_that_leads_elsewhere(copied_path: Path) -> None:
    change_manifest(copied_path, lambda manifest: manifest["graphs"]["core"].update(file="../core.onnx"))
    assert "'../core.onnx' is not a plain file name" in refusal(copied_path)


@pytest.mark.parametrize(
    "key", ["name", "created", "engine", "files", "graphs", "table", "decoder", "student", "spacy_version"]
)
@pytest.mark.parametrize("value", [None, 7, [1]])
def test_entry_missing_or_of_another_kind(copied_path: Path, key: str, value: Any) -> None:
    change_manifest(copied_path, lambda manifest: manifest.update({key: value}))
    assert key in refusal(copied_path)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda m: m["files"].pop("cases.json"), "cases.json is needed"),
        (lambda m: m["files"].pop("core.onnx"), "core.onnx is needed"),
        (lambda m: m["files"]["core.onnx"].update(sha256="abc"), "files.core.onnx"),
        (lambda m: m["files"]["core.onnx"].update(size_bytes=-1), "files.core.onnx"),
        (lambda m: m["graphs"].pop("core"), "the graphs are token; expected token and core"),
        (lambda m: m["graphs"].update(extra=m["graphs"]["core"]), "the graphs are core and extra and token"),
        (lambda m: m.update(scores={"exact_match": "high", "f1": 80.0}), "scores.exact_match is 'high'"),
        (lambda m: m.update(scores={"exact_match": 70, "f1": 10**400}), "scores.f1 is 1000"),
        (lambda m: m.update(verification={"largest_difference": None}), "verification.largest_difference is None"),
        (lambda m: m["graphs"]["core"]["inputs"].pop(), "expected context, question"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(name="passage"), "expected context, question"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(dtype="float16"), "core graph's input context"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(shape=["n"]), "core graph's input context"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(shape=[384, 6]), "first of any size"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(shape=["n", {}]), "core graph's input context"),
        (lambda m: m["graphs"]["core"]["inputs"][0].update(shape=["n", 9]), "context has 9 columns"),
        (lambda m: m["graphs"]["token"]["inputs"][0].update(shape=["n", 9]), "word_vectors has 9 columns"),
        (lambda m: m["table"].update(dtype="object"), "float16 or float32"),
        (lambda m: m["table"].update(shape=[10]), "two whole numbers"),
        (lambda m: m["table"].update(shape=[10, -4]), "two whole numbers"),
        (lambda m: m["table"].update(shape=[11, COLUMNS]), "vectors.npy is float16 [10, 4]"),
        (lambda m: m["table"].update(dtype="float32"), "vectors.npy is float16 [10, 4]"),
        (lambda m: m["decoder"].update(max_answer_tokens=0), "max_answer_tokens"),
        (lambda m: m.update(engine="abacus"), "needs the engine 'abacus'"),
    ],
)
def test_declarations_that_do_not_fit(copied_path: Path, change: Callable[[dict[str, Any]], Any], part: str) -> None:
    change_manifest(copied_path, change)
    assert part in refusal(copied_path)


def test_tables_of_another_kind(copied_path: Path) -> None:
    for array in (TABLE.astype(np.float32), TABLE[:-1], np.asfortranarray(TABLE), TABLE.astype(">f2")):
        put(copied_path, "vectors.npy", npy(array))
        assert "vectors.npy is" in refusal(copied_path)
    for content in (b"", b"text", npy(TABLE)[:-5], npy(TABLE)[:20], b"\x93NUMPY\x01\x00\x10\x00{'descr': print()"):
        put(copied_path, "vectors.npy", content)
        assert "vectors.npy is not a table" in refusal(copied_path)


def test_pickled_table_is_not_unpickled(copied_path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    put(copied_path, "vectors.npy", (tmp_path / "pickled.npy").read_bytes())
    assert "vectors.npy is not a table" in refusal(copied_path)


def test_a_table_of_another_kind_is_said_without_advice_to_unpickle_it(copied_path: Path) -> None:
    put(copied_path, "vectors.npy", b"no array at all")
    assert "does not begin as a .npy file does" in refusal(copied_path)


def test_archive_in_place_of_a_table(copied_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", TABLE)
    put(copied_path, "vectors.npy", (tmp_path / "several.npz").read_bytes())
    assert "archive" in refusal(copied_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocabulary.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format_version": 9}'])
def test_tables_that_cannot_be_read(copied_path: Path, name: str, content: bytes) -> None:
    put(copied_path, name, content)
    assert name in refusal(copied_path)


def test_vocabulary_of_another_size(copied_path: Path) -> None:
    put(copied_path, "vocabulary.json", b'{"format_version": 1, "words": ["one"], "characters": []}')
    assert "vocabulary.json has 1 words" in refusal(copied_path)


@pytest.mark.parametrize("content", [b"", b"7", b'[{"question": "?"}]', b'{"cases": null}'])
def test_cases_of_another_shape(copied_path: Path, content: bytes) -> None:
    put(copied_path, "cases.json", content)
    with pytest.raises(BundleError, match=r"cases\.json"):
        Bundle.open(copied_path).cases()


def test_graph_that_is_not_as_declared(copied_path: Path) -> None:
    put(copied_path, "core.onnx", core_graph(end_name="other"))
    assert "core.onnx has the outputs start_logits, other" in refusal(copied_path)


@pytest.mark.parametrize("graph", [{"hidden": 5}, {"state_type": 10}])
def test_graph_of_another_size_or_dtype(copied_path: Path, graph: dict[str, int]) -> None:
    put(copied_path, "token.onnx", token_graph(**graph))
    assert "token.onnx: output states is" in refusal(copied_path)


def test_graph_that_the_engine_refuses(copied_path: Path) -> None:
    put(copied_path, "core.onnx", b"not a graph")
    with pytest.raises(EngineError, match=r"refused core\.onnx") as caught:
        Answerer.load(copied_path)
    assert "\n" not in str(caught.value)


def test_engine_failure_names_graph_and_shapes() -> None:
    engine = OnnxEngine(core_graph(), role="core", spec=graph_specs()["core"])
    wrong = np.zeros((3, HIDDEN + 1), np.float32)
    with pytest.raises(EngineError, match=r"core graph failed on context \[3, 7\]"):
        engine.run({"context": wrong, "question": wrong})


def test_missing_engine_names_the_extra(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError) as caught:
        Answerer.load(tiny_path)
    assert str(caught.value) == 'this bundle needs ONNX Runtime: pip install "qa-edge-runtime[onnx]"'


@pytest.mark.parametrize("threads", [0, -1, 65, 10**10, 1.5, True, "2"])
def test_threads_out_of_range(tiny_path: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        Answerer.load(tiny_path, threads=threads)


def test_existing_bundle_is_kept_unless_forced(copied_path: Path) -> None:
    with pytest.raises(DataError, match="exists"):
        write_tiny_bundle(copied_path)
    write_tiny_bundle(copied_path, name="again", force=True)
    assert Bundle.open(copied_path).manifest.name == "again"


def test_a_licence_that_is_no_unicode_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half of a surrogate pair"):
        write_tiny_bundle(tmp_path / "new.qab", licences={"data": "\udcff"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": {"vectors.npy": npy(TABLE[:-1])}},
        {"files": {"tokenizer.json": b"{}"}},
        {"files": {"cases.json": b"{}"}},
        {"files": {"../outside": b""}},
        {"table": TableSpec(file="elsewhere.npy", shape=(10, COLUMNS), dtype="float16")},
        {"max_answer_tokens": 0},
    ],
)
def test_what_would_not_load_is_not_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        write_tiny_bundle(tmp_path / "new.qab", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", [0, 1, 4])
def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    write_bytes = Path.write_bytes
    written = []

    def write_until_full(self: Path, data: bytes) -> int:
        if len(written) == after:
            write_bytes(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self)
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(DataError, match="No space left on device"):
        write_tiny_bundle(tmp_path / "new.qab")
    assert list(tmp_path.iterdir()) == []


def test_failed_replacement_keeps_the_old_bundle(copied_path: Path) -> None:
    with pytest.raises(BundleError):
        write_tiny_bundle(copied_path, files={"tokenizer.json": b"{}"}, force=True)
    assert Bundle.open(copied_path).manifest.name == "tiny"
    assert [path.name for path in copied_path.parent.iterdir()] == [copied_path.name]
