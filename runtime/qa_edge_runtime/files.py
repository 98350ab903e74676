"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qa_edge_runtime.errors import DataError, InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a system that has no room for a file."""


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks of 1 MiB.

    :raises OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_other_file(path: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuse to write over what was read.

    :param inputs: files and folders.
    :raises InputError: if `path` is one of the inputs, by whatever name, or a file in one.
    """
    target = Path(os.path.realpath(path))
    for one in inputs:
        source = Path(os.path.realpath(one))
        if target == source or (source in target.parents and target.exists()):
            raise InputError(f"{path} is what was read, which is never changed; name another file")


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: an argument that the terminal gave in other bytes cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def decode_text(raw: bytes) -> str:
    """The characters of a text in UTF-8, with or without a mark at its beginning.

    :raises UnicodeDecodeError: if it is none; NUL characters are those of UTF-16 or of no text.
    """
    text = raw.decode("utf-8-sig")
    place = raw.find(b"\0")
    if place >= 0:
        raise UnicodeDecodeError("utf-8", raw, place, place + 1, "a NUL character, as UTF-16 and binary files have")
    return text


def check_output_file(path: str | os.PathLike[str]) -> None:
    """Refuse, before the work, a path that no file could be written to.

    :raises DataError: if it is a folder, or its folder is not there or cannot be written.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise DataError(f"cannot write {target}: it is a folder; name a file")
    if not folder.is_dir():
        raise DataError(f"cannot write {target}: {folder} is not a folder; make it, or name another path")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise DataError(f"cannot write {target}: permission denied; name another path")


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    A link stays a link. What is no file, such as /dev/null or a pipe, is written to: a rename would take its place.

    :param data: bytes, or text that is written as UTF-8.
    :raises DataError: if the disk is full, the folder cannot be written, or the text holds half of a surrogate pair;
        nothing is left behind.
    """
    given, temporary = Path(path), None
    try:
        content = data.encode("utf-8") if isinstance(data, str) else data
        if given.is_dir():
            raise DataError(f"cannot write {given}: it is a folder; name a file")
        if given.exists() and not given.is_file():
            given.write_bytes(content)
            return
        target = Path(os.path.realpath(given)) if given.is_symlink() else given
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(target)
    except UnicodeEncodeError as error:
        what = f"the text holds half of a surrogate pair at character {error.start}; expected Unicode text"
        raise DataError(f"cannot write {given}: {what}") from error
    except OSError as error:
        raise DataError(_unwritten(given, error)) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError) -> str:
    room = "free some space or " if error.errno in NO_ROOM else ""
    return f"cannot write {path}: {error.strerror or error}; {room}name another path"


def check_replaceable(path: str | os.PathLike[str], *, force: bool, marker: str = "manifest.json") -> None:
    """Refuse to write over what exists, unless it may be replaced and is such a folder, or an empty one.

    :param marker: the file that every such folder holds; a manifest.json has to say its format.
    :raises DataError: if `path` exists and `force` is false, or it is something else.
    """
    target = Path(path)
    if not (target.exists() or target.is_symlink()):
        return
    if not force:
        raise DataError(f"{target} exists already; name another path, or pass --force to replace it")
    try:
        ours = target.is_dir() and (_is_mark(target / marker) or not any(target.iterdir()))
    except OSError as error:
        raise DataError(f"{target} cannot be read: {error.strerror or error}; name another path") from error
    if not ours:
        kind = f"a folder without a {marker} of qa-edge" if target.is_dir() else "not a folder"
        raise DataError(f"{target} is {kind}, not one that qa-edge wrote, and is kept as it is; name another path")


def _is_mark(marker: Path) -> bool:
    """Whether a file is one that qa-edge marks its folders with. Other programs have a manifest.json too."""
    if not marker.is_file() or marker.name != "manifest.json":
        return marker.is_file()
    try:
        found = read_json(marker, "manifest")
    except DataError:
        return False
    return isinstance(found, dict) and type(found.get("format_version")) is int


def check_replaceable_file(path: str | os.PathLike[str], *, force: bool, ours: Callable[[Path], bool]) -> None:
    """Refuse to write over what exists, unless it may be replaced and is such a file.

    :param ours: whether a path is such a file.
    :raises DataError: if `path` exists and `force` is false, or it is something else.
    """
    target = Path(path)
    if not (target.exists() or target.is_symlink()):
        return
    if not force:
        raise DataError(f"{target} exists already; name another path, or pass --force to replace it")
    if not ours(target):
        raise DataError(f"{target} is not one that qa-edge wrote, and is kept as it is; name another path")


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the path of an empty temporary file that becomes `path` when the block ends without an error.

    :param force: replace a file that is `ours`.
    :raises DataError: if `path` exists and may not be replaced, or it cannot be written; nothing is left behind.
    """
    target = Path(path)
    check_replaceable_file(target, force=force, ours=ours)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
    except OSError as error:
        raise DataError(f"cannot write beside {target}: {error.strerror or error}; name another path") from error
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        yield temporary
        _flush(temporary)
        # Once more: another process may have written there meanwhile.
        check_replaceable_file(target, force=force, ours=ours)
        temporary.replace(target)
        _flush(target.parent)
    except OSError as error:
        raise DataError(_unwritten(target, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], *, force: bool = False, marker: str = "manifest.json"
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    What stood there is moved aside and deleted only when the new folder has its name.

    :param force: replace a folder that holds the file `marker`, as `check_replaceable` has it, or an empty one.
    :raises DataError: if `path` exists and may not be replaced, or it cannot be written; nothing is left behind.
    """
    target = Path(path)
    check_replaceable(target, force=force, marker=marker)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise DataError(f"cannot write beside {target}: {error.strerror or error}; name another path") from error
    try:
        yield temporary
        _flush(*temporary.rglob("*"), temporary)
        # Once more: another process may have written there meanwhile.
        check_replaceable(target, force=force, marker=marker)
        _take_place(temporary, target)
    except OSError as error:
        raise DataError(_unwritten(target, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, target: Path) -> None:
    """Give a folder its name, then delete the one that had it; the old one comes back if that fails."""
    if not (target.exists() or target.is_symlink()):
        temporary.replace(target)
        return
    aside = temporary.with_suffix(".old.tmp")
    target.replace(aside)
    try:
        temporary.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    if aside.is_symlink():
        aside.unlink()
    else:
        shutil.rmtree(aside, ignore_errors=True)


def _flush(*paths: Path) -> None:
    """Have the disk hold files and folders before a name leads to them, so that a power cut leaves old or new."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Parse a JSON file. See `read_hashed_json`.

    :raises DataError: if it is missing, empty, not UTF-8, not JSON or nested beyond reason.
    """
    return read_hashed_json(path, what)[0]


def read_hashed_json(path: str | os.PathLike[str], what: str) -> tuple[Any, str]:
    """Parse a JSON file, and give the SHA-256 of what was parsed; it is read once, so that a pipe will do.

    :param what: the noun that messages use for it, such as "SQuAD file".
    :raises DataError: if it is missing, empty, not UTF-8, not JSON or nested beyond reason.
    """
    source = Path(path)
    try:
        raw = source.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{what} {source} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{what} {source} cannot be read: {error.strerror or error}") from error
    if not raw.strip():
        raise DataError(f"{what} {source} is empty; expected JSON")
    try:
        return json.loads(raw), hashlib.sha256(raw).hexdigest()
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{what} {source} is not JSON in UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{what} {source} is not JSON: {error.msg} at {place}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{what} {source} holds a value that cannot be read: {error}") from error
