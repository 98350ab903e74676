from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import change_manifest, put, refusal
from tiny_bundle import HIDDEN, TABLE, WORDS, graph_specs, npy, table_spec, tiny_files, write_tiny_bundle

from qa_edge_runtime.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest, ProbabilityFit, copy_bundle
from qa_edge_runtime.errors import BundleError, DataError, InputError

FIT = {"temperature": 1.25, "expected_calibration_error": 0.03, "questions": 1000, "no_answer_below": None}


def test_opens_what_was_written(tiny_path: Path) -> None:
    bundle = Bundle.open(tiny_path)
    assert bundle.manifest.name == "tiny"
    assert bundle.manifest.hidden == HIDDEN
    assert bundle.manifest.characters_per_word == 16
    assert bundle.manifest.engines == ("onnx",)
    assert bundle.manifest.precisions("onnx") == ("fp32",)
    np.testing.assert_allclose(bundle.table.rows(range(len(TABLE))), TABLE, atol=0.02)
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
    graphs = [
        replace(graph, verification={"questions": 1000, "f1": 80.5})
        for graph in graph_specs(tflite=["fp16", "int8"], onnx=["fp32", "int8"])
    ]
    record = next(iter(manifest.files.values()))
    manifest = replace(
        manifest,
        graphs=tuple(graphs),
        files=dict.fromkeys((*(graph.file for graph in graphs), *manifest.files), record),
    )
    assert manifest.engines == ("onnx", "tflite")
    assert manifest.precisions("tflite") == ("int8", "fp16")
    assert manifest.graph("token", "tflite").file == "token.tflite"
    assert manifest.graph("core", "onnx", "int8").file == "core.int8.onnx"
    with pytest.raises(KeyError):
        manifest.graph("core", "onnx", "fp16")
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("below", [None, 0, 0.35])
def test_probability_comes_back_as_it_was_fitted(tmp_path: Path, below: float | None) -> None:
    fit = ProbabilityFit(**{**FIT, "no_answer_below": below})
    assert write_tiny_bundle(tmp_path / "fitted.qab", probability=fit).probability == fit
    assert Bundle.open(tmp_path / "fitted.qab").manifest.probability == fit


def test_probability_that_was_not_fitted_is_none(tiny_path: Path, copied_path: Path) -> None:
    assert json.loads((tiny_path / "manifest.json").read_text())["probability"] is None
    assert Bundle.open(tiny_path).manifest.probability is None
    change_manifest(copied_path, lambda manifest: manifest.pop("probability"))  # as before the entry was thought of
    assert Bundle.open(copied_path).manifest.probability is None
    with pytest.raises(BundleError, match="expected a ProbabilityFit"):
        write_tiny_bundle(tiny_path.parent / "other.qab", probability=FIT)


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
    (copied_path / "core.fp32.onnx").unlink()
    (copied_path / "core.fp32.onnx").mkdir()
    assert "core.fp32.onnx is not a file" in refusal(copied_path)


@pytest.mark.parametrize(
    ("version", "part"),
    [
        (1, "bundle format 1 is older than this runtime reads (2): export it again"),
        (3, "bundle format 3 is newer than this runtime reads (2): upgrade qa-edge-runtime"),
    ],
)
def test_another_format_is_named_whatever_else_it_holds(copied_path: Path, version: int, part: str) -> None:
    (copied_path / "manifest.json").write_text(f'{{"format_version": {version}, "files": "elsewhere"}}')
    assert part in refusal(copied_path)


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
        b'{"format_version": 2}',
        b'{"format_version": NaN}',
        b'{"format_version": true}',
        b'{"format_version": "2"}',
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
    change_manifest(copied_path, lambda manifest: manifest["graphs"][0].update(file="../core.onnx"))
    assert "'../core.onnx' is not a plain file name" in refusal(copied_path)


