"""Word vectors in text form (GloVe, and word2vec's or fastText's text with a header), plain, .gz or .zip.

One pass, one block of the file in memory at a time; only the numbers of wanted words are parsed and kept.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zipfile
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from qa_edge.progress import progress
from qa_edge_runtime.errors import DataError, InputError

_MIB = 1 << 20
_BLOCK_BYTES = _MIB
_LINE_LIMIT_BYTES = 1 << 20
"""A longer line is no line of vectors: 100,000 numbers of 10 characters. It bounds memory on a file without lines."""

_NUMBER = re.compile(rb"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|nan|inf)")
"""A number as C's printf writes it, nan and inf too, so that they are refused as values and not taken for words."""
_NUMBER_BYTES = b"0123456789.+-eE nafi"


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Vectors of the wanted words that a file holds.

    :param words: the words found, in file order (GloVe's is by frequency), each once.
    :param array: their vectors, float32, shape (len(words), dim); all finite.
    :param dim: length of a vector; known even if no word was found.
    :param lines: vectors in the file, wanted or not.
    """

    words: tuple[str, ...]
    array: NDArray[np.float32]
    dim: int
    lines: int

    def without(self, words: Collection[str]) -> Vectors:
        """The same file, without some of its words."""
        left_out = frozenset(words)
        kept = [number for number, word in enumerate(self.words) if word not in left_out]
        array = self.array[np.asarray(kept, np.int64)]
        return Vectors(words=tuple(self.words[number] for number in kept), array=array, dim=self.dim, lines=self.lines)


def read_vectors(path: str | os.PathLike[str], wanted: Collection[str], dim: int | None = None) -> Vectors:
    """Read the vectors of the wanted words in one pass over the file.

    A line is a word and `dim` numbers, with single spaces (or tabs) between. The word may hold spaces, as in some
    lines of GloVe 840B: the numbers are the last `dim` fields. A first line of two whole numbers ("count dim", as
    word2vec and fastText write) is skipped. If a word occurs twice, its first vector counts. Whether a file is gzip or
    zip is told by its first bytes, not by its name. The numbers of words that are not wanted are counted, not parsed.

    :param wanted: words to keep, compared character by character, case included.
    :param dim: numbers a line must have; None takes it from the first line.
    :raises InputError: if `dim` is below 1.
    :raises DataError: if the file is missing, empty, cut, not UTF-8, of another dimension, or has a broken line or a
        number that is not finite; the message names the line, counted from 1.
    """
    if dim is not None and dim < 1:
        raise InputError(f"vectors of {dim} numbers were asked for; the dimension must be 1 or more")
    source = Path(path)
    parser = _Parser(source, frozenset(wanted), dim)
    try:
        with _open(source) as (raw, stream), _read_progress(raw) as on_block:
            for line in _lines(stream, source, on_block):
                parser.feed(line)
    except FileNotFoundError:
        raise DataError(f"vector file {source} does not exist; check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"vector file {source} is cut or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"vector file {source} cannot be read: {error.strerror or error}") from error
    return parser.finish()


class _Parser:
    """Takes the file's lines one by one and keeps the wanted vectors."""

    def __init__(self, source: Path, wanted: frozenset[str], dim: int | None) -> None:
        self.source = source
        self.wanted = wanted
        self.dim = dim
        self.number = 0  # of the line at hand, from 1
        self.lines = 0
        self.announced: int | None = None
        self.blank: int | None = None
        self.found: dict[str, int] = {}  # word -> number of its line
        # Grows with the words found, not with those wanted, and holds a float in four bytes.
        self.values = array("f")

    def feed(self, line: bytes) -> None:
        """Take the next line, without its line feed."""
        self.number += 1
        line = line.rstrip(b" \t\r")
        if not line:
            # Allowed at the end of the file alone.
            self.blank = self.blank or self.number
            return
        if self.blank:
            raise DataError(f"vector file {self.source}: line {self.blank} is blank; expected a word and its numbers")
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf") if line[3:4] != b" " else line
            if self.header(line):
                return
        if b"\t" in line and (self.dim is None or line.count(b" ") < self.dim):
            line = line.replace(b"\t", b" ")
        if self.dim is None:
            self.dim = _trailing_numbers(line)
            if not self.dim:
                raise self.broken("it does not end in a number")
        if line.count(b" ") == self.dim:
            head, _, rest = line.partition(b" ")
        else:
            head, rest = self.split(line)
        try:
            word = head.decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken(f"its word {head[:40]!r} is not UTF-8") from None
        if not word:
            raise self.broken("it has no word before its numbers")
        self.lines += 1
        if word in self.wanted and word not in self.found:
            self.keep(word, rest)

    def header(self, line: bytes) -> bool:
        """Tell whether the first line is "count dim", and take its two numbers."""
        fields = line.split()
        if len(fields) != 2 or not all(field.isdigit() for field in fields):
            return False
        count, dim = int(fields[0]), int(fields[1])
        if self.dim == 1 and dim != 1:
            return False  # a word that is a number, and its only value
        if self.dim is not None and dim != self.dim:
            raise DataError(f"vector file {self.source} has {dim} numbers a word (line 1); expected {self.dim}")
        if dim < 1:
            raise DataError(f"vector file {self.source}: line 1 announces vectors of 0 numbers; expected 1 or more")
        self.announced, self.dim = count, dim
        return True

    def split(self, line: bytes) -> tuple[bytes, bytes]:
        """Split a line whose number of spaces is not `dim`: its word holds spaces, or it is broken."""
        dim = self.dim or 0
        fields = line.split(b" ")
        head = fields[:-dim]
        if len(head) < 2 or not head[-1] or _NUMBER.fullmatch(head[-1]):
            raise self.broken(f"it ends in {_trailing_numbers(line)} numbers")
        return b" ".join(head), b" ".join(fields[-dim:])

    def keep(self, word: str, rest: bytes) -> None:
        """Parse the numbers of a wanted word."""
        fields = rest.split(b" ")
        try:
            # float() also takes 1_000 and infinity, which no vector file means.
            if rest.translate(None, _NUMBER_BYTES):
                raise ValueError
            self.values.extend(map(float, fields))
        except ValueError:
            wrong = next(field for field in fields if not _NUMBER.fullmatch(field))
            raise self.broken(f"{wrong[:40].decode('utf-8', 'replace')!r} is not a number") from None
        self.found[word] = self.number

    def broken(self, what: str) -> DataError:
        """Name the line at hand."""
        expected = f"a word and {self.dim} numbers" if self.dim else "a word and its numbers"
        return DataError(f"vector file {self.source}: line {self.number} is broken: {what}; expected {expected}")

    def finish(self) -> Vectors:
        """Check what only the whole file shows."""
        if not self.lines or self.dim is None:
            raise DataError(f"vector file {self.source} is empty; expected a word and its numbers on each line")
        if self.announced is not None and self.announced != self.lines:
            raise DataError(
                f"vector file {self.source} announces {self.announced} words in line 1 and has {self.lines}; "
                "fetch it again, or remove that line if it was shortened on purpose"
            )
        table = np.frombuffer(self.values, dtype=np.float32).reshape(len(self.found), self.dim)
        # Here and not line by line: one call for all, and a number beyond float32 has become inf by now.
        infinite = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if infinite.size:
            word, line = list(self.found.items())[infinite[0]]
            raise DataError(
                f"vector file {self.source}: line {line} ({word!r}) has a number that is NaN or beyond float32; "
                "expected finite numbers"
            )
        return Vectors(words=tuple(self.found), array=table, dim=self.dim, lines=self.lines)


def _trailing_numbers(line: bytes) -> int:
    """Count the numbers at the end of a line, the first field apart, which is the word."""
    count = 0
    for field in reversed(line.split(b" ")[1:]):
        if not _NUMBER.fullmatch(field):
            break
        count += 1
    return count


@contextmanager
def _read_progress(raw: IO[bytes]) -> Iterator[Callable[[], None]]:
    """Show how many MiB of a file as it is on disk are read; yield a function to call now and then."""
    total = -(-os.fstat(raw.fileno()).st_size // _MIB)  # 0 of a pipe, which tells no place either
    done = 0
    with progress("vectors, MiB", total) as advance:

        def on_block() -> None:
            nonlocal done
            place = raw.tell() // _MIB if total else 0
            advance(place - done)
            done = place

        yield on_block
        advance(total - done)


def _lines(stream: IO[bytes], source: Path, on_block: Callable[[], None]) -> Iterator[bytes]:
    """Yield lines without their line feed; str.splitlines would split words that hold U+0085 or U+2028."""
    rest, number = b"", 0
    while block := stream.read(_BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        number += len(lines)
        on_block()
        yield from lines
        if len(rest) > _LINE_LIMIT_BYTES:
            raise DataError(
                f"vector file {source}: line {number + 1} is longer than {_LINE_LIMIT_BYTES:,} bytes; "
                "expected text with a word and its numbers on each line"
            )
    if rest:
        yield rest


@contextmanager
def _open(source: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file as it is, and its text, unpacked."""
    with source.open("rb") as raw:
        # peek, not read and seek: the path may be a pipe.
        magic = raw.peek(4)[:4]
        if magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield raw, unpacked  # type: ignore[misc]
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            with ExitStack() as stack:
                try:
                    archive = stack.enter_context(zipfile.ZipFile(raw))
                    member = stack.enter_context(archive.open(_member(archive, source)))
                except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
                    raise DataError(f"vector file {source} cannot be unpacked ({error}); unpack it first") from error
                except (struct.error, UnicodeDecodeError) as error:
                    raise zipfile.BadZipFile(str(error)) from error
                yield raw, member
        else:
            yield raw, raw


def _member(archive: zipfile.ZipFile, source: Path) -> zipfile.ZipInfo:
    """Choose the member of a zip that holds the vectors: its only one, or its only .txt."""
    # Not is_dir(): it fails on a damaged archive's empty name.
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    members = [member for member in members if not member.filename.startswith("__MACOSX/")]
    texts = [member for member in members if member.filename.lower().endswith(".txt")]
    for choice in (members, texts):
        if len(choice) == 1:
            return choice[0]
    names = ", ".join(member.filename for member in (texts or members)[:6]) or "none"
    raise DataError(f"vector file {source} has {len(members)} members ({names}); unpack it and name the one to read")
