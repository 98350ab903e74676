"""Where a bundle's files come from: a folder, or a single archive. Either way a file is a range of bytes of a file on
disk, and is read, hashed and mapped by the same code."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from qa_edge_runtime.archive import Extent, read_extents
from qa_edge_runtime.entries import MANIFEST_NAME
from qa_edge_runtime.errors import BundleError

_BLOCK_BYTES = 1 << 18
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size and SHA-256 of one file of a bundle."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise BundleError(f"a SHA-256 is 64 lower-case hexadecimal digits, found {self.sha256!r:.80}")
        if type(self.size_bytes) is not int or self.size_bytes < 0:
            raise BundleError(f"a file's size_bytes is a whole number, found {self.size_bytes!r:.80}")


class Stored(NamedTuple):
    """A file of a bundle, open: `size` bytes from `offset` on in the stream, CRC-32 None where nothing states one."""

    stream: BinaryIO
    offset: int
    size: int
    crc32: int | None = None


class Source(ABC):
    """The files of a bundle by name. Nothing is kept open: a file is opened for each use, in a forked child too.

    :ivar path: the folder or the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Stored]:
        """Open a file; a context manager.

        :raises BundleError: if there is none, or it is no file.
        :raises OSError: if it cannot be read.
        """

    def read(self, name: str, record: FileRecord | None = None, *, limit: int | None = None) -> bytes:
        """A file's bytes.

        :param record: what its size and SHA-256 must be.
        :param limit: bytes beyond which it is refused without being read.
        :raises BundleError: if it is missing, longer, cannot be read or is not as recorded.
        """
        with self._opened(name, record, limit) as stored:
            stored.stream.seek(stored.offset)
            content = stored.stream.read(stored.size)
            if len(content) != stored.size:
                raise self._changed(name, f"{stored.size} bytes were expected, {len(content)} found")
            if record is not None and hashlib.sha256(content).hexdigest() != record.sha256:
                raise self._changed(name, "its SHA-256 is another")
            if record is None and stored.crc32 not in (None, zlib.crc32(content)):
                raise self._changed(name, "its CRC-32 is another")
            return content

    def check(self, name: str, record: FileRecord, *, limit: int | None = None) -> None:
        """Refuse a file that is not as recorded; it is read in blocks.

        :raises BundleError: as `read`.
        """
        with self._opened(name, record, limit) as stored:
            self._check_hash(name, stored, record)

    def map(self, name: str, record: FileRecord | None = None) -> np.ndarray:
        """A file's bytes where they lie: mapped read-only, as an array of uint8 that holds the mapping.

        :raises BundleError: as `read`.
        """
        with self._opened(name, record) as stored:
            if record is not None:
                self._check_hash(name, stored, record)
            if not stored.size:  # of which no system makes a mapping
                return np.empty(0, dtype=np.uint8)
            inside = stored.offset % mmap.ALLOCATIONGRANULARITY
            mapped = mmap.mmap(
                stored.stream.fileno(), inside + stored.size, access=mmap.ACCESS_READ, offset=stored.offset - inside
            )
            return np.frombuffer(mapped, dtype=np.uint8, count=stored.size, offset=inside)

    @contextmanager
    def _opened(self, name: str, record: FileRecord | None, limit: int | None = None) -> Iterator[Stored]:
        try:
            with self.open(name) as stored:
                if limit is not None and stored.size > limit:
                    raise BundleError(
                        f"bundle {self.path}: {name} has more than {limit} bytes: it is not what its name says"
                    )
                if record is not None and stored.size != record.size_bytes:
                    raise BundleError(
                        f"bundle {self.path}: {name} has {stored.size} bytes instead of {record.size_bytes};"
                        " export or copy the bundle again"
                    )
                yield stored
        # A ValueError is mmap's, of a file that has become shorter.
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise BundleError(f"bundle {self.path}: {name} cannot be read: {reason}") from error

    def _check_hash(self, name: str, stored: Stored, record: FileRecord) -> None:
        digest, left, block = hashlib.sha256(), stored.size, memoryview(bytearray(min(_BLOCK_BYTES, stored.size)))
        stored.stream.seek(stored.offset)
        while left > 0 and (count := stored.stream.readinto(block[:left])):  # type: ignore[attr-defined]
            digest.update(block[:count])
            left -= count
        if left or digest.hexdigest() != record.sha256:
            raise self._changed(name, "its SHA-256 is another")

    def _changed(self, name: str, what: str) -> BundleError:
        return BundleError(
            f"bundle {self.path}: {name} has changed since it was exported ({what}); export or copy the bundle again"
        )


class FolderSource(Source):
    """Files of a folder. Links are followed, of which model hubs make their caches; what they lead to is hashed too."""

    @contextmanager
    def open(self, name: str) -> Iterator[Stored]:
        """Open a file of the folder."""
        try:
            stream = open_regular(self.path / name)
        except FileNotFoundError:
            raise BundleError(f"bundle {self.path}: {name} is missing; export or copy the bundle again") from None
        if stream is None:
            raise BundleError(f"bundle {self.path}: {name} is not a file; export or copy the bundle again")
        with stream:
            yield Stored(stream, 0, os.fstat(stream.fileno()).st_size)


class ArchiveSource(Source):
    """Files of a single archive, in which they lie stored.

    :raises BundleError: if it is no archive, or cannot be read in place.
    :raises OSError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            stream = open_regular(path)
            if stream is None:
                raise BundleError("it is a pipe or a device")
            with stream:
                self._extents: Mapping[str, Extent] = read_extents(stream, os.fstat(stream.fileno()).st_size)
        except BundleError as error:
            raise BundleError(f"bundle {path} is a file, but no archive that can be read in place: {error}") from error

    @contextmanager
    def open(self, name: str) -> Iterator[Stored]:
        """Open the archive at a file."""
        extent = self._extents.get(name)
        if extent is None:
            raise BundleError(f"bundle {self.path}: {name} is missing; export or copy the bundle again")
        stream = open_regular(self.path)
        if stream is None:
            raise BundleError(f"bundle {self.path} is no file any more; export or copy it again")
        with stream:
            yield Stored(stream, *extent)


def open_source(path: Path) -> Source:
    """The files of a bundle that is a folder or an archive.

    :raises BundleError: if it is neither, or an archive that cannot be read in place.
    """
    try:
        return FolderSource(path) if path.is_dir() else ArchiveSource(path)
    except FileNotFoundError:
        raise BundleError(
            f"bundle {path} does not exist; expected a folder with a {MANIFEST_NAME} or a single file NAME.qab.zip:"
            " check the path"
        ) from None
    except OSError as error:
        raise BundleError(f"bundle {path} cannot be read: {error.strerror or error}") from error


def holds_bundle(path: Path) -> bool:
    """Whether a path is an archive that a bundle can be read from in place; its files may be damaged."""
    try:
        return isinstance(open_source(path), ArchiveSource)
    except BundleError:
        return False


def open_regular(path: Path) -> BinaryIO | None:
    """A file, open to be read; None if it is something else. A pipe is not waited for.

    :raises OSError: if it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
