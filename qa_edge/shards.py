"""Folders of shards, which are made piece by piece and gone on with: what labels and a pool's scores have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

MANIFEST = "manifest.json"


def require_own(folder: Path, noun: str) -> None:
    """Refuse a folder of other things: what is made here is not mixed with them.

    :param noun: what is made, in the plural.
    :raises DataError: if there is something else in it, or it cannot be read.
    """
    try:
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; name another folder") from error
    # What a kill left under a temporary name is nobody's.
    others = [name for name in entries if not (name[0] == "." and name.endswith(".tmp"))]
    # The manifest is looked for last: another process may begin the same work now.
    if others and not (folder / MANIFEST).exists():
        raise DataError(
            f"{folder} holds {others[0]} but no {MANIFEST}, so that it is no {noun} to go on with; name another folder"
        )


def read_manifest(
    folder: Path, noun: str, *, described: str, version: int, source: str, maker: str, again: str
) -> dict[str, Any]:
    """The manifest of a folder of shards, as far as all of them agree.

    :param noun: what is in it, in the plural.
    :param described: the manifest, for messages.
    :param version: the format that is read.
    :param source: the entry with the hash of the data that the shards were made from.
    :param maker: the command that writes such folders.
    :param again: what to do with another format.
    :raises DataError: if it cannot be read, is of another format or not one that the command wrote.
    """
    manifest = read_json(folder / MANIFEST, described)
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if found != version:
        raise DataError(f"{noun} {folder} have format {found}, expected {version}: {again}")
    numbers = [manifest.get(name) for name in ("questions", "shard_questions")]
    if any(type(number) is not int or number < 1 for number in numbers) or source not in manifest:
        raise DataError(f"{folder / MANIFEST} is not one that {maker} wrote; name another folder")
    return dict(manifest)