@pytest.mark.parametrize("key", ["name", "created", "files", "graphs", "table", "decoder", "student", "spacy_version"])
@pytest.mark.parametrize("value", [None, 7, [1]])
def test_entry_missing_or_of_another_kind(copied_path: Path, key: str, value: Any) -> None:
    change_manifest(copied_path, lambda manifest: manifest.update({key: value}))
    assert key in refusal(copied_path)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda m: m["files"].pop("cases.json"), "cases.json is needed"),
        (lambda m: m["files"].pop("core.fp32.onnx"), "core.fp32.onnx is needed"),
        (lambda m: m["files"].pop("table_scales.npy"), "table_scales.npy is needed"),
        (lambda m: m["files"]["core.fp32.onnx"].update(sha256="abc"), "files.core.fp32.onnx"),
        (lambda m: m["files"]["core.fp32.onnx"].update(size_bytes=-1), "files.core.fp32.onnx"),
        (lambda m: m["graphs"].pop(0), "graphs holds no core graph"),
        (lambda m: m["graphs"].pop(), "graphs holds 0 token graphs for onnx; expected one for each engine"),
        (lambda m: m["graphs"].clear(), "graphs holds no core graph"),
        (lambda m: m["graphs"].append(m["graphs"][0]), "graphs holds two core graphs for onnx in fp32"),
        (lambda m: m["graphs"].append({**m["graphs"][1], "precision": "int8"}), "graphs holds 2 token graphs for onnx"),
        (
            lambda m: m["graphs"].append({**m["graphs"][1], "engine": "tflite"}),
            "graphs holds 1 token graphs for tflite",
        ),
        (lambda m: m["graphs"].append({**m["graphs"][0], "precision": "int8"}), "core.fp32.onnx is declared twice"),
        (lambda m: m["graphs"].append(7), "graphs[2] is 7, expected an object"),
        (lambda m: m["graphs"][0].update(role="hub"), "a graph's role is 'hub', expected core or token"),
        (lambda m: m["graphs"][0].update(role=["core"]), "a graph's role is ['core']"),
        (lambda m: m["graphs"][0].update(engine="abacus"), "a graph's engine is 'abacus', expected onnx or tflite"),
        (lambda m: m["graphs"][0].pop("engine"), "a graph's engine is missing"),
        (lambda m: m["graphs"][0].update(precision="int4"), "a graph's precision is 'int4', expected int8, fp16 or"),
        (lambda m: m["graphs"][0].update(verification=[]), "graphs[0].verification is []"),
        (lambda m: m["graphs"][0].update(verification={"questions": "all"}), "verification.questions is 'all'"),
        (lambda m: m["graphs"][0].update(verification={"scores": None}), "verification.scores is missing, expected an"),
        (
            lambda m: m["graphs"][0].update(verification={"scores": [80.5]}),
            "verification.scores is [80.5], expected an",
        ),
        (
            lambda m: m["graphs"][0].update(verification={"scores": {"f1": "high"}}),
            "verification.scores.f1 is 'high', expected a number",
        ),
        (
            lambda m: m.update(verification={"reference_scores": {"f1": None}}),
            "verification.reference_scores.f1 is None",
        ),
        (lambda m: m.update(scores={"exact_match": "high", "f1": 80.0}), "scores.exact_match is 'high'"),
        (lambda m: m.update(scores={"exact_match": 70, "f1": 10**400}), "a whole number of 401 digits"),
        (lambda m: m.update(verification={"largest_difference": None}), "verification.largest_difference is None"),
        (lambda m: m["graphs"][0]["inputs"].pop(), "expected context, question"),
        (lambda m: m["graphs"][0]["inputs"][0].update(name="passage"), "expected context, question"),
        (lambda m: m["graphs"][0]["inputs"][0].update(dtype="float16"), "core graph's input context"),
        (lambda m: m["graphs"][0]["inputs"][0].update(shape=["n"]), "core graph's input context"),
        (lambda m: m["graphs"][0]["inputs"][0].update(shape=[384, 6]), "first of any size"),
        (lambda m: m["graphs"][0]["inputs"][0].update(shape=["n", {}]), "core graph's input context"),
        (lambda m: m["graphs"][0]["inputs"][0].update(shape=["n", 9]), "core.fp32.onnx: context has 9 columns"),
        (lambda m: m["graphs"][1]["outputs"][0].update(shape=["n", 9]), "token.onnx: states has 9 columns"),
        (lambda m: m["graphs"][1]["inputs"][0].update(dtype="int64"), "token graph's input character_ids"),
        (lambda m: m["table"].update(dtype="object"), "table.dtype is 'object'"),
        (lambda m: m["table"].update(rows=None), "table.rows is missing"),
        (lambda m: m["table"].update(rows=11), "table.npy is int8 [10, 6]"),
        (lambda m: m["table"].update(rows=1 << 40), "table.rows is 1099511627776"),
        (lambda m: m["table"].update(hidden=8, group_size=8), "core.fp32.onnx: context has 6 columns"),
        (lambda m: m["table"].update(group_size=2), "table_scales.npy is float16 [10, 2]"),
        (lambda m: m["table"].update(dtype="int4"), "table.npy is int8 [10, 6]"),
        (lambda m: m["table"].update(file="../table.npy"), "'../table.npy' is not a plain file name"),
        (lambda m: m["table"].update(scales_file="table.npy"), "table.npy is declared twice"),
        (lambda m: m["decoder"].update(max_answer_tokens=0), "max_answer_tokens"),
        (
            lambda m: m["decoder"].update(max_answer_tokens=10**12),
            "max_answer_tokens is 1000000000000",
        ),
        (lambda m: m.update(probability=0.5), "probability is 0.5, expected an object"),
        (lambda m: m.update(probability=[]), "probability is [], expected an object"),
        (lambda m: m.update(probability={}), "probability.temperature is missing, expected a number from"),
        (lambda m: m.update(probability={**FIT, "temperature": 0}), "probability.temperature is 0, expected a number"),
        (lambda m: m.update(probability={**FIT, "temperature": 10**400}), "a whole number of 401 digits"),
        (lambda m: m.update(probability={**FIT, "temperature": True}), "probability.temperature is True"),
        (
            lambda m: m.update(probability={**FIT, "expected_calibration_error": 1.5}),
            "probability.expected_calibration_error is 1.5, expected a number from 0 to 1",
        ),
        (
            lambda m: m.update(probability={**FIT, "questions": 0}),
            "probability.questions is 0",
        ),
        (lambda m: m.update(probability={**FIT, "questions": 1.5}), "probability.questions is 1.5"),
        (lambda m: m.update(probability={**FIT, "no_answer_below": "half"}), "probability.no_answer_below is 'half'"),
    ],
)
def test_declarations_that_do_not_fit(copied_path: Path, change: Callable[[dict[str, Any]], Any], part: str) -> None:
    change_manifest(copied_path, change)
    assert part in refusal(copied_path)


