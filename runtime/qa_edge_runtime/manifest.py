"""The manifest of bundle format 1: what a bundle's files are, and which tensors its graphs take and give."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qa_edge_runtime.errors import BundleError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
VOCABULARY_NAME = "vocabulary.json"
CASES_NAME = "cases.json"

# Name -> (dtype, rank) of every tensor that the runtime binds. A first axis counts tokens and has no fixed size.
GRAPH_INPUTS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "token": {"word_vectors": ("float32", 2), "character_ids": ("int64", 2)},
    "core": {"context": ("float32", 2), "question": ("float32", 2)},
}
GRAPH_OUTPUTS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "token": {"states": ("float32", 2)},
    "core": {"start_logits": ("float32", 1), "end_logits": ("float32", 1)},
}

# What is shown with a fixed number of digits, where it is there.
_FIGURES: Mapping[str, frozenset[str]] = {
    "scores": frozenset({"exact_match", "f1", "total"}),
    "verification": frozenset({"questions", "equal_spans", "largest_difference"}),
}

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
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


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of a graph's input or output; an axis of no fixed size is a word, such as "tokens"."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """The file of a graph and the tensors that it takes and gives."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """The file, shape (words + 1, columns) and dtype of the table of word vectors; row 0 is the unknown word."""

    file: str
    shape: tuple[int, int]
    dtype: str

    def __post_init__(self) -> None:
        sizes = self.shape if isinstance(self.shape, tuple) else ()
        if len(sizes) != 2 or not all(type(size) is int and size >= 1 for size in sizes):
            raise BundleError(f"the table's shape is two whole numbers (rows, columns), found {self.shape!r:.80}")
        if self.dtype not in ("float16", "float32"):
            raise BundleError(f"the table's dtype is float16 or float32, found {self.dtype!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a bundle says about itself; checked when made, so that one in hand can be relied on.

    `scores` are measured figures (or None), `verification` what export compared, `licences` those of data and vectors,
    `student` the configuration that was trained: the runtime shows these four and reads nothing from them.

    :raises BundleError: naming the entry that is missing or of another kind.
    """

    name: str
    created: str
    qa_edge_version: str
    spacy_version: str
    engine: str
    max_answer_tokens: int
    files: Mapping[str, FileRecord]
    graphs: Mapping[str, GraphSpec]
    table: TableSpec
    student: Mapping[str, Any]
    scores: Mapping[str, Any] | None = None
    verification: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_format_version(self.format_version)
        for entry in ("name", "created", "qa_edge_version", "spacy_version", "engine"):
            _expect(getattr(self, entry), str, entry)
        if type(self.max_answer_tokens) is not int or self.max_answer_tokens < 1:
            raise BundleError(
                f"decoder.max_answer_tokens is a whole number from 1, found {self.max_answer_tokens!r:.80}"
            )
        for name in self.files:
            check_plain_name(name)
        for entry, numbers in _FIGURES.items():
            for name in numbers & (getattr(self, entry) or {}).keys():
                _check_figure(f"{entry}.{name}", (getattr(self, entry) or {})[name])
        if set(self.graphs) != set(GRAPH_INPUTS):
            found = " and ".join(sorted(self.graphs)) or "none"
            raise BundleError(f"the graphs are {found:.80}; expected {' and '.join(GRAPH_INPUTS)}")
        for role in GRAPH_INPUTS:
            _check_tensors(role, "input", self.graphs[role].inputs, GRAPH_INPUTS[role])
            _check_tensors(role, "output", self.graphs[role].outputs, GRAPH_OUTPUTS[role])
        self._check_sizes()
        for name in self.required_files:
            if name not in self.files:
                raise BundleError(f"{name} is needed but has no entry under files")

    def _check_sizes(self) -> None:
        """The sizes that the table and both graphs share must agree."""
        columns, hidden = self.tensor("token", "word_vectors").shape[1], self.hidden
        if columns != self.table.shape[1]:
            raise BundleError(
                f"word_vectors has {columns} columns but the table {self.table.file} has {self.table.shape[1]}"
            )
        for name in ("context", "question"):
            size = self.tensor("core", name).shape[1]
            if size != hidden:
                raise BundleError(f"the core graph's {name} has {size} columns but the token graph gives {hidden}")

    @property
    def required_files(self) -> tuple[str, ...]:
        """Names of the files that a bundle cannot do without."""
        graphs = tuple(graph.file for graph in self.graphs.values())
        return (TOKENIZER_NAME, VOCABULARY_NAME, self.table.file, *graphs, CASES_NAME)

    @property
    def hidden(self) -> int:
        """Numbers in a token's state."""
        return int(self.tensor("token", "states").shape[1])

    @property
    def characters_per_word(self) -> int:
        """Character ids that the token graph takes for a token."""
        return int(self.tensor("token", "character_ids").shape[1])

    def tensor(self, role: str, name: str) -> TensorSpec:
        """The declared input or output `name` of graph `role`; KeyError if there is none."""
        graph = self.graphs[role]
        return {tensor.name: tensor for tensor in (*graph.inputs, *graph.outputs)}[name]

    def to_json(self) -> str:
        """The manifest as JSON text; `from_json` gives the same manifest back."""
        fields = asdict(self)
        fields["decoder"] = {"max_answer_tokens": fields.pop("max_answer_tokens")}
        ordered = {"format_version": fields.pop("format_version"), **fields}
        return json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse a manifest; the version is looked at first, since a newer format may have another shape.

        :raises BundleError: if it is not JSON, newer than this runtime, or an entry is missing or of another kind.
        """
        try:
            found = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"not JSON in UTF-8 ({error}); export or copy the bundle again") from None
        _expect(found, dict, "the whole")
        check_format_version(found.get("format_version"))
        files = _expect(found.get("files"), dict, "files")
        graphs = _expect(found.get("graphs"), dict, "graphs")
        table = _expect(found.get("table"), dict, "table")
        decoder = _expect(found.get("decoder"), dict, "decoder")
        shape = _expect(table.get("shape"), list, "table.shape")
        scores = found.get("scores")
        return cls(
            **{key: found.get(key) for key in ("name", "created", "qa_edge_version", "spacy_version", "engine")},
            max_answer_tokens=decoder.get("max_answer_tokens"),
            files={name: _file_record(name, record) for name, record in files.items()},
            graphs={role: _graph_spec(role, graph) for role, graph in graphs.items()},
            table=TableSpec(file=_plain(table.get("file")), shape=tuple(shape), dtype=table.get("dtype")),
            student=_expect(found.get("student"), dict, "student"),
            scores=None if scores is None else _expect(scores, dict, "scores"),
            verification=_expect(found.get("verification", {}), dict, "verification"),
            licences=_expect(found.get("licences", {}), dict, "licences"),
        )


def check_format_version(version: Any) -> None:
    """Refuse a format that this runtime does not read.

    :raises BundleError: saying which is older.
    """
    if type(version) is not int or version < 1:
        raise BundleError(f"format_version is {version!r:.80}, expected a whole number from 1; export the bundle again")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"bundle format {version} is newer than this runtime reads ({FORMAT_VERSION}): upgrade qa-edge-runtime"
        )


def check_plain_name(name: Any) -> None:
    """Refuse a file name that could lead out of the bundle's folder, or that would overwrite the manifest.

    :raises BundleError: if it is anything but letters, digits, dots, dashes and underscores, or starts with a dot.
    """
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise BundleError(f"{name!r:.120} is not a plain file name inside the bundle; expected one such as core.onnx")


def _plain(name: Any) -> str:
    check_plain_name(name)
    return str(name)


def _expect(value: Any, kind: type, entry: str) -> Any:
    if not isinstance(value, kind):
        words: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
        found = "missing" if value is None else repr(value)
        raise BundleError(f"{entry} is {found:.80}, expected {words[kind]}")
    return value


def _check_figure(entry: str, value: Any) -> None:
    # The bound keeps out whole numbers that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
        raise BundleError(f"{entry} is {value!r:.80}, expected a number from 0; export the bundle again")


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def _file_record(name: str, record: Any) -> FileRecord:
    check_plain_name(name)
    _expect(record, dict, f"files.{name}")
    try:
        return FileRecord(sha256=record.get("sha256"), size_bytes=record.get("size_bytes"))
    except BundleError as error:
        raise BundleError(f"files.{name}: {error}") from None


def _graph_spec(role: str, graph: Any) -> GraphSpec:
    _expect(graph, dict, f"graphs.{role}")
    sides: dict[str, tuple[TensorSpec, ...]] = {}
    for side in ("inputs", "outputs"):
        tensors = _expect(graph.get(side), list, f"graphs.{role}.{side}")
        sides[side] = tuple(_tensor_spec(f"graphs.{role}.{side}", tensor) for tensor in tensors)
    return GraphSpec(file=_plain(graph.get("file")), **sides)


def _tensor_spec(entry: str, tensor: Any) -> TensorSpec:
    _expect(tensor, dict, entry)
    shape = _expect(tensor.get("shape"), list, f"{entry}.shape")
    return TensorSpec(
        name=_expect(tensor.get("name"), str, f"{entry}.name"),
        shape=tuple(shape),
        dtype=_expect(tensor.get("dtype"), str, f"{entry}.dtype"),
    )


def _check_tensors(
    role: str, side: str, declared: tuple[TensorSpec, ...], expected: Mapping[str, tuple[str, int]]
) -> None:
    found = {tensor.name: tensor for tensor in declared}
    if set(found) != set(expected) or len(found) != len(declared):
        names = ", ".join(sorted(tensor.name for tensor in declared)) or "none"
        raise BundleError(f"the {role} graph has the {side}s {names:.200}; expected {', '.join(expected)}")
    for name, (dtype, rank) in expected.items():
        tensor = found[name]
        fixed = all(type(size) is int and size >= 1 for size in tensor.shape[1:])
        if tensor.dtype != dtype or len(tensor.shape) != rank or not isinstance(tensor.shape[0], str) or not fixed:
            raise BundleError(
                f"the {role} graph's {side} {name} is {tensor.dtype:.20} {list(tensor.shape)!s:.80};"
                f" expected {dtype} with {rank} axes, the first of any size"
            )
