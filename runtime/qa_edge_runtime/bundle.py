"""A bundle: the folder that a device loads. Refused rather than misread, and whole or absent when written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qa_edge_runtime.errors import BundleError, QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write, read_json, sha256_file
from qa_edge_runtime.manifest import (
    CASES_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    VOCABULARY_NAME,
    FileRecord,
    GraphSpec,
    Manifest,
    TableSpec,
    TensorSpec,
)
from qa_edge_runtime.table import TokenTable
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

__all__ = ["Bundle", "FileRecord", "GraphSpec", "Manifest", "TableSpec", "TensorSpec", "write_bundle"]

# A manifest takes some kilobytes: more than this is not one, and is not read into memory.
MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: its files are those that export wrote, byte for byte.

    :ivar path: the folder.
    :ivar table: states of words, mapped read-only.
    """

    path: Path
    manifest: Manifest
    table: TokenTable

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest, check size and SHA-256 of every file, then map the table.

        Nothing but the manifest is parsed before its hash was found right.

        :raises BundleError: if the folder or a file is missing, cut, changed or newer, or tables or tensors are not as
            declared; one sentence that names the file.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        for name, record in manifest.files.items():
            _check_file(folder, name, record)
        return cls(path=folder, manifest=manifest, table=TokenTable.open(folder, manifest.table))

    @property
    def size_bytes(self) -> int:
        """Bytes of all files that the manifest lists."""
        return sum(record.size_bytes for record in self.manifest.files.values())

    def graph_bytes(self, graph: GraphSpec) -> bytes:
        """A graph as its engine reads it.

        :param graph: one of `manifest.graphs`.
        :raises BundleError: if the file went away since the bundle was opened.
        """
        try:
            return (self.path / graph.file).read_bytes()
        except OSError as error:
            raise BundleError(f"bundle {self.path}: {graph.file} cannot be read: {error.strerror or error}") from error

    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        :raises BundleError: if its tables are not what the tokenizer reads.
        """
        try:
            return Tokenizer.load(self.path / TOKENIZER_NAME)
        except QaEdgeError as error:
            raise BundleError(f"bundle {self.path}: {TOKENIZER_NAME} cannot be used: {error}") from error

    def vocabulary(self) -> Vocabulary:
        """The bundle's words and characters.

        :raises BundleError: if it does not fit the table, or cannot be read.
        """
        try:
            vocabulary = Vocabulary.load(self.path / VOCABULARY_NAME)
        except QaEdgeError as error:
            raise BundleError(f"bundle {self.path}: {VOCABULARY_NAME} cannot be used: {error}") from error
        rows = self.manifest.table.rows
        if len(vocabulary.words) + 1 != rows:
            raise BundleError(
                f"bundle {self.path}: {VOCABULARY_NAME} has {len(vocabulary.words)} words, so that"
                f" {self.manifest.table.file} must have {len(vocabulary.words) + 1} rows, but it has {rows}"
            )
        return vocabulary

    def cases(self) -> list[dict[str, Any]]:
        """The conformance cases: each an object with at least `question` and `context`.

        :raises BundleError: if the file is not a list of such objects (bare, or under the key "cases").
        """
        try:
            found = read_json(self.path / CASES_NAME, "cases file")
        except QaEdgeError as error:
            raise BundleError(f"bundle {self.path}: {CASES_NAME} cannot be used: {error}") from error
        cases = found.get("cases") if isinstance(found, dict) else found
        if not isinstance(cases, list) or not all(
            isinstance(case, dict) and all(isinstance(case.get(key), str) for key in ("question", "context"))
            for case in cases
        ):
            raise BundleError(f"bundle {self.path}: {CASES_NAME} is not a list of cases with a question and a context")
        return cases


def write_bundle(
    path: str | os.PathLike[str],
    files: Mapping[str, bytes],
    *,
    graphs: Sequence[GraphSpec],
    table: TableSpec,
    student: Mapping[str, Any],
    qa_edge_version: str,
    spacy_version: str,
    name: str | None = None,
    created: str | None = None,
    max_answer_tokens: int = 30,
    scores: Mapping[str, Any] | None = None,
    verification: Mapping[str, Any] | None = None,
    licences: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Manifest:
    """Write a bundle under a temporary name, open it as a device would, and only then give it its name.

    :param files: content of each file but the manifest, by name; hashes and sizes are computed here.
    :param graphs: at least one core graph, and one token graph for each engine that has a core graph.
    :param table: as `quantise_rows` made the rows and scales under `files`.
    :param name: what the bundle calls itself; the folder's name without .qab if not given.
    :param created: time in ISO 8601; now (UTC) if not given.
    :param force: replace a bundle that exists.
    :return: the manifest that was written.
    :raises BundleError: if what was given is not a bundle that this runtime would load; nothing is written.
    :raises DataError: if `path` exists and `force` is false, or the disk is full; nothing is left behind.
    """
    target = Path(path)
    manifest = Manifest(
        name=name or target.name.removesuffix(".qab"),
        created=created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        qa_edge_version=qa_edge_version,
        spacy_version=spacy_version,
        max_answer_tokens=max_answer_tokens,
        files={
            file: FileRecord(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
            for file, content in sorted(files.items())
        },
        graphs=tuple(graphs),
        table=table,
        student=student,
        scores=scores,
        verification=verification or {},
        licences=licences or {},
    )
    with atomic_folder(target, force=force) as folder:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        atomic_write(folder / MANIFEST_NAME, manifest.to_json())
        _check_written(folder)
    return manifest


def _check_written(folder: Path) -> None:
    """Read all that a device would; in a function of its own, so that no file is still mapped when it is renamed."""
    written = Bundle.open(folder)
    written.tokenizer()
    written.vocabulary()
    written.cases()


def _read_manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise BundleError(f"bundle {folder} {found}; expected a folder with a {MANIFEST_NAME}: check the path")
    source = folder / MANIFEST_NAME
    try:
        if source.exists() and not source.is_file():  # a pipe would never end
            raise BundleError(f"bundle {folder}: {MANIFEST_NAME} is not a file; export or copy the bundle again")
        with source.open("rb") as stream:
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        raise BundleError(f"bundle {folder}: {MANIFEST_NAME} {reason}; export or copy the bundle again") from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"bundle {folder}: {MANIFEST_NAME} has more than {MAX_MANIFEST_BYTES} bytes: it is not a manifest"
        )
    try:
        return Manifest.from_json(raw)
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {MANIFEST_NAME}: {error}") from error


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    file = folder / name
    try:
        if not file.is_file():
            found = "is not a file" if file.exists() else "is missing"
            raise BundleError(f"bundle {folder}: {name} {found}; export or copy the bundle again")
        size = file.stat().st_size
        if size != record.size_bytes:
            raise BundleError(
                f"bundle {folder}: {name} has {size} bytes instead of {record.size_bytes};"
                " export or copy the bundle again"
            )
        if sha256_file(file) != record.sha256:
            raise BundleError(
                f"bundle {folder}: {name} has changed since it was exported (its SHA-256 is another);"
                " export or copy the bundle again"
            )
    except OSError as error:
        raise BundleError(f"bundle {folder}: {name} cannot be read: {error.strerror or error}") from error
