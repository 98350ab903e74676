"""A bundle as a single file: a zip archive whose entries are stored, not compressed, so that they are read in place.

Only what a bundle needs of the format is read, and only in one meaning: the archive ends with its end record (no
comment), the directory lies right before it, entries do not overlap, and what an entry's own header says agrees with
the directory. The format is that of PKWARE's APPNOTE 6.3; `zip -0` and every zip library write and read such archives.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from qa_edge_runtime.entries import MANIFEST_NAME, check_plain_name
from qa_edge_runtime.errors import BundleError

SUFFIX = ".zip"
# Of an entry's data: so that arrays lie as a processor likes to read them, and a .npy file's own padding still counts.
ALIGNMENT = 64
# A bundle has some ten files.
MAX_ENTRIES = 1_000
MAX_DIRECTORY_BYTES = 1 << 20
MAX_ARCHIVE_BYTES = (1 << 32) - 2

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_ZIP64_MARK = b"PK\x06\x07"
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_STORED = 0
# Bits of an entry's flags: encrypted, sizes behind the data, encrypted strongly, header masked.
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_BEHIND = 1 << 3
_UNIX = 3
# The field with which Android's zipalign pads: an alignment in 16 bits, then zeros.
_PADDING_FIELD = 0xD935
_MADE_BY = _UNIX << 8 | 20
_NEEDS = 10
# 1 January 1980, the first day that the format knows: the same files make the same archive.
_DATE = 1 << 5 | 1
_MODE = (stat.S_IFREG | 0o644) << 16


class Extent(NamedTuple):
    """Where a file's bytes lie in an archive: `size` bytes from `offset` on, whose CRC-32 is `crc32`."""

    offset: int
    size: int
    crc32: int


class _Entry(NamedTuple):
    name: str
    flags: int
    crc32: int
    size: int
    header: int


def read_extents(stream: BinaryIO, size: int) -> dict[str, Extent]:
    """Where the files of an archive lie, by name; those in a single top folder are named without it.

    :param stream: can be read at any place.
    :param size: bytes of the archive.
    :raises BundleError: if it is no archive, or one that cannot be read in place; what is wrong, without the path.
    :raises OSError: if it cannot be read.
    """
    start, entries = _read_directory(stream, size)
    files = [entry for entry in entries if not entry.name.endswith("/")]
    top = _top_folder([entry.name for entry in files])
    for entry in entries:
        if entry.name != top:
            _check_name(entry.name[len(top) :] if entry.name.startswith(top) else entry.name)
    extents: dict[str, Extent] = {}
    files.sort(key=lambda entry: entry.header)
    borders = [*(entry.header for entry in files), start]
    for entry, following in zip(files, borders[1:], strict=True):
        name = entry.name[len(top) :]
        if name in extents:
            raise BundleError(f"{name} is there twice; pack the bundle again")
        extents[name] = _read_extent(stream, entry, following)
    if MANIFEST_NAME not in extents:
        raise BundleError(f"it holds no {MANIFEST_NAME}; expected the files of a bundle, packed with qa-edge pack")
    return extents