def test_token_graphs_read_as_many_characters_as_each_other(tiny_path: Path) -> None:
    manifest = Bundle.open(tiny_path).manifest
    specs = graph_specs(onnx=["fp32"], tflite=["fp32"])
    ids = replace(specs[-1].inputs[0], shape=("tokens", 8))
    record = next(iter(manifest.files.values()))
    with pytest.raises(BundleError, match=r"token\.tflite: character_ids has 8 columns"):
        replace(
            manifest,
            graphs=(*specs[:-1], replace(specs[-1], inputs=(ids,))),
            files={**manifest.files, "core.fp32.tflite": record, "token.tflite": record},
        )


@pytest.mark.parametrize("name", ["table.npy", "table_scales.npy"])
def test_tables_of_another_kind(copied_path: Path, name: str) -> None:
    whole = np.load(copied_path / name, allow_pickle=False)
    for array in (whole.astype(np.float32), whole[:-1], np.asfortranarray(whole), whole.astype(">f2")):
        put(copied_path, name, npy(array))
        assert f"{name} is" in refusal(copied_path)
    for content in (b"", b"text", npy(whole)[:-5], npy(whole)[:20], b"\x93NUMPY\x01\x00\x10\x00{'descr': print()"):
        put(copied_path, name, content)
        assert f"{name} is not a table" in refusal(copied_path)


