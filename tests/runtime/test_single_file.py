"""A bundle as a single file: the same bundle, mapped where it lies, written whole or not at all."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from damage import refusal
from test_table import is_mapped
from tiny_bundle import CASES, CONTEXT, QUESTION, graph_specs, npy, table_spec, tiny_files, write_tiny_bundle

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.archive import ALIGNMENT
from qa_edge_runtime.bundle import Bundle, bundle_name, check_bundle_path, copy_bundle
from qa_edge_runtime.errors import BundleError, DataError, InputError
from qa_edge_runtime.table import TABLE_DTYPES


@pytest.fixture
def single_path(tiny_path: Path, tmp_path: Path) -> Path:
    """The tiny bundle as a single file that a test may damage."""
    copy_bundle(tiny_path, tmp_path / "single.qab.zip")
    return tmp_path / "single.qab.zip"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def open_files() -> set[str]:
    """What this process has open or mapped of bundles."""
    links = {str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {name for name in links | {line.split(maxsplit=5)[-1] for line in lines} if ".qab" in name}


def test_both_forms_are_the_same_bundle(tiny_path: Path, single_path: Path) -> None:
    folder, single = Bundle.open(tiny_path), Bundle.open(single_path)
    assert single.manifest == folder.manifest
    assert single.size_bytes == folder.size_bytes
    for name in folder.manifest.files:
        assert single.read(name) == folder.read(name) == (tiny_path / name).read_bytes()
    assert single.vocabulary() == folder.vocabulary()
    assert single.cases() == folder.cases()
    assert single.tokenizer()(CONTEXT)[:] == folder.tokenizer()(CONTEXT)[:]
    np.testing.assert_array_equal(single.table.rows(range(10)), folder.table.rows(range(10)))
    for name in ("manifest.json", "elsewhere", "../tiny.qab/table.npy"):
        with pytest.raises(BundleError, match="has no file"):
            single.read(name)


def test_both_forms_answer_alike(tiny_path: Path, single_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with Answerer.load(tiny_path) as folder, Answerer.load(single_path) as single:
        assert single.answers(QUESTION, CONTEXT) == folder.answers(QUESTION, CONTEXT)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_the_table_is_mapped_in_place(tmp_path: Path, dtype: str) -> None:
    group_size = 3 if dtype in ("int8", "int4") else 6
    fields = {"dtype": dtype, "group_size": group_size, "table": table_spec(dtype, group_size)}
    write_tiny_bundle(tmp_path / "folder.qab", **fields)
    write_tiny_bundle(tmp_path / "single.zip", **fields)
    folder, single = (Bundle.open(tmp_path / name).table for name in ("folder.qab", "single.zip"))
    for array in single._arrays or ():
        assert array is None or (is_mapped(array) and not array.flags.writeable and array.flags.aligned)
        assert array is None or array.ctypes.data % ALIGNMENT == 0
    np.testing.assert_array_equal(single.rows(range(10)), folder.rows(range(10)))


@pytest.mark.parametrize("top", ["", "any.qab/"])
def test_unaligned_archives_of_other_programs_are_opened(tiny_path: Path, tmp_path: Path, top: str) -> None:
    for shift in range(4):
        path = tmp_path / f"{shift}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{top}{'a' * (1 + shift)}.txt", b"an odd number of bytes")
            for name, content in contents(tiny_path).items():
                archive.writestr(top + name, content)
        bundle = Bundle.open(path)
        np.testing.assert_array_equal(bundle.table.rows(range(10)), Bundle.open(tiny_path).table.rows(range(10)))
        assert len(bundle.cases()) == len(CASES)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_nothing_is_kept_open_but_the_mapping_until_it_is_closed(single_path: Path) -> None:
    gc.collect()
    before = open_files()
    bundle = Bundle.open(single_path)
    vocabulary = bundle.vocabulary()
    assert str(single_path) in open_files()
    bundle.close()
    assert open_files() == before
    bundle.close()
    with pytest.raises(BundleError, match="was closed"):
        bundle.table.rows([1])
    assert bundle.vocabulary() == vocabulary
    del bundle
    other = Bundle.open(single_path)
    assert str(single_path) in open_files()
    del other
    gc.collect()
    assert open_files() == before


def test_what_was_changed_after_opening_is_noticed(single_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(single_path)
    graph = bundle.manifest.graphs[0]
    whole = single_path.read_bytes()
    for changed in (whole[:200], whole.replace(b"start_logits", b"start_logitz"), b""):
        other = tmp_path / "other"
        other.write_bytes(changed)
        other.replace(single_path)
        with pytest.raises(BundleError, match=f"{graph.file} has changed since it was exported") as caught:
            bundle.graph_bytes(graph)
        assert "\n" not in str(caught.value)
    single_path.unlink()
    with pytest.raises(BundleError, match=f"{graph.file} cannot be read: No such file"):
        bundle.graph_bytes(graph)
    assert bundle.table.rows([1]).any(), "what is mapped stays"


def _read_in_child(bundle: Bundle, queue: multiprocessing.Queue) -> None:
    try:
        queue.put([bundle.graph_bytes(graph) for graph in bundle.manifest.graphs] + [bundle.table.rows([1, 2])])
    except BundleError as error:
        queue.put(str(error))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_child_reads_the_graphs_again(tiny_path: Path, single_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for path in (tiny_path, single_path):
        bundle, queue = Bundle.open(path), context.Queue()
        expected = [bundle.graph_bytes(graph) for graph in bundle.manifest.graphs]
        child = context.Process(target=_read_in_child, args=(bundle, queue))
        child.start()
        *graphs, rows = queue.get(timeout=30)
        child.join(timeout=30)
        assert graphs == expected
        np.testing.assert_array_equal(rows, bundle.table.rows([1, 2]))


def test_there_and_back_is_byte_for_byte(tiny_path: Path, single_path: Path, tmp_path: Path) -> None:
    size = copy_bundle(single_path, tmp_path / "back.qab")
    assert contents(tmp_path / "back.qab") == contents(tiny_path)
    assert size == sum(map(len, contents(tiny_path).values()))
    assert copy_bundle(tmp_path / "back.qab", tmp_path / "again.ZIP") == single_path.stat().st_size
    assert (tmp_path / "again.ZIP").read_bytes() == single_path.read_bytes()
    assert stat.S_IMODE(single_path.stat().st_mode) == 0o644


def test_export_writes_what_pack_does(tiny_path: Path, tmp_path: Path) -> None:
    manifest = write_tiny_bundle(tmp_path / "first.qab.zip", created="2030-01-31T12:00:00+00:00")
    assert manifest.name == "first"
    write_tiny_bundle(tmp_path / "first.qab", created="2030-01-31T12:00:00+00:00")
    copy_bundle(tmp_path / "first.qab", tmp_path / "second.zip")
    assert (tmp_path / "second.zip").read_bytes() == (tmp_path / "first.qab.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "second.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert sorted(archive.namelist()) == sorted(["manifest.json", *tiny_files()])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/first.qab", "first"),
        ("first.qab.zip", "first"),
        ("first.zip", "first"),
        ("first", "first"),
        ("x.Q", "x.Q"),
    ],
)
def test_a_bundle_is_called_as_its_path_is(path: str, name: str) -> None:
    assert bundle_name(path) == name


def test_an_existing_file_is_replaced_only_if_it_is_a_bundle_and_that_was_asked_for(
    single_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="pass --force"):
        write_tiny_bundle(single_path)
    write_tiny_bundle(single_path, name="again", force=True)
    assert Bundle.open(single_path).manifest.name == "again"
    letter, folder, link = tmp_path / "letter.zip", tmp_path / "folder.zip", tmp_path / "link.zip"
    letter.write_text("dear")
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.png", b"")
    for path in (letter, folder, link, tmp_path / "photos.zip"):
        with pytest.raises(DataError, match="not one that qa-edge wrote, and is kept as it is"):
            write_tiny_bundle(path, force=True)
        with pytest.raises(DataError, match="not one that qa-edge wrote"):
            check_bundle_path(path, force=True)
    assert letter.read_text() == "dear" and link.is_symlink() and folder.is_dir()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_bundle_is_not_copied_onto_itself(single_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zip").symlink_to(single_path)
    for path in (single_path, tmp_path / "link.zip"):
        with pytest.raises(InputError, match="into itself"):
            copy_bundle(single_path, path, force=True)


def test_what_would_not_load_is_not_written(single_path: Path, tmp_path: Path) -> None:
    before = single_path.read_bytes()
    for path, force in ((single_path, True), (tmp_path / "new.zip", False)):
        with pytest.raises(BundleError):
            write_tiny_bundle(path, files={"cases.json": b"{}"}, force=force)
        with pytest.raises(BundleError):
            write_tiny_bundle(path, graphs=graph_specs(onnx=["int8"]), force=force)
    assert single_path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [single_path.name]


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_full_disk_leaves_the_old_file_alone(
    single_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = single_path.read_bytes()
    if failing == "write":
        monkeypatch.setattr("qa_edge_runtime.bundle.write_archive", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match="No space left on device"):
        write_tiny_bundle(single_path, force=True)
    assert single_path.read_bytes() == before
    assert [path.name for path in single_path.parent.iterdir()] == [single_path.name]


def test_what_is_no_bundle_is_said(tmp_path: Path, tiny_path: Path) -> None:
    assert "does not exist; expected a folder with a manifest.json or a single file NAME.qab.zip" in refusal(
        tmp_path / "none.qab.zip"
    )
    (tmp_path / "text.zip").write_text("text")
    assert "is a file, but no archive that can be read in place: it does not end as" in refusal(tmp_path / "text.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    assert "it is a pipe or a device" in refusal(tmp_path / "pipe.zip")
    shutil.make_archive(str(tmp_path / "small"), "zip", tiny_path)
    assert "is compressed; pack the bundle with qa-edge pack" in refusal(tmp_path / "small.zip")
    write_tiny_bundle(tmp_path / "whole.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in archive.namelist():
            if name != "table.npy":
                less.writestr(name, archive.read(name))
    assert "less.zip: table.npy is missing" in refusal(tmp_path / "less.zip")


def test_a_folder_of_links_is_read_as_hubs_keep_them(tiny_path: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.qab"
    linked.mkdir()
    for file in tiny_path.iterdir():
        (linked / file.name).symlink_to(file)
    assert Bundle.open(linked).manifest == Bundle.open(tiny_path).manifest
    (linked / "table.npy").unlink()
    (linked / "table.npy").symlink_to("/dev/zero")
    assert "table.npy is not a file" in refusal(linked)
    (linked / "table.npy").unlink()
    (linked / "table.npy").symlink_to(linked / "table.npy")
    assert "table.npy cannot be read" in refusal(linked)


def test_a_table_of_no_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"table\.npy is not a table"):
        write_tiny_bundle(tmp_path / "empty.zip", files={"table.npy": b""})
    with pytest.raises(BundleError, match=r"table\.npy is int8 \[0, 6\]"):
        write_tiny_bundle(tmp_path / "empty.zip", files={"table.npy": npy(np.empty((0, 6), np.int8))})