def write_archive(stream: BinaryIO, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files as an archive that `read_extents` reads; the same files give the same bytes.

    :param stream: at its beginning.
    :param files: names and contents, in the order in which they will lie.
    :raises BundleError: if they are beyond what the format holds, 4 GiB.
    :raises OSError: if the stream cannot be written.
    """
    offset, directory, count = 0, bytearray(), 0
    for name, content in files:
        raw = name.encode("ascii")
        padding = _padding(offset + _LOCAL.size + len(raw))
        header = (_NEEDS, 0, _STORED, 0, _DATE, zlib.crc32(content), len(content), len(content), len(raw))
        end = offset + _LOCAL.size + len(raw) + len(padding) + len(content)
        if end > MAX_ARCHIVE_BYTES:
            raise BundleError(f"a single file holds {MAX_ARCHIVE_BYTES} bytes at most; write the bundle as a folder")
        for part in (_LOCAL.pack(_LOCAL_MARK, *header, len(padding)), raw, padding, content):
            stream.write(part)
        directory += _CENTRAL.pack(_CENTRAL_MARK, _MADE_BY, *header, 0, 0, 0, 0, _MODE, offset) + raw
        offset, count = end, count + 1
    stream.write(directory)
    stream.write(_END.pack(_END_MARK, 0, 0, count, count, len(directory), offset, 0))


def _padding(offset: int) -> bytes:
    """An extra field behind which the data lie at a multiple of the alignment; none if they do so anyway."""
    size = -offset % ALIGNMENT
    if not size:
        return b""
    size += ALIGNMENT if size < 6 else 0
    return struct.pack("<3H", _PADDING_FIELD, size - 4, ALIGNMENT) + bytes(size - 6)


def _read_directory(stream: BinaryIO, size: int) -> tuple[int, list[_Entry]]:
    """Where the directory begins, and its entries."""
    tail = _read(stream, max(0, size - _END.size - 20), min(size, _END.size + 20))
    record = tail[-_END.size :]
    if len(record) < _END.size or record[:4] != _END_MARK:
        raise BundleError("it does not end as a zip archive without a comment does; it was cut, or is something else")
    _, disk, directory_disk, here, count, length, start, comment = _END.unpack(record)
    if tail[:4] == _ZIP64_MARK or _FULL16 in (count, here) or _FULL32 in (length, start):
        raise BundleError("it is a zip64 archive; expected one below 4 GiB: pack the bundle with qa-edge pack")
    if disk or directory_disk or here != count or comment or start + length != size - _END.size:
        raise BundleError("its directory does not lie where its end says; it was cut or changed: pack it again")
    if count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise BundleError(f"it holds {count} files; expected {MAX_ENTRIES} at most")
    raw, place, entries = _read(stream, start, length), 0, []
    for _ in range(count):
        if len(raw) - place < _CENTRAL.size or raw[place : place + 4] != _CENTRAL_MARK:
            raise BundleError("its directory is damaged; pack the bundle again")
        fields = _CENTRAL.unpack_from(raw, place)
        _, made_by, _, flags, method, _, _, crc32, packed, unpacked = fields[:10]
        name_length, extra_length, comment_length, disk, _, attributes, header = fields[10:]
        name_end = place + _CENTRAL.size + name_length
        name = raw[place + _CENTRAL.size : name_end].decode("ascii", "backslashreplace")
        place = name_end + extra_length + comment_length
        _check_kind(name, flags, method, attributes >> 16 if made_by >> 8 == _UNIX else 0)
        if _FULL32 in (packed, unpacked, header) or disk:
            raise BundleError(
                f"{name!r:.120} has a zip64 entry; expected a file below 4 GiB: pack it with qa-edge pack"
            )
        if packed != unpacked or (name.endswith("/") and unpacked):
            raise BundleError(f"{name!r:.120} is stored with {packed} bytes, but is said to have {unpacked}")
        entries.append(_Entry(name=name, flags=flags, crc32=crc32, size=unpacked, header=header))
    if place != length:
        raise BundleError("its directory is damaged; pack the bundle again")
    return start, entries


def _check_kind(name: str, flags: int, method: int, mode: int) -> None:
    """Refuse what cannot be read in place."""
    if flags & _ENCRYPTED:
        raise BundleError(f"{name!r:.120} is encrypted; pack the bundle with qa-edge pack, or zip -0")
    if method != _STORED:
        raise BundleError(f"{name!r:.120} is compressed; pack the bundle with qa-edge pack, or zip -0, which stores")
    expected = stat.S_ISDIR if name.endswith("/") else stat.S_ISREG
    if stat.S_IFMT(mode) and not expected(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a file"
        raise BundleError(f"{name!r:.120} is {kind}; pack the bundle with qa-edge pack")


def _check_name(name: str) -> None:
    if name != MANIFEST_NAME:
        check_plain_name(name)


def _top_folder(names: list[str]) -> str:
    """The folder, with its slash, that all files lie in; nothing where they lie at the top."""
    if not names or MANIFEST_NAME in names:
        return ""
    top, slash, _ = names[0].partition("/")
    folder = top + slash
    if not slash or not all(name.startswith(folder) for name in names):
        return ""
    check_plain_name(top)
    return folder


def _read_extent(stream: BinaryIO, entry: _Entry, following: int) -> Extent:
    """Where an entry's data lie, if its own header agrees with the directory.

    :param following: where the next entry, or the directory, begins.
    """
    header = _read(stream, entry.header, _LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != _LOCAL_MARK:
        raise BundleError(f"{entry.name!r:.120} does not lie where the directory says; pack the bundle again")
    _, _, flags, method, _, _, crc32, packed, unpacked, name_length, extra_length = _LOCAL.unpack(header)
    name = _read(stream, entry.header + _LOCAL.size, name_length).decode("ascii", "backslashreplace")
    _check_kind(entry.name, flags, method, 0)
    declared, stated = (entry.crc32, entry.size, entry.size), (crc32, packed, unpacked)
    agrees = stated == declared or (flags & _SIZES_BEHIND and stated == (0, 0, 0))
    if name != entry.name or not agrees:
        raise BundleError(f"{entry.name!r:.120} is another file than the directory says; pack the bundle again")
    offset = entry.header + _LOCAL.size + name_length + extra_length
    if offset + entry.size > following:
        raise BundleError(f"{entry.name!r:.120} reaches into what lies behind it; it was cut or changed: pack it again")
    return Extent(offset, entry.size, entry.crc32)


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)
