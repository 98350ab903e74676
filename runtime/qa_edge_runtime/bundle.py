"""A bundle: the folder or file that a device loads. Refused rather than misread, whole or absent when written."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from qa_edge_runtime.archive import SUFFIX, write_archive
from qa_edge_runtime.entries import printable
from qa_edge_runtime.errors import BundleError, DataError, InputError, QaEdgeError
from qa_edge_runtime.files import atomic_file, atomic_folder, check_replaceable, check_replaceable_file, read_json
from qa_edge_runtime.manifest import (
    CASES_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    VOCABULARY_NAME,
    FileRecord,
    GraphSpec,
    Manifest,
    ProbabilityFit,
    TableSpec,
    TensorSpec,
)
from qa_edge_runtime.source import Source, holds_bundle, open_source
from qa_edge_runtime.strict_json import parse_strict_json
from qa_edge_runtime.table import TokenTable
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

__all__ = [
    "Bundle",
    "FileRecord",
    "GraphSpec",
    "Manifest",
    "ProbabilityFit",
    "TableSpec",
    "TensorSpec",
    "bundle_name",
    "check_bundle_path",
    "copy_bundle",
    "is_single_file",
    "write_bundle",
]

# Bytes beyond which a file of these names is not what its name says, and is not read into memory: once parsed, JSON
# takes up to some twenty times as much. A manifest takes some kilobytes, tokenizer and cases some hundred.
MAX_MANIFEST_BYTES = 1 << 20
_MAX_BYTES = {MANIFEST_NAME: MAX_MANIFEST_BYTES, TOKENIZER_NAME: 4 << 20, CASES_NAME: 8 << 20}
# A vocabulary may be as long as its words: ten bytes each in English, and its characters.
_MAX_BYTES_OF_A_WORD = 256

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle: its files are those that export wrote, byte for byte.

    Nothing is kept open but the mapping of the table, which `close` lets go of. Whoever writes a bundle can make all
    hashes right: what the files hold is checked too, in kind and in size, but for one thing. The tokenizer's patterns
    are run as they are, and a regular expression can be made to take exponential time: take bundles from those whom you
    trust with your processor.

    :ivar path: the folder, or the single file.
    :ivar table: states of words, mapped read-only.
    :ivar source: the bundle's files.
    """

    path: Path
    manifest: Manifest
    table: TokenTable
    source: Source

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest, check size and SHA-256 of every file, then map the table.

        Nothing but the manifest is parsed before its hash was found right, and nothing is unpacked.

        :param path: a folder, or the single file NAME.qab.zip.
        :raises BundleError: if the bundle or a file is missing, cut, changed or newer, or tables or tensors are not as
            declared; one sentence that names the file.
        """
        source = open_source(Path(path))
        raw = source.read(MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
        try:
            manifest = Manifest.from_json(raw)
        except BundleError as error:
            raise BundleError(f"bundle {source.path}: {MANIFEST_NAME}: {error}") from error
        mapped = (manifest.table.file, manifest.table.scales_file)
        for name, record in manifest.files.items():
            if name not in mapped:
                source.check(name, record, limit=_byte_limit(name, manifest))
        table = TokenTable.open(source, manifest.table, manifest.files)
        return cls(path=source.path, manifest=manifest, table=table, source=source)

    def close(self) -> None:
        """Let go of the table's files, which some systems do not replace while they are mapped; all else works on."""
        self.table.close()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files that the manifest lists."""
        return sum(record.size_bytes for record in self.manifest.files.values())

    def read(self, name: str) -> bytes:
        """A file's bytes, read and checked again: a forked child may call this long after the bundle was opened.

        :param name: one of `manifest.files`.
        :raises BundleError: if it is none of these, or went away or changed since the bundle was opened.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no file {name!r:.120}")
        return self.source.read(name, self.manifest.files[name], limit=_byte_limit(name, self.manifest))

    def graph_bytes(self, graph: GraphSpec) -> bytes:
        """A graph as its engine reads it.

        :param graph: one of `manifest.graphs`.
        :raises BundleError: if the file went away or changed since the bundle was opened.
        """
        return self.read(graph.file)

    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        :raises BundleError: if its tables are not what the tokenizer reads.
        """
        return self._parse(TOKENIZER_NAME, Tokenizer)

    def vocabulary(self) -> Vocabulary:
        """The bundle's words and characters.

        :raises BundleError: if it does not fit the table, or cannot be read.
        """
        vocabulary = self._parse(VOCABULARY_NAME, Vocabulary.from_json)
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
        return self._parse(CASES_NAME, _cases)

    def _parse(self, name: str, make: Callable[[Any], T]) -> T:
        raw = self.read(name)
        try:
            return make(parse_strict_json(raw))
        except QaEdgeError as error:
            reason = printable(str(error))[:300]  # it may quote what the file holds
            raise BundleError(f"bundle {self.path}: {name} cannot be used: {reason}") from error


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
    probability: ProbabilityFit | None = None,
    force: bool = False,
) -> Manifest:
    """Write a bundle under a temporary name, open it as a device would, and only then give it its name.

    :param path: a folder to make, or a single file if the name ends in .zip.
    :param files: content of each file but the manifest, by name; hashes and sizes are computed here.
    :param graphs: at least one core graph, and one token graph for each engine that has a core graph.
    :param table: as `quantise_rows` made the rows and scales under `files`.
    :param name: what the bundle calls itself; the path's name without .qab and .zip if not given.
    :param created: time in ISO 8601; now (UTC) if not given.
    :param probability: as fitted on questions outside training; None if it was not.
    :param force: replace a bundle that exists.
    :return: the manifest that was written.
    :raises BundleError: if what was given is not a bundle that this runtime would load; nothing is written.
    :raises DataError: if `path` exists and `force` is false, or the disk is full; nothing is left behind.
    """
    target = Path(path)
    manifest = Manifest(
        name=name or bundle_name(target),
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
        probability=probability,
    )
    try:
        described = manifest.to_json().encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"cannot write {target}: the manifest's text holds half of a surrogate pair; expected Unicode text"
        ) from error
    _write(target, [(MANIFEST_NAME, described), *sorted(files.items())], force=force)
    return manifest


def copy_bundle(path: str | os.PathLike[str], target: str | os.PathLike[str], *, force: bool = False) -> int:
    """Write a bundle again in the other form or the same one, byte for byte: a single file if the name ends in .zip.

    :param force: replace a bundle that exists.
    :return: bytes written.
    :raises BundleError: if `path` is not a bundle that this runtime would load; nothing is written.
    :raises InputError: if both are the same.
    :raises DataError: if `target` exists and `force` is false, or the disk is full; nothing is left behind.
    """
    source, written = Path(path), Path(target)
    if written.resolve() in (source.resolve(), *source.resolve().parents):
        raise InputError(f"{source} cannot be packed into itself, or over a folder that it lies in; name another path")
    check_bundle_path(written, force=force)
    bundle = Bundle.open(source)
    bundle.close()
    described = bundle.source.read(MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
    files = ((name, bundle.read(name)) for name in sorted(bundle.manifest.files))
    _write(written, itertools.chain([(MANIFEST_NAME, described)], files), force=force)
    return written.stat().st_size if is_single_file(written) else len(described) + bundle.size_bytes


def check_bundle_path(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse to write a bundle over what exists, unless it may be replaced and is a bundle, or an empty folder.

    :raises DataError: if `path` exists and `force` is false, or it is something else.
    """
    if is_single_file(path):
        check_replaceable_file(path, force=force, ours=holds_bundle)
        return
    check_replaceable(path, force=force, marker=MANIFEST_NAME)
    target = Path(path)
    if target.is_dir() and any(target.iterdir()):
        declared = read_json(target / MANIFEST_NAME, "manifest").get("files")
        known = {MANIFEST_NAME, *(declared if isinstance(declared, dict) else ())}
        others = sorted(entry.name for entry in target.iterdir() if entry.name not in known and entry.name[0] != ".")
        if others:
            raise DataError(f"{target} holds {others[0]}, which is no part of a bundle, and is kept; name another path")


