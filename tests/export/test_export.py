"""From a run folder to a bundle that answers as the torch student does, or to nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_student import WORDS
from trained_run import CALIBRATION, PAIRS, Trained, folder_size

import qa_edge_export.export as export_module
from qa_edge_export.case_texts import CASE_TEXTS
from qa_edge_export.report import format_report
from qa_edge_export.settings import ExportSettings
from qa_edge_export.token_table import table_keys
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.table import TABLE_DTYPES

pytest.importorskip("onnxruntime")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"heads": 2}, {"word_dim": 0}, {"word_dim": 0, "words": ()}],
    ids=["one head", "two", "characters", "no words"],
)
def test_a_bundle_in_full_precision_answers_as_torch_does(tmp_path: Path, sizes: dict[str, Any]) -> None:
    trained = Trained(tmp_path, **sizes)
    report = trained.export(licences={"data": "own"}, scores={"f1": 70.5, "on": "dev"})
    assert report.bundle is not None and list(report.graphs) == ["core.fp32.onnx"]
    for found in (report.bundle, report.graphs["core.fp32.onnx"]):
        assert found.equal_share == 1 and found.largest_difference < 2e-4
        assert found.scores is not None and found.scores.f1 == 100 and found.scores.total == len(PAIRS)
    with Answerer.load(report.path) as answerer:
        for question, context in PAIRS:
            logits = answerer.logits(question, context)
            expected = trained.reference.logits(question, context)
            np.testing.assert_allclose([logits.start, logits.end], expected, atol=2e-4)
    manifest = Bundle.open(report.path).manifest
    assert manifest.licences == {"data": "own"} and manifest.scores == {"f1": 70.5, "on": "dev"}
    assert manifest.student["hidden"] == 16 and manifest.max_answer_tokens == 30 and manifest.name == "tiny"
    assert {name: record.size_bytes for name, record in manifest.files.items()} == report.files
    assert trained.left() == ["run", "tiny.qab"]


def test_several_engines_and_precisions_share_a_bundle(trained: Trained) -> None:
    pytest.importorskip("ai_edge_litert")
    settings = ExportSettings(engines=("onnx", "tflite"), precisions=("fp32", "fp16", "int8"), f1_margin=100)
    report = trained.export(settings=settings)
    manifest = Bundle.open(report.path).manifest
    assert manifest.engines == ("onnx", "tflite")
    assert {graph.file for graph in manifest.graphs} == {
        *(f"core.{precision}.{engine}" for precision in settings.precisions for engine in settings.engines),
        *(f"token.{engine}" for engine in settings.engines),
    }
    tolerances = {"fp32": 2e-4, "fp16": 0.05, "int8": 1.5}
    for graph in manifest.graphs:
        if graph.role == "core":
            assert graph.verification == report.graphs[graph.file].to_json()
            assert report.graphs[graph.file].largest_difference < tolerances[graph.precision], graph.file
    assert report.bundle is not None
    assert manifest.verification == {**report.bundle.to_json(), "engine": "tflite", "precision": "int8"}
    exact = [trained.reference.logits(*pair) for pair in PAIRS]
    spread = np.std(np.concatenate([logits for pair in exact for logits in pair]))
    for engine in settings.engines:
        for precision in settings.precisions:
            with Answerer.load(report.path, engine=engine, precision=precision) as answerer:
                assert (answerer.engine, answerer.precision) == (engine, precision)
                found = [answerer.logits(*pair) for pair in PAIRS]
            off = [
                np.subtract(logits, expected).ravel()
                for pair, others in zip(found, exact, strict=True)
                for logits, expected in zip((pair.start, pair.end), others, strict=True)
            ]
            assert np.sqrt(np.mean(np.concatenate(off) ** 2)) < 0.15 * spread, (engine, precision)


@pytest.mark.parametrize("dtype", TABLE_DTYPES)
def test_tables_of_every_dtype_answer_with_known_and_unknown_words(tmp_path: Path, dtype: str) -> None:
    trained = Trained(tmp_path, hidden=32)
    # All forms that the student has a vector of, and half of the others in both cases: one that is missing is not found
    # in lower case either, and what the token graph gives for it is what the student has.
    known = trained.reference.vocabulary.word_id
    forms = trained.reference.forms(PAIRS)
    half = sorted({form.lower() for form in forms if not known(form)})[::2]
    words = [form for form in forms if known(form) or form.lower() in half]
    assert len(words) < len(forms) - 50
    report = trained.export(
        settings=ExportSettings(precisions=("fp32",), table=dtype, f1_margin=100), required_words=words
    )
    manifest = Bundle.open(report.path).manifest
    assert manifest.table.dtype == dtype and manifest.table.rows == report.words + 1 == len({*words, *WORDS}) + 1
    assert ("table_scales.npy" in report.files) == (dtype in ("int8", "int4"))
    token = manifest.graph("token", "onnx")
    assert token.precision == ("fp32" if dtype == "float32" else "fp16")
    assert report.bundle is not None and report.graphs["core.fp32.onnx"].largest_difference < 2e-4
    scale = np.std(np.concatenate([logits for pair in PAIRS for logits in trained.reference.logits(*pair)]))
    tolerances = {"float32": 1e-4, "float16": 0.02, "int8": 0.2, "int4": 3.0}
    assert report.bundle.percentile_999 < tolerances[dtype] * scale
    if dtype == "float32":
        assert report.bundle.equal_share == 1


def test_words_are_those_of_the_text_and_those_required(trained: Trained) -> None:
    counts = {"the": 9, "The": 5, "bridge": 7, "zxqv": 100, "water": 1}
    settings = ExportSettings(precisions=("fp32",), words=3)
    trained.export(settings=settings, counts=counts, required_words=["Wern"], reference=None)
    assert Bundle.open(trained.folder / "tiny.qab").vocabulary().words == ("wern", "the", "bridge")
    report = trained.export("all.qab", ExportSettings(precisions=("fp32",)), required_words=(), reference=None)
    assert Bundle.open(report.path).vocabulary().words == WORDS, "the run's own, without a text"
    report = trained.export(
        "none.qab", ExportSettings(precisions=("fp32",)), counts={}, required_words=(), reference=None
    )
    assert report.words == 0, "a text without a word is not the same as no text"
    with pytest.raises(InputError, match="vocabulary of 4 words was asked for, but there are 3: "):
        trained.export("no.qab", ExportSettings(words=4), counts={"the": 1, "is": 2, "a": 3}, required_words=())


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_bundle_is_no_larger_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    trained = Trained(tmp_path)
    # All that grows with the number of words is at its largest: the cases' own words have the last rows of the table,
    # and their ids the most digits; there are graphs of all kinds, each with figures.
    filler = [f"w{number:05}" for number in range(30_000)]
    words = [*filler[:12_000], *trained.reference.forms(CASE_TEXTS), *filler[12_000:]]
    precisions = ("fp32", "fp16", "int8")
    monkeypatch.setattr(export_module, "rank_words", lambda *_, **__: words)
    common: dict[str, Any] = {"required_words": (), "licences": {"data": "CC BY-SA 4.0 " * 20}}
    budget = 1_120_000 if dtype == "int8" else 1_020_000
    settings = ExportSettings(
        engines=("onnx", "tflite"), precisions=precisions, table=dtype, max_size_bytes=budget, f1_margin=100
    )
    report = trained.export(settings=settings, **common)
    assert 12_600 < report.words < len(words)
    assert budget - 40_000 < folder_size(report.path) <= budget
    assert Bundle.open(report.path).vocabulary().words == tuple(table_keys(words[: report.words]))


def test_layers_that_are_kept_in_float_bring_the_graph_nearer(trained: Trained) -> None:
    reports = [
        trained.export(f"{len(kept)}.qab", ExportSettings(keep_float=frozenset(kept), f1_margin=100))
        for kept in ((), ("encoder.attention", "blocks.0.attention", "blocks.0.feedforward", "blocks.1.attention"))
    ]
    nothing, some = (report.graphs["core.int8.onnx"] for report in reports)
    assert some.percentile_999 < nothing.percentile_999
    assert reports[1].files["core.int8.onnx"] != reports[0].files["core.int8.onnx"]
    with pytest.raises(InputError, match=r"no layer 'blocks\.9\.attention'; there are encoder\.convolutions\.0, "):
        trained.export("no.qab", ExportSettings(keep_float=frozenset({"blocks.9.attention"})))


@pytest.mark.parametrize("calibration", ["max", "percentile", "error", "dynamic"])
def test_int8_scales_of_every_kind_give_a_bundle(trained: Trained, calibration: str) -> None:
    settings = ExportSettings(calibration=calibration, f1_margin=100)
    report = trained.export(settings=settings, calibration=() if calibration == "dynamic" else CALIBRATION)
    assert report.graphs["core.int8.onnx"].equal_share > 0.6
    if calibration != "dynamic":
        with pytest.raises(InputError, match="calibrate"):
            trained.export("no.qab", settings, calibration=())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_ort_format_runs_and_answers_equally(trained: Trained, precision: str) -> None:
    settings = {"precisions": (precision,), "f1_margin": 100}
    plain, ort = (
        trained.export(f"{name}.qab", ExportSettings(ort=name == "ort", **settings)) for name in ("plain", "ort")
    )
    assert {"token.ort", f"core.{precision}.ort"} < ort.files.keys() and not any("onnx" in name for name in ort.files)
    assert (ort.path / "token.ort").read_bytes()[4:8] == b"ORTM"
    with Answerer.load(plain.path) as first, Answerer.load(ort.path) as second:
        for question, context in PAIRS:
            left, right = first.logits(question, context), second.logits(question, context)
            np.testing.assert_allclose(left.start, right.start, atol=1e-3)
            np.testing.assert_allclose(left.end, right.end, atol=1e-3)
            assert first.answer(question, context).text == second.answer(question, context).text


def test_a_bundle_made_without_a_reference_says_so(trained: Trained) -> None:
    report = trained.export(reference=None)
    manifest = Bundle.open(report.path).manifest
    assert report.bundle is None and manifest.verification == {} and not report.graphs
    assert all(graph.verification == {} for graph in manifest.graphs)
    assert "not verified" in format_report(report) and "core.fp32.onnx" in format_report(report)


def test_the_report_has_a_line_for_each_file_with_its_figures(trained: Trained) -> None:
    text = format_report(trained.export(settings=ExportSettings(precisions=("fp32", "int8"), f1_margin=100)))
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert {"core.fp32.onnx", "core.int8.onnx", "token.onnx", "table.npy", "cases.json", "in"} < lines.keys()
    assert "9 of 9" in lines["core.fp32.onnx"] and "100.00" in lines["core.fp32.onnx"]
    assert "of 9" not in lines["table.npy"]


def test_progress_is_told_of_each_stage_and_of_each_question(trained: Trained) -> None:
    done: dict[str, list[int]] = {}

    def progress(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        done[description] = [total, 0]
        return Stage(done[description])

    trained.export(settings=ExportSettings(precisions=("fp32", "int8"), f1_margin=100), progress=progress)
    assert {"verify core.fp32.onnx", "verify core.int8.onnx", "verify bundle", "reference"} < done.keys()
    assert all(total == advanced for total, advanced in done.values()), done
    assert done["verify bundle"] == [len(PAIRS)] * 2


class Stage(AbstractContextManager[Callable[[int], None]]):
    """A stage of work: [units in all, units done]."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def __enter__(self) -> Callable[[int], None]:
        return self.advance

    def __exit__(self, *exception: object) -> None:
        pass

    def advance(self, units: int) -> None:
        self.counts[1] += units


def test_the_same_run_gives_the_same_files(trained: Trained) -> None:
    settings = ExportSettings(precisions=("int8",), table="int4", f1_margin=100)
    paths = [trained.export(name, settings).path for name in ("a.qab", "b.qab")]
    first, second = (json.loads((path / "manifest.json").read_text())["files"] for path in paths)
    assert first == second
