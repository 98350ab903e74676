"""From a run folder to a bundle: graphs, table, tokenizer, conformance cases; verified before it gets its name."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import qa_edge_runtime
from qa_edge_export.cases import CASE_TEXTS, made_by, make_cases
from qa_edge_export.checkpoint import Checkpoint, read_checkpoint
from qa_edge_export.fold import fold_states
from qa_edge_export.graph import Graph
from qa_edge_export.graphs import calibration_runs, write_graphs
from qa_edge_export.inputs import ExactInputs
from qa_edge_export.probability import fit_probability
from qa_edge_export.progress import Progress, no_progress
from qa_edge_export.report import ExportReport
from qa_edge_export.sensitivity import layer_effects
from qa_edge_export.settings import ExportSettings
from qa_edge_export.token_table import (
    Table,
    build_table,
    choose_words,
    choose_words_within,
    default_counts,
    rank_words,
)
from qa_edge_export.verify import Logits, Question, Verification, compare, refuse_differences, refuse_loss
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import bundle_name, check_bundle_path, write_bundle
from qa_edge_runtime.engine import load_engine
from qa_edge_runtime.errors import BundleError, DataError, InputError
from qa_edge_runtime.manifest import CASES_NAME, TOKENIZER_NAME, ProbabilityFit

# What the manifest, with figures of six graphs, and the longer word ids in the cases of a large table may take of a
# bundle whose size is given.
RESERVED_BYTES = 32_000

# Invented words of all lengths: whatever has no vector is read by its characters.
TOKEN_WORDS = ("q", "zq", "Xylqor", "vrbk-77", "ßœłđ", "qa.edge@x9", "zzzzqqqqxxxxjjjjkkkk", "\u4e2d\u6587q")
# Of the largest number of a state.
TOKEN_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
# Questions on which the layers of a graph that was refused are compared.
BLAME_QUESTIONS = 20

Reference = Callable[[Sequence[Question]], Sequence[Logits]]
"""Gives the trained student's start and end logits over the context's tokens, for each question."""


def export_bundle(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    settings: ExportSettings | None = None,
    counts: Mapping[str, int] | None = None,
    text: str = "the checkpoint's vocabulary",
    required_words: Collection[str] = (),
    reference: Reference | None = None,
    questions: Sequence[Question] = (),
    calibration: Sequence[Question] = (),
    fitting: Sequence[Question] = (),
    scores: Mapping[str, Any] | None = None,
    licences: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
    force: bool = False,
) -> ExportReport:
    """Export a trained student as a bundle.

    :param counts: how often each word, as it is written, stands in the text that the bundle's words are picked from;
        None takes the words of the checkpoint's vocabulary, the first of which are the most frequent.
    :param text: what `counts` are of, for the report.
    :param required_words: words that get a row whether they are frequent or not.
    :param reference: logits of the trained student, which the bundle must reproduce; None leaves that out, and the
        manifest says so.
    :param questions: questions to compare on: real ones that were not trained on.
    :param calibration: others of that kind, for the scales of ONNX int8; none of `questions`.
    :param fitting: questions with answers to fit the probability of being right on, which is then measured on
        `questions`; none of these, and neighbours of one text.
    :param scores: measured EM and F1 and what they were measured on, for the manifest.
    :param licences: licences of data and vectors, for the manifest.
    :param force: replace a bundle that exists.
    :raises DataError: if the run folder cannot be used, or `output` exists and `force` is false.
    :raises BundleError: if a graph or the whole answers otherwise than the reference (see `verify`): nothing is then
        written.
    :raises InputError: if there is a reference but no question to compare on, a question of `calibration` or `fitting`
        is one of those, or the settings ask for what cannot be.
    :raises MissingExtraError: if a library is not installed that the settings need.
    """
    began = time.perf_counter()
    settings, target = settings or ExportSettings(), Path(output)
    check_output(run_folder, target, force=force)
    if reference is not None and not questions:
        raise InputError("no questions to verify the export on; expected some of the held-out articles")
    measured_on = [*(calibration if calibration_runs(settings) else ()), *fitting]
    shared = {question[:2] for question in questions} & {question[:2] for question in measured_on}
    if shared:
        raise InputError(
            f"{len(shared)} calibration questions are also verified on, such as {min(shared)[0]!r:.80}; expected others"
        )
    checkpoint = read_checkpoint(run_folder)
    counts = default_counts(checkpoint.vocabulary) if counts is None else counts
    ranked, required = rank_words(checkpoint, counts, required=required_words), len(set(required_words) - {""})
    words = choose_words(ranked, settings.words, required=required)
    exact, before = ExactInputs(checkpoint), time.perf_counter()
    with progress("calibrate", calibration_runs(settings) * len(calibration)) as advance:
        inputs = (exact(question.question, question.context)[0] for question in calibration)
        graphs = write_graphs(checkpoint, settings, inputs, advance=advance)
    graph_seconds = time.perf_counter() - before
    for graph in graphs:
        if graph.spec.role == "token":
            _check_token_graph(graph, checkpoint)
    bundle = _Bundle(checkpoint=checkpoint, graphs=graphs, name=bundle_name(target))
    if settings.max_size_bytes is not None:
        empty = bundle.size_without_table(build_table(checkpoint, [], settings.table), licences or {})
        words = _choose_within(ranked, checkpoint, settings, settings.max_size_bytes - empty, required)
    found: dict[str, Verification] = {}
    expected: Sequence[Logits] = []
    if reference is not None:
        with progress("reference", len(questions)) as advance:
            expected = reference(questions)
            advance(len(questions))
        for number, graph in enumerate(graphs):
            if graph.spec.role == "core":
                with progress(f"verify {graph.spec.file}", len(questions)) as advance:
                    checked = _verify_graph(graph, exact, expected, questions, checkpoint, advance)
                _refuse_graph(graph, checked, questions, calibration, checkpoint, settings)
                found[graph.spec.file] = checked
                graphs[number] = replace(graph, spec=replace(graph.spec, verification=checked.to_json()))

    table = build_table(checkpoint, words, settings.table)
    # What is compared is the bundle as a device loads it; it gets its name when it has passed.
    with _temporary_folder() as folder:
        staged, whole = Path(folder) / "staged.qab", None
        bundle.write(staged, table, b"[]")
        with Answerer.load(staged) as answerer:
            if reference is not None:
                with progress("verify bundle", len(questions)) as advance:
                    whole = _verify_bundle(answerer, expected, questions, settings, advance)
            verification = None if whole is None else {**whole.to_json(), **made_by(answerer)}
            likely = fit_probability(answerer, fitting, questions, progress)
        told: dict[str, Any] = {
            "probability": None if likely is None else likely.fit,
            "scores": scores,
            "verification": verification,
            "licences": licences,
        }
        bundle.write(staged, table, b"[]", **told, force=True)
        with Answerer.load(staged) as answerer:
            cases = make_cases(answerer, CASE_TEXTS)
    bundle.write(target, table, cases, **told, force=force)
    return ExportReport(
        path=target,
        files={name: len(content) for name, content in {**bundle.files(table), CASES_NAME: cases}.items()},
        words=len(words),
        text=text,
        graphs=found,
        bundle=whole,
        probability=likely,
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
    check_bundle_path(output, force=force)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bundle:
    """A bundle in the making: all of it but the table and the cases."""

    checkpoint: Checkpoint
    graphs: Sequence[Graph]
    name: str

    def files(self, table: Table) -> dict[str, bytes]:
        """Content of all files but the cases, by name."""
        graphs = {graph.spec.file: graph.content for graph in self.graphs}
        return {TOKENIZER_NAME: self.checkpoint.tokenizer_json, **table.files, **graphs}

    def size_without_table(self, empty: Table, licences: Mapping[str, Any]) -> int:
        """Bytes of all that is not the table or the vocabulary, cases and manifest included, rounded up."""
        with _temporary_folder() as folder:
            self.write(Path(folder) / "empty.qab", empty, b"[]")
            with Answerer.load(Path(folder) / "empty.qab") as answerer:
                cases = len(make_cases(answerer, CASE_TEXTS))
        others = sum(len(content) for name, content in self.files(empty).items() if name not in empty.files)
        return others + cases + RESERVED_BYTES + len(json.dumps(licences))

    def write(
        self,
        path: Path,
        table: Table,
        cases: bytes,
        *,
        probability: ProbabilityFit | None = None,
        scores: Mapping[str, Any] | None = None,
        verification: Mapping[str, Any] | None = None,
        licences: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        """Write the bundle, whole or not at all."""
        write_bundle(
            path,
            {**self.files(table), CASES_NAME: cases},
            name=self.name,
            graphs=[graph.spec for graph in self.graphs],
            table=table.spec,
            student=self.checkpoint.config,
            qa_edge_version=_version(),
            spacy_version=self.checkpoint.tokenizer.spacy_version,
            max_answer_tokens=self.checkpoint.sizes.max_answer_tokens,
            probability=probability,
            scores=scores,
            verification=verification,
            licences=licences,
            force=force,
        )


def _choose_within(
    ranked: Sequence[str], checkpoint: Checkpoint, settings: ExportSettings, budget: int, required: int
) -> list[str]:
    try:
        return choose_words_within(ranked, checkpoint, settings.table, budget, required=required)
    except InputError as error:
        assert settings.max_size_bytes is not None
        least = sum(map(len, build_table(checkpoint, ranked[:required], settings.table).files.values()))
        words = f"with the {required:,} required words alone" if required else "without a single word"
        raise InputError(
            f"a bundle of {settings.max_size_bytes / 1e6:g} MB was asked for; {words} this one takes"
            f" {(settings.max_size_bytes - budget + least) / 1e6:.2f} MB: allow more, or leave out an engine or a"
            " precision"
        ) from error


def _check_token_graph(graph: Graph, checkpoint: Checkpoint) -> None:
    """Refuse a token graph that gives other states than the trained student has of words without a vector."""
    words = [word for word in TOKEN_WORDS if not checkpoint.vocabulary.word_id(word)]
    ids = checkpoint.vocabulary.character_ids(words, checkpoint.sizes.characters_per_word).astype(np.int32)
    found = load_engine(graph.content, graph.spec).run({"character_ids": ids})["states"]
    expected = fold_states(checkpoint, words)
    allowed = TOKEN_TOLERANCE[graph.spec.precision] * float(np.abs(expected).max())
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= allowed:
        raise BundleError(
            f"the graph {graph.spec.file} gives states that differ from the trained student's by {difference:.2g},"
            f" {allowed:.2g} at most was expected; nothing was written"
        )


def _verify_graph(
    graph: Graph,
    exact: ExactInputs,
    expected: Sequence[Logits],
    questions: Sequence[Question],
    checkpoint: Checkpoint,
    advance: Callable[[int], None],
) -> Verification:
    """Run a core graph on the states that the trained student has."""
    engine, found, tokens = load_engine(graph.content, graph.spec), [], []
    for question in questions:
        logits = exact.logits(engine, question.question, question.context)
        found.append((logits.start, logits.end))
        tokens.append(logits.tokens)
        advance(1)
    limit = checkpoint.sizes.max_answer_tokens
    return _compare(f"the graph {graph.spec.file}", expected, found, questions, tokens, limit)


def _refuse_graph(
    graph: Graph,
    verification: Verification,
    questions: Sequence[Question],
    calibration: Sequence[Question],
    checkpoint: Checkpoint,
    settings: ExportSettings,
) -> None:
    """Refuse a core graph that does not do, and say what would."""
    noun = f"the graph {graph.spec.file}"
    if graph.spec.precision == "fp32":
        refuse_differences(verification, questions, noun)
        return

    def advice() -> str:
        if graph.spec.engine != "onnx" or graph.spec.precision != "int8" or not settings.static_int8:
            return "take another precision or calibration, or allow more (--margin)"
        effects = layer_effects(checkpoint.folder, calibration[:BLAME_QUESTIONS], calibration=settings.calibration)
        worst = ", ".join(effect.layer for effect in effects[1:4])
        return f"its worst layers are {worst}: keep them in float (--keep-float), or allow more (--margin)"

    refuse_loss(verification, settings.f1_margin, noun, advice)


def _verify_bundle(
    answerer: Answerer,
    expected: Sequence[Logits],
    questions: Sequence[Question],
    settings: ExportSettings,
    advance: Callable[[int], None],
) -> Verification:
    found, tokens = [], []
    for question in questions:
        logits = answerer.logits(question.question, question.context)
        found.append((logits.start, logits.end))
        tokens.append(logits.tokens)
        advance(1)
    limit = answerer.bundle.manifest.max_answer_tokens
    verification = _compare("the bundle", expected, found, questions, tokens, limit)
    advice = "give its table more words or a finer dtype, or allow more (--margin)"
    refuse_loss(verification, settings.f1_margin, "the bundle with its table", lambda: advice)
    return verification


def _compare(
    noun: str,
    expected: Sequence[Logits],
    found: Sequence[Logits],
    questions: Sequence[Question],
    tokens: Sequence[Any],
    limit: int,
) -> Verification:
    try:
        return compare(expected, found, questions=questions, tokens=tokens, max_answer_tokens=limit)
    except InputError as error:
        raise BundleError(
            f"{noun} cannot be compared with the trained student ({error}); nothing was written"
        ) from error


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="qa-edge-export.")
    except OSError as error:
        raise DataError(f"no temporary folder can be made ({error}); free some space or set TMPDIR") from error


def _version() -> str:
    """The version of qa-edge; it is released together with the runtime, whose version stands in for a bare checkout."""
    try:
        return metadata.version("qa-edge")
    except metadata.PackageNotFoundError:
        return qa_edge_runtime.__version__
