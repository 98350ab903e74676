"""From a run folder to a bundle: graphs, table, tokenizer, conformance cases; verified before it gets its name."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import qa_edge_runtime
from qa_edge_export.cases import CASE_TEXTS, make_cases
from qa_edge_export.checkpoint import Checkpoint, read_checkpoint
from qa_edge_export.verify import Logits, Verification, compare, refuse_differences
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import write_bundle
from qa_edge_runtime.errors import BundleError, DataError, InputError, MissingExtraError
from qa_edge_runtime.files import check_replaceable
from qa_edge_runtime.manifest import CASES_NAME, TOKENIZER_NAME, VOCABULARY_NAME, GraphSpec, TableSpec

TABLE_NAME = "vectors.npy"

Pair = tuple[str, str]
"""A question and its context."""
Reference = Callable[[list[Pair]], Sequence[Logits]]
"""Gives the trained student's start and end logits over the context's tokens, for each pair."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote and found.

    :ivar files: size in bytes of each file of the bundle, the manifest apart.
    :ivar verification: comparison with the trained student on the caller's questions; None if there was no reference.
    :ivar cases: conformance cases in the bundle.
    :ivar graph_seconds: time that writing and checking the graphs took, of `seconds` in all.
    """

    path: Path
    files: Mapping[str, int]
    verification: Verification | None
    cases: int
    graph_seconds: float
    seconds: float

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def export_bundle(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    reference: Reference | None = None,
    questions: Sequence[Pair] = (),
    scores: Mapping[str, Any] | None = None,
    licences: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] | None = None,
    force: bool = False,
) -> ExportReport:
    """Export a trained student as a bundle for ONNX Runtime.

    :param reference: logits of the trained student, which the bundle must reproduce; None leaves that out, and the
        manifest says so.
    :param questions: questions with their contexts to compare on: real ones that were not trained on.
    :param scores: measured EM and F1 and what they were measured on, for the manifest.
    :param licences: licences of data and vectors, for the manifest.
    :param advance: called with 1 after each question that the bundle has answered.
    :param force: replace a bundle that exists.
    :raises DataError: if the run folder cannot be used, or `output` exists and `force` is false.
    :raises BundleError: if the bundle answers otherwise than the reference (see `verify`); nothing is written.
    :raises InputError: if there is a reference but no question to compare on.
    :raises MissingExtraError: if onnx, safetensors or ONNX Runtime is not installed.
    """
    began = time.perf_counter()
    target = Path(output)
    check_output(run_folder, target, force=force)
    if reference is not None and not questions:
        raise InputError("no questions to verify the export on; expected some of the held-out articles")
    checkpoint = read_checkpoint(run_folder)
    files, graphs, table = bundle_files(checkpoint)
    graph_seconds = time.perf_counter() - began

    def write(path: Path, cases: bytes, verification: Verification | None, replace: bool) -> None:
        write_bundle(
            path,
            {**files, CASES_NAME: cases},
            name=target.name.removesuffix(".qab"),
            graphs=graphs,
            table=table,
            student=checkpoint.config,
            qa_edge_version=_version(),
            spacy_version=checkpoint.tokenizer.spacy_version,
            max_answer_tokens=checkpoint.sizes.max_answer_tokens,
            scores=scores,
            verification=None if verification is None else verification.to_json(),
            licences=licences,
            force=replace,
        )

    # What is compared is the bundle as a device loads it; it gets its name when it has passed.
    with _temporary_folder() as folder:
        staged = Path(folder) / "staged.qab"
        write(staged, b"[]", None, False)
        with Answerer.load(staged) as answerer:
            verification = None
            if reference is not None:
                verification = _verify(answerer, reference, list(questions), advance)
                _verify(answerer, reference, list(CASE_TEXTS), None)
            cases = make_cases(answerer, CASE_TEXTS)
    write(target, cases, verification, force)
    return ExportReport(
        path=target,
        files={**{name: len(content) for name, content in files.items()}, CASES_NAME: len(cases)},
        verification=verification,
        cases=len(CASE_TEXTS),
        graph_seconds=graph_seconds,
        seconds=time.perf_counter() - began,
    )


def check_output(run_folder: str | os.PathLike[str], output: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse, before any work, an output that may not be written.

    :raises DataError: if `output` is the run's folder or one around it, or exists and may not be replaced.
    """
    run, target = Path(run_folder).resolve(), Path(output).resolve()
    if target == run or target in run.parents:
        raise DataError(f"{output} holds the run that would be exported; name another path for the bundle")
    check_replaceable(output, force=force)