def test_scales_tampered_with(copied_path: Path) -> None:
    scales = np.load(copied_path / "table_scales.npy", allow_pickle=False)
    scales[3] *= 2
    (copied_path / "table_scales.npy").write_bytes(npy(scales))
    assert "table_scales.npy has changed since it was exported" in refusal(copied_path)
    scales[3] = np.inf
    put(copied_path, "table_scales.npy", npy(scales))
    assert "table_scales.npy has a scale that is not finite" in refusal(copied_path)


def test_state_of_no_word_that_is_not_zeros(copied_path: Path) -> None:
    rows = np.load(copied_path / "table.npy", allow_pickle=False)
    scales = np.load(copied_path / "table_scales.npy", allow_pickle=False)
    rows[0], scales[0] = 1, 1
    put(copied_path, "table.npy", npy(rows))
    put(copied_path, "table_scales.npy", npy(scales))
    assert "table.npy: row 0" in refusal(copied_path)


def test_pickled_table_is_not_unpickled(copied_path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    put(copied_path, "table.npy", (tmp_path / "pickled.npy").read_bytes())
    assert "table.npy is not a table" in refusal(copied_path)


def test_a_table_of_another_kind_is_said_without_advice_to_unpickle_it(copied_path: Path) -> None:
    put(copied_path, "table.npy", b"no array at all")
    assert "does not begin as a .npy file does" in refusal(copied_path)


def test_archive_in_place_of_a_table(copied_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", TABLE)
    put(copied_path, "table.npy", (tmp_path / "several.npz").read_bytes())
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


def test_what_is_no_part_of_a_bundle_is_kept(copied_path: Path, tmp_path: Path) -> None:
    single = copied_path / "inner.qab.zip"
    copy_bundle(copied_path, tmp_path / "t.qab.zip")
    (tmp_path / "t.qab.zip").replace(single)
    with pytest.raises(InputError, match="or over a folder that it lies in"):
        copy_bundle(single, copied_path, force=True)
    other = tmp_path / "other.qab"
    copy_bundle(single, other)
    with pytest.raises(DataError, match=r"holds inner\.qab\.zip, which is no part of a bundle"):
        copy_bundle(other, copied_path, force=True)
    assert single.exists()
    (other / ".DS_Store").write_text("")
    copy_bundle(single, other, force=True)


@pytest.mark.parametrize(
    "place",
    [
        lambda found: found["table"],
        lambda found: found["decoder"],
        lambda found: found["graphs"][0],
        lambda found: found["graphs"][0]["inputs"][0],
        lambda found: found["files"]["table.npy"],
    ],
)
def test_an_entry_of_a_later_format_is_refused_wherever_it_stands(
    copied_path: Path, place: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    found = json.loads((copied_path / "manifest.json").read_text())
    del found["manifest_sha256"]
    place(found)["layout_of_a_later_format"] = "transposed"
    (copied_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(BundleError, match="layout_of_a_later_format' is no entry of this format"):
        Bundle.open(copied_path)


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
        {"files": {"table.npy": npy(TABLE[:-1])}},
        {"files": {"table_scales.npy": npy(np.full((len(TABLE), 2), np.nan, np.float16))}},
        {"files": {"tokenizer.json": b"{}"}},
        {"files": {"cases.json": b"{}"}},
        {"files": {"../outside": b""}},
        {"table": replace(table_spec("int8", 3), file="elsewhere.npy")},
        {"table": table_spec("int8", HIDDEN)},
        {"graphs": graph_specs(onnx=["int8"])},
        {"graphs": []},
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
