"""The single file's layout, beside what others' zip programs write and read."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge_runtime.archive import ALIGNMENT, MAX_ENTRIES, read_extents, write_archive
from qa_edge_runtime.errors import BundleError

FILES = {"manifest.json": b"{}", "table.npy": bytes(range(256)) * 9, "empty.bin": b"", "a.b-c_D9": b"x" * 63}
NAMES = st.text("aB7._-", min_size=1, max_size=90).map(lambda name: f"n{name}")


def packed(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, files.items())
    return stream.getvalue()


def unpacked(raw: bytes) -> dict[str, bytes]:
    extents = read_extents(io.BytesIO(raw), len(raw))
    return {name: raw[offset : offset + size] for name, (offset, size, _) in extents.items()}


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_STORED, stream: io.BytesIO | None = None) -> bytes:
    stream = stream or io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def refusal(raw: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        unpacked(raw)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=6))
@settings(deadline=None)
def test_another_program_reads_what_was_packed(files: dict[str, bytes]) -> None:
    files = {"manifest.json": b"{}", **files}
    raw = packed(files)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert unpacked(raw) == files
    for extent in read_extents(io.BytesIO(raw), len(raw)).values():
        assert extent.offset % ALIGNMENT == 0


def test_the_same_files_make_the_same_bytes() -> None:
    assert packed(FILES) == packed(FILES)


class Pipe(io.BytesIO):
    """A stream that cannot go back, so that sizes are written behind the data."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("not seekable")

    def tell(self) -> int:
        raise OSError("not seekable")


@pytest.mark.parametrize("top", ["", "first.qab/"])
def test_archives_of_other_programs_are_read(top: str) -> None:
    files = {top + name: content for name, content in FILES.items()}
    assert unpacked(zipped(files)) == FILES
    assert unpacked(zipped({top: b"", **files} if top else files)) == FILES
    assert unpacked(zipped(files, stream=Pipe())) == FILES


@pytest.mark.skipif(shutil.which("zip") is None, reason="no zip program here")
@pytest.mark.parametrize("names", [["-j", "first.qab"], ["first.qab"]])
def test_what_zip_stores_is_read(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "first.qab").mkdir()
    for name, content in FILES.items():
        (tmp_path / "first.qab" / name).write_bytes(content)
    subprocess.run(["zip", "-0", "-q", "-r", "first.zip", *names], cwd=tmp_path, check=True)
    assert unpacked((tmp_path / "first.zip").read_bytes()) == FILES
    subprocess.run(["zip", "-6", "-q", "-r", "small.zip", *names], cwd=tmp_path, check=True)
    assert "is compressed; pack the bundle with qa-edge pack, or zip -0" in refusal(
        (tmp_path / "small.zip").read_bytes()
    )