def bundle_files(checkpoint: Checkpoint) -> tuple[dict[str, bytes], dict[str, GraphSpec], TableSpec]:
    """Content of a bundle's files, cases and manifest apart, with the graphs' and the table's declarations.

    :raises DataError: if the unknown word's vector does not fit into float16.
    :raises MissingExtraError: if onnx is not installed.
    """
    try:
        from qa_edge_export.onnx_graph import core_graph, token_graph
    except ImportError as error:
        raise MissingExtraError('ONNX export needs onnx: pip install "qa-edge[train]"') from error
    graphs = {
        "token": token_graph(checkpoint.sizes, checkpoint.arrays),
        "core": core_graph(checkpoint.sizes, checkpoint.arrays),
    }
    table = word_table(checkpoint)
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    files = {
        TOKENIZER_NAME: checkpoint.tokenizer_json,
        VOCABULARY_NAME: checkpoint.vocabulary_json,
        TABLE_NAME: stream.getvalue(),
        **{graph.spec.file: graph.content for graph in graphs.values()},
    }
    rows, columns = table.shape
    spec = TableSpec(file=TABLE_NAME, shape=(rows, columns), dtype=str(table.dtype))
    return files, {role: graph.spec for role, graph in graphs.items()}, spec


def word_table(checkpoint: Checkpoint) -> np.ndarray:
    """The bundle's table of word vectors.

    :returns: float16, shape (words + 1, word_dim), row 0 the unknown word's; one column of zeros if word_dim is 0.
    :raises DataError: if the unknown word's vector does not fit into float16.
    """
    if checkpoint.sizes.word_dim == 0:
        return np.zeros((checkpoint.vocabulary.word_rows, 1), dtype=np.float16)
    table = np.array(checkpoint.vectors, dtype=np.float16, order="C")
    with np.errstate(over="ignore"):
        table[0] = checkpoint.arrays["token.unknown"]
    if not np.isfinite(table[0]).all():
        raise DataError(f"{checkpoint.folder}: token.unknown has numbers beyond 65,504, which a word table cannot hold")
    return table


def format_report(report: ExportReport) -> str:
    """The report as a table for a person; MB is 10^6 bytes."""
    rows = [(name, f"{size / 1e6:.3f} MB") for name, size in sorted(report.files.items())]
    rows += [("in all", f"{report.size_bytes / 1e6:.3f} MB"), ("conformance cases", str(report.cases))]
    found = report.verification
    if found is None:
        rows.append(("verified", "no: there was no trained student to compare with"))
    else:
        rows += [
            ("verified on", f"{found.questions} questions"),
            ("equal spans", f"{found.equal_spans} of {found.questions} ({100 * found.equal_share:.2f} %)"),
            ("largest difference", f"{found.largest_difference:.2e} (logits)"),
            ("99.9th percentile", f"{found.percentile_999:.2e}"),
        ]
    rows.append(("time", f"{report.seconds:.1f} s, of which graphs {report.graph_seconds:.1f} s"))
    width = max(len(label) for label, _ in rows)
    return "\n".join([str(report.path), *(f"  {label:<{width}}  {value}" for label, value in rows)])


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="qa-edge-export.")
    except OSError as error:
        raise DataError(f"no temporary folder can be made ({error}); free some space or set TMPDIR") from error


def _verify(
    answerer: Answerer, reference: Reference, pairs: list[Pair], advance: Callable[[int], None] | None
) -> Verification:
    expected = reference(pairs)
    found: list[Logits] = []
    for question, context in pairs:
        logits = answerer.logits(question, context)
        found.append((logits.start, logits.end))
        if advance is not None:
            advance(1)
    limit = answerer.bundle.manifest.max_answer_tokens
    try:
        verification = compare(expected, found, max_answer_tokens=limit)
    except InputError as error:
        raise BundleError(
            f"the bundle cannot be compared with the trained student ({error}); nothing was written"
        ) from error
    refuse_differences(verification, [question for question, _ in pairs])
    return verification


def _version() -> str:
    """The version of qa-edge; it is released together with the runtime, whose version stands in for a bare checkout."""
    try:
        return metadata.version("qa-edge")
    except metadata.PackageNotFoundError:
        return qa_edge_runtime.__version__
