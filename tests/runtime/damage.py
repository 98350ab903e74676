"""Bundles that were changed by hand, and the sentence with which each is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.errors import BundleError


def refusal(path: Path) -> str:
    """The one sentence with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        Answerer.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def change_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest's entries, as one would who knows of its checksum."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_bytes(seal(manifest))


def seal(manifest: dict[str, Any]) -> bytes:
    """A manifest's bytes with the checksum that fits them."""
    bare = json.dumps({**manifest, "manifest_sha256": "0" * 64}).encode()
    return hashlib.sha256(bare).hexdigest().encode().join(bare.rsplit(b"0" * 64, 1))


def put(path: Path, name: str, content: bytes) -> None:
    """Replace a file and its record, as one would who means to."""
    (path / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    change_manifest(path, lambda manifest: manifest["files"].update({name: record}))
