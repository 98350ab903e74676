"""The manifest of bundle format 2: what a bundle's files are, and which tensors its graphs take and give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from qa_edge_runtime.entries import (
    MANIFEST_NAME,
    check_figures,
    check_plain_name,
    expect,
    expect_known,
    expect_number,
    expect_whole,
)
from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.graphs import ENGINES, GRAPH_INPUTS, PRECISIONS, GraphSpec, TensorSpec, parse_graph
from qa_edge_runtime.source import FileRecord
from qa_edge_runtime.strict_json import parse_strict_json
from qa_edge_runtime.table import TableSpec

__all__ = [
    "CASES_NAME",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "TOKENIZER_NAME",
    "VOCABULARY_NAME",
    "FileRecord",
    "GraphSpec",
    "Manifest",
    "ProbabilityFit",
    "TableSpec",
    "TensorSpec",
]

FORMAT_VERSION = 2
TOKENIZER_NAME = "tokenizer.json"
VOCABULARY_NAME = "vocabulary.json"
CASES_NAME = "cases.json"

# The entry, the manifest's last, that holds the SHA-256 of the manifest's own bytes with zeros in its place.
CHECKSUM = "manifest_sha256"
_NO_CHECKSUM = "0" * 64


@dataclass(frozen=True, kw_only=True)
class ProbabilityFit:
    """How a span's logit becomes the probability that the answer is right, as fitted on questions outside training.

    :ivar temperature: above 0; logits are divided by it before the softmax over all spans.
    :ivar expected_calibration_error: from 0 to 1, of the probabilities on questions that the fit has not seen.
    :ivar questions: how many there were to fit and to measure on.
    :ivar no_answer_below: probability from 0 to 1 below which a text is best taken not to hold the answer; None if that
        was not measured.
    :raises BundleError: naming the entry that is missing, of another kind or out of range.
    """

    temperature: float
    expected_calibration_error: float
    questions: int
    no_answer_below: float | None = None

    def __post_init__(self) -> None:
        # A temperature beyond these bounds makes every softmax flat, or overflows it.
        expect_number(self.temperature, 1e-6, 1e6, "probability.temperature")
        expect_number(self.expected_calibration_error, 0, 1, "probability.expected_calibration_error")
        expect_whole(self.questions, "probability.questions")
        if self.no_answer_below is not None:
            expect_number(self.no_answer_below, 0, 1, "probability.no_answer_below")

    def __str__(self) -> str:
        below = "" if self.no_answer_below is None else f"; no answer below {self.no_answer_below:.2f}"
        return (
            f"temperature {self.temperature:.3f}, expected calibration error {self.expected_calibration_error:.3f}"
            f" on {self.questions:,} questions{below}"
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a bundle says about itself; checked when made, so that one in hand can be relied on.

    `probability` is what turns logits to the probability of being right, None if that was not fitted.
    `scores` are measured figures (or None), `verification` what export compared, `licences` those of data and vectors,
    `student` the configuration that was trained: the runtime shows these four and reads nothing from them.

    :raises BundleError: naming the entry that is missing or of another kind.
    """

    name: str
    created: str
    qa_edge_version: str
    spacy_version: str
    max_answer_tokens: int
    files: Mapping[str, FileRecord]
    graphs: tuple[GraphSpec, ...]
    table: TableSpec
    student: Mapping[str, Any]
    scores: Mapping[str, Any] | None = None
    verification: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, Any] = field(default_factory=dict)
    probability: ProbabilityFit | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_format_version(self.format_version)
        for entry in ("name", "created", "qa_edge_version", "spacy_version"):
            expect(getattr(self, entry), str, entry)
        expect_whole(self.max_answer_tokens, "decoder.max_answer_tokens")
        if not isinstance(self.probability, ProbabilityFit | None):
            raise BundleError(f"probability is {self.probability!r:.80}, expected a ProbabilityFit or None")
        for name in self.files:
            check_plain_name(name)
        check_figures("scores", self.scores or {})
        check_figures("verification", self.verification)
        self._check_graphs()
        self._check_sizes()
        for name in self.required_files:
            if name not in self.files:
                raise BundleError(f"{name} is needed but has no entry under files")
            if self.required_files.count(name) > 1:
                raise BundleError(f"{name} is declared twice; expected a file of its own for each graph and table")

    def _check_graphs(self) -> None:
        """A core graph at least, no two alike, and one token graph for each engine that has a core graph."""
        kinds = [(graph.role, graph.engine, graph.precision) for graph in self.graphs]
        for role, engine, precision in kinds:
            if kinds.count((role, engine, precision)) > 1:
                raise BundleError(f"graphs holds two {role} graphs for {engine} in {precision}, expected one")
        if not self.engines:
            raise BundleError("graphs holds no core graph, expected one at least")
        for engine in ENGINES:
            found, wanted = [kind[:2] for kind in kinds].count(("token", engine)), int(engine in self.engines)
            if found != wanted:
                raise BundleError(
                    f"graphs holds {found} token graphs for {engine}; expected one for each engine that has a core"
                    f" graph ({', '.join(self.engines)})"
                )

    def _check_sizes(self) -> None:
        """The sizes that the table and the graphs share must agree."""
        hidden, width = self.hidden, self.characters_per_word
        sizes = {"states": hidden, "character_ids": width, **dict.fromkeys(GRAPH_INPUTS["core"], hidden)}
        for graph in self.graphs:
            for tensor in (*graph.inputs, *graph.outputs):
                if len(tensor.shape) == 2 and tensor.shape[1] != sizes[tensor.name]:
                    raise BundleError(
                        f"{graph.file}: {tensor.name} has {tensor.shape[1]} columns; the table's states and the other"
                        f" graphs have {sizes[tensor.name]}"
                    )

    @property
    def required_files(self) -> tuple[str, ...]:
        """Names of the files that a bundle cannot do without."""
        table = (self.table.file,) if self.table.scales_file is None else (self.table.file, self.table.scales_file)
        return (TOKENIZER_NAME, VOCABULARY_NAME, *table, *(graph.file for graph in self.graphs), CASES_NAME)

    @property
    def hidden(self) -> int:
        """Numbers in a token's state."""
        return self.table.hidden

    @property
    def characters_per_word(self) -> int:
        """Character ids that the token graphs take for a token."""
        return int(self.graph("token", self.engines[0]).tensor("character_ids").shape[1])

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines that the bundle has a core graph for, in the order of `ENGINES`."""
        return tuple(engine for engine in ENGINES if self.precisions(engine))

    def precisions(self, engine: str) -> tuple[str, ...]:
        """Precisions of an engine's core graphs, in the order of `PRECISIONS`."""
        found = {graph.precision for graph in self.graphs if (graph.role, graph.engine) == ("core", engine)}
        return tuple(precision for precision in PRECISIONS if precision in found)

    def graph(self, role: str, engine: str, precision: str | None = None) -> GraphSpec:
        """The graph of a role for an engine; a token graph needs no precision, since there is only one.

        :raises KeyError: if there is none.
        """
        for graph in self.graphs:
            if (graph.role, graph.engine) == (role, engine) and precision in (graph.precision, None):
                return graph
        raise KeyError((role, engine, precision))

    def to_json(self) -> str:
        """The manifest as JSON text, with its own checksum; `from_json` gives the same manifest back."""
        entries = asdict(self)
        entries["decoder"] = {"max_answer_tokens": entries.pop("max_answer_tokens")}
        ordered = {"format_version": entries.pop("format_version"), **entries, CHECKSUM: _NO_CHECKSUM}
        text = json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # Half of a surrogate pair, which no file can hold, is refused where it is written.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return digest.join(text.rsplit(_NO_CHECKSUM, 1))

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse a manifest; the version is looked at first, since another format may have another shape.

        :raises BundleError: if it is not JSON, of another format, was changed, or an entry is missing, not known or of
            another kind.
        """
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        try:
            found = parse_strict_json(raw)
        except DataError as error:
            raise BundleError(f"{error}; export or copy the bundle again") from None
        expect(found, dict, "the whole")
        check_format_version(found.get("format_version"))
        _check_own(raw, found)
        files = expect(found.get("files"), dict, "files")
        graphs = expect(found.get("graphs"), list, "graphs")
        table = expect(found.get("table"), dict, "table")
        decoder = expect(found.get("decoder"), dict, "decoder")
        expect_known(table, [entry.name for entry in fields(TableSpec)], "table")
        expect_known(decoder, ["max_answer_tokens"], "decoder")
        scores = found.get("scores")
        return cls(
            **{key: found.get(key) for key in ("name", "created", "qa_edge_version", "spacy_version")},
            max_answer_tokens=decoder.get("max_answer_tokens"),
            files={name: _file_record(name, record) for name, record in files.items()},
            graphs=tuple(parse_graph(f"graphs[{index}]", graph) for index, graph in enumerate(graphs)),
            table=TableSpec(
                **{key: table.get(key) for key in ("file", "scales_file", "dtype", "rows", "hidden", "group_size")}
            ),
            student=expect(found.get("student"), dict, "student"),
            scores=None if scores is None else expect(scores, dict, "scores"),
            verification=expect(found.get("verification", {}), dict, "verification"),
            licences=expect(found.get("licences", {}), dict, "licences"),
            probability=_probability_fit(found.get("probability")),
        )


def check_format_version(version: Any) -> None:
    """Refuse a format that this runtime does not read.

    :raises BundleError: saying which of the two is older.
    """
    if type(version) is not int or version < 1:
        raise BundleError(f"format_version is {version!r:.80}, expected a whole number from 1; export the bundle again")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"bundle format {version} is newer than this runtime reads ({FORMAT_VERSION}): upgrade qa-edge-runtime"
        )
    if version < FORMAT_VERSION:
        raise BundleError(
            f"bundle format {version} is older than this runtime reads ({FORMAT_VERSION}): export it again"
        )


def _check_own(raw: bytes, found: Mapping[str, Any]) -> None:
    """Refuse a manifest whose bytes are not those of its checksum, or with an entry that this format does not have.

    Bundles from before there was a checksum have none.
    """
    known = {*(entry.name for entry in fields(Manifest)), "decoder", CHECKSUM} - {"max_answer_tokens"}
    for entry in found:
        if entry not in known:
            raise BundleError(f"{entry!r:.80} is no entry of format {FORMAT_VERSION}; export the bundle again")
    if CHECKSUM in found:
        stated = expect(found[CHECKSUM], str, CHECKSUM).encode("utf-8", "surrogatepass")
        # Another length would make the manifest grow by as much as often as it occurs.
        bare = raw.replace(stated, _NO_CHECKSUM.encode()) if len(stated) == len(_NO_CHECKSUM) else raw
        if hashlib.sha256(bare).hexdigest().encode() != stated:
            raise BundleError(f"it has changed since it was exported ({CHECKSUM} is another); copy the bundle again")


def _probability_fit(found: Any) -> ProbabilityFit | None:
    if found is None:
        return None
    expect(found, dict, "probability")
    keys = [entry.name for entry in fields(ProbabilityFit)]
    expect_known(found, keys, "probability")
    return ProbabilityFit(**{key: found.get(key) for key in keys})


def _file_record(name: str, record: Any) -> FileRecord:
    check_plain_name(name)
    expect(record, dict, f"files.{name}")
    expect_known(record, ["sha256", "size_bytes"], f"files.{name}")
    try:
        return FileRecord(sha256=record.get("sha256"), size_bytes=record.get("size_bytes"))
    except BundleError as error:
        raise BundleError(f"files.{name}: {error}") from None