def entry(name: str, content: bytes = b"x", **fields: int) -> bytes:
    """An archive of a manifest and one entry that is described by hand."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("manifest.json", b"{}")
        info = zipfile.ZipInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, content)
    return stream.getvalue()


def twice() -> bytes:
    # Of the same length, since zipfile warns of names that are there twice.
    return zipped({"manifest.json": b"{}", "one": b"1", "two": b"2"}).replace(b"two", b"one")


def patched(mark: bytes, offset: int, form: str, value: int, *, last: bool = True) -> bytes:
    """A whole archive with one field of its last (or first) record of a kind replaced."""
    raw = bytearray(packed(FILES))
    struct.pack_into(form, raw, (raw.rfind(mark) if last else raw.find(mark)) + offset, value)
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "does not end as a zip archive"),
        (b"text", "does not end as a zip archive"),
        (packed(FILES)[:-1], "does not end as a zip archive"),
        (packed(FILES) + b"\0", "does not end as a zip archive"),
        (packed(FILES)[1:], "directory does not lie where its end says"),
        (b"#!run\n" + packed(FILES), "directory does not lie where its end says"),
        (zipped({"table.npy": b""}), "holds no manifest.json"),
        (zipped({}), "holds no manifest.json"),
        (zipped(FILES, method=zipfile.ZIP_DEFLATED), "'manifest.json' is compressed"),
        (zipped(FILES, method=zipfile.ZIP_LZMA), "is compressed"),
        (entry("../table.npy"), "'../table.npy' is not a plain file name inside the bundle"),
        (entry("/etc/passwd"), "'/etc/passwd' is not a plain file name"),
        (entry("C:table.npy"), "'C:table.npy' is not a plain file name"),
        (entry("a\\b"), "is not a plain file name"),
        (entry("folder/table.npy"), "'folder/table.npy' is not a plain file name"),
        (entry("folder/", b""), "'folder/' is not a plain file name"),
        (entry("\u00fcber"), "is not a plain file name"),
        (zipped({"a/manifest.json": b"{}", "b/table.npy": b""}), "is not a plain file name"),
        (zipped({"../manifest.json": b"{}"}), "'..' is not a plain file name"),
        (zipped({"a/b/manifest.json": b"{}"}), "'b/manifest.json' is not a plain file name"),
        (twice(), "one is there twice"),
        (zipped({"manifest.json": b"{}", **{f"n{n}": b"" for n in range(MAX_ENTRIES)}}), "holds 1001 files"),
        (entry("link", external_attr=(stat.S_IFLNK | 0o777) << 16), "'link' is a link"),
        (entry("pipe", external_attr=(stat.S_IFIFO | 0o600) << 16), "'pipe' is not a file"),
        (patched(b"PK\1\2", 8, "<H", 1), "is encrypted"),
        (patched(b"PK\3\4", 6, "<H", 1), "is encrypted"),
        (patched(b"PK\1\2", 20, "<I", 0xFFFFFFFF), "zip64"),
        (patched(b"PK\1\2", 42, "<I", 0xFFFFFFFF), "zip64"),
        (patched(b"PK\5\6", 10, "<H", 0xFFFF), "zip64 archive"),
        (patched(b"PK\5\6", 16, "<I", 0xFFFFFFFF), "zip64 archive"),
        (patched(b"PK\5\6", 4, "<H", 1), "directory does not lie"),
        (patched(b"PK\5\6", 16, "<I", 7), "directory does not lie"),
        (patched(b"PK\5\6", 8, "<H", 3), "directory does not lie"),
        (patched(b"PK\1\2", 0, "<I", 0), "directory is damaged"),
        (patched(b"PK\1\2", 28, "<H", 0xFFFF), "directory is damaged"),
        (patched(b"PK\1\2", 24, "<I", 7), "is stored with 63 bytes, but is said to have 7"),
        (patched(b"PK\1\2", 42, "<I", 0), "'manifest.json' reaches into what lies behind it"),
        (patched(b"PK\1\2", 42, "<I", 7), "'manifest.json' reaches into what lies behind it"),
        (patched(b"PK\1\2", 42, "<I", 0xFFFFFFF0), "does not lie where the directory says"),
        (patched(b"PK\3\4", 26, "<H", 1), "is another file than the directory says"),
        (patched(b"PK\3\4", 14, "<I", 1), "is another file than the directory says"),
        (patched(b"PK\3\4", 28, "<H", 0xFFFF), "reaches into what lies behind it"),
        (patched(b"PK\3\4", 28, "<H", 0xFFFF, last=False), "reaches into what lies behind it"),
    ],
)
def test_what_cannot_be_read_in_place(raw: bytes, part: str) -> None:
    assert part in refusal(raw)


@pytest.mark.parametrize("change", [lambda raw, at: raw[:at], lambda raw, at: raw[:at] + raw[at + 1 :]])
def test_an_archive_that_lost_bytes_is_refused_or_reads_the_same(change: Callable[[bytes, int], bytes]) -> None:
    raw = packed(FILES)
    for at in range(len(raw)):
        refusal(change(raw, at))


def test_a_flipped_bit_is_refused_or_reads_as_it_was_but_for_the_data() -> None:
    raw = packed(FILES)
    for at in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[at // 8] ^= 1 << at % 8
        try:
            found = unpacked(bytes(damaged))
        except BundleError:
            continue
        # A name of its own that the flip made is no entry of a manifest; else sizes and places are what they were.
        assert [len(content) for content in found.values()] == [len(content) for content in FILES.values()]


def test_more_than_four_gigabytes_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qa_edge_runtime.archive.MAX_ARCHIVE_BYTES", 1_000)
    with pytest.raises(BundleError, match="write the bundle as a folder"):
        packed(FILES)