def is_single_file(path: str | os.PathLike[str]) -> bool:
    """Whether a bundle of this name is written as a single file."""
    return Path(path).name.lower().endswith(SUFFIX)


def bundle_name(path: str | os.PathLike[str]) -> str:
    """What a bundle calls itself if nothing else is said: its path's name without .qab, .zip or both."""
    name = Path(path).name
    return name[: -len(SUFFIX)].removesuffix(".qab") if is_single_file(path) else name.removesuffix(".qab")


def _write(target: Path, files: Iterable[tuple[str, bytes]], *, force: bool) -> None:
    """Write files under a temporary name, open them as a device would, then give them their name."""
    if is_single_file(target):
        with atomic_file(target, force=force, ours=holds_bundle) as temporary:
            with temporary.open("wb") as stream:
                write_archive(stream, files)
            _check_written(temporary)
        return
    with atomic_folder(target, force=force, marker=MANIFEST_NAME) as folder:
        for name, content in files:
            (folder / name).write_bytes(content)
        _check_written(folder)


def _check_written(path: Path) -> None:
    """Read all that a device would; in a function of its own, so that no file is still mapped when it is renamed."""
    written = Bundle.open(path)
    written.tokenizer()
    written.vocabulary()
    written.cases()
    written.close()


def _cases(found: Any) -> list[dict[str, Any]]:
    cases = found.get("cases") if isinstance(found, dict) else found
    if not isinstance(cases, list) or not all(
        isinstance(case, dict) and all(isinstance(case.get(key), str) for key in ("question", "context"))
        for case in cases
    ):
        raise BundleError("it is not a list of cases with a question and a context")
    return cases


def _byte_limit(name: str, manifest: Manifest) -> int | None:
    if name == VOCABULARY_NAME:
        return MAX_MANIFEST_BYTES + _MAX_BYTES_OF_A_WORD * manifest.table.rows
    return _MAX_BYTES.get(name)
