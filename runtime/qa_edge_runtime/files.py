"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qa_edge_runtime.errors import DataError


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks of 1 MiB.

    :raises OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    :param data: bytes, or text that is written as UTF-8.
    :raises DataError: if the disk is full or the folder cannot be written; nothing is left behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        temporary.replace(target)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; free some space or name another path"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    :param force: replace a folder that exists.
    :raises DataError: if `path` exists and `force` is false, or it cannot be written; nothing is left behind.
    """
    target = Path(path)
    if target.exists() and not force:
        raise DataError(f"{target} exists already; name another path, or pass --force to replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise DataError(f"cannot write beside {target}: {error.strerror or error}; name another path") from error
    try:
        yield temporary
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        elif target.exists():
            target.unlink()
        temporary.replace(target)
    except OSError as error:
        message = f"cannot write {target}: {error.strerror or error}; free some space or name another path"
        raise DataError(message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Parse a JSON file.

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
        return json.loads(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{what} {source} is not JSON in UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{what} {source} is not JSON: {error.msg} at {place}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{what} {source} holds a value that cannot be read: {error}") from error
