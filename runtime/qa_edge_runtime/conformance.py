"""Whether this machine answers as the trained student does: runs the conformance cases that a bundle carries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cases import Cases, QuestionCase
from qa_edge_runtime.conformance_stages import (
    StageResult,
    check_answers,
    check_decoder,
    check_ids,
    check_logits,
    check_positions,
    check_states,
    check_tokens,
)
from qa_edge_runtime.errors import BundleError, InputError, MissingExtraError
from qa_edge_runtime.manifest import CASES_NAME


@dataclass(frozen=True, kw_only=True)
class GraphResult:
    """What the cases found of one graph on this machine.

    :ivar package: that ran it, with its version; None if it was not run.
    :ivar stages: in the order in which a question goes through them.
    :ivar not_run: why it was not run, in a sentence.
    """

    engine: str
    precision: str
    package: str | None = None
    stages: tuple[StageResult, ...] = ()
    not_run: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was run and all stages agree."""
        return self.not_run is None and all(stage.ok for stage in self.stages)

    @property
    def first_difference(self) -> str | None:
        """The first difference of the first stage that has one."""
        return next((stage.first_difference for stage in self.stages if not stage.ok), None)


def verify_bundle(
    path: str | os.PathLike[str], *, engine: str | None = None, precision: str | None = None, threads: int = 1
) -> list[GraphResult]:
    """Run a bundle's conformance cases on every core graph that the installed engines can run.

    :param engine: "onnx" or "tflite"; only its graphs if given, and `precision` likewise.
    :return: a result a graph, those that cannot be run here included.
    :raises BundleError: if the bundle or its cases cannot be used.
    :raises InputError: if the bundle has no such graph.
    :raises MissingExtraError: if not one of the graphs can be run here.
    """
    bundle = Bundle.open(path)
    try:
        cases = Cases.from_json(bundle.read(CASES_NAME))
    except BundleError as error:
        raise BundleError(f"bundle {path}: {CASES_NAME}: {error}") from None
    manifest = bundle.manifest
    named = [
        (held, precise)
        for held in manifest.engines
        for precise in manifest.precisions(held)
        if engine in (held, None) and precision in (precise, None)
    ]
    if not named:
        wanted = " in ".join(part for part in (engine, precision) if part)
        raise InputError(f"bundle {path} has no graph for {wanted}; qa_edge_runtime info shows those it has")
    shared = (
        check_tokens(bundle, cases),
        check_ids(bundle, cases),
        check_positions(bundle, cases),
        check_decoder(cases),
    )
    results, refused = [], None
    for held, precise in named:
        try:
            results.append(_verify_graph(bundle, cases, held, precise, threads, shared))
        except MissingExtraError as error:
            refused = error
            results.append(GraphResult(engine=held, precision=precise, not_run=str(error)))
    bundle.close()
    if refused is not None and all(result.not_run for result in results):
        raise refused
    return results


def format_result(result: GraphResult) -> str:
    """One line of a graph for a person: whether it answers as trained, and how many cases of each stage do."""
    graph = f"{result.engine} {result.precision}"
    if result.not_run is not None:
        return f"{graph}: not run: {result.not_run}"
    stages = []
    for stage in result.stages:
        text = f"{stage.name} {stage.passed} of {stage.total}"
        if stage.largest_difference is not None:
            text += f" (off by {stage.largest_difference:.2g}, allowed {stage.tolerance:.2g})"
        stages.append(text)
    verdict = "as trained" if result.ok else "NOT as trained"
    return f"{graph} in {result.package}: {verdict}: {', '.join(stages)}"


def results_to_json(results: Sequence[GraphResult]) -> dict[str, Any]:
    """The results as JSON holds them, with `ok`: whether all graphs that were run here answer as trained."""
    graphs = [{**asdict(result), "ok": result.ok} for result in results]
    return {"ok": all(result.ok for result in results if result.not_run is None), "graphs": graphs}


def refuse_differences(path: str | os.PathLike[str], results: Sequence[GraphResult]) -> None:
    """Refuse a machine on which a graph does not answer as the trained student does.

    :raises BundleError: with the first difference.
    """
    for result in results:
        if result.first_difference is not None:
            raise BundleError(f"bundle {path}: {result.engine} {result.precision}: {result.first_difference}")


def _verify_graph(
    bundle: Bundle, cases: Cases, engine: str, precision: str, threads: int, shared: tuple[StageResult, ...]
) -> GraphResult:
    tolerance = cases.tolerance(engine, precision)
    known = [
        (number, case, expected)
        for number, case in enumerate(cases.questions)
        if (expected := cases.expected(case, engine, precision)) is not None
    ]
    if tolerance is None or not known:
        held = f"{CASES_NAME} holds no case of the {engine} graph in {precision}"
        raise BundleError(f"bundle {bundle.path}: {held}: export the bundle again")
    with _Answerers(bundle.path, engine, precision, threads) as answerer:
        first = answerer(known[0][1])
        states = check_states(bundle, cases, engine, precision)
        return GraphResult(
            engine=engine,
            precision=precision,
            package=f"{first.engine_name} {first.engine_version}",
            stages=(*shared, states, *check_logits(known, tolerance, answerer), check_answers(known, answerer)),
        )


class _Answerers:
    """Answerers of one graph, one for each way to cut texts into windows."""

    def __init__(self, path: Path, engine: str, precision: str, threads: int) -> None:
        self._path, self._engine, self._precision, self._threads = path, engine, precision, threads
        self._opened: dict[tuple[int, int], Answerer] = {}

    def __call__(self, case: QuestionCase) -> Answerer:
        windows = case.window_tokens, case.overlap_tokens
        if windows not in self._opened:
            # Opened anew: an Answerer that is closed closes its bundle.
            self._opened[windows] = Answerer.load(
                self._path,
                engine=self._engine,
                precision=self._precision,
                threads=self._threads,
                window_tokens=case.window_tokens,
                overlap_tokens=case.overlap_tokens,
            )
        return self._opened[windows]

    def __enter__(self) -> _Answerers:
        return self

    def __exit__(self, *exception: Any) -> None:
        for answerer in self._opened.values():
            answerer.close()
