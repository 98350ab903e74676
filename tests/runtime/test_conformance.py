"""Each stage is broken on purpose, and the conformance cases say which one it was."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
from tiny_bundle import (
    CHARACTERS,
    TOKENIZER,
    WORDS,
    core_graph,
    graph_specs,
    npy,
    table_files,
    token_graph,
    write_tiny_bundle,
)

from qa_edge_export.cases import CASE_TEXTS, make_cases
from qa_edge_runtime import conformance, conformance_stages
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.cases import Cases
from qa_edge_runtime.cli import main
from qa_edge_runtime.conformance import GraphResult, format_result, verify_bundle
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import BundleError, InputError, MissingExtraError
from qa_edge_runtime.positions import position_signal
from qa_edge_runtime.vocabulary import Vocabulary
from qa_edge_runtime.windows import Window, Windows

pytest.importorskip("onnxruntime")

STAGES = ("tokens", "ids", "positions", "decoder", "states", "logits", "logits rms", "answers")
PAIRS = CASE_TEXTS[2:4]
GRAPHS = graph_specs(onnx=["fp32", "int8"])
NAMES = {
    "tokenizer": "tokenizer.json",
    "vocabulary": "vocabulary.json",
    "scales": "table_scales.npy",
    "token": "token.onnx",
    "core": "core.fp32.onnx",
    "cases": "cases.json",
}
CORES = {"core.int8.onnx": core_graph(scale=2.0)}


@pytest.fixture(scope="module")
def cases_json(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("cases") / "tiny.qab"
    write_tiny_bundle(path, files=CORES, graphs=GRAPHS)
    with Answerer.load(path) as answerer:
        return make_cases(answerer, PAIRS)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, cases_json: bytes) -> Write:
    """Writes a bundle with the cases of the right one, and other files as given."""

    def write_with(**files: bytes) -> Path:
        named = {NAMES[key]: content for key, content in files.items()}
        path = tmp_path / "tiny.qab"
        write_tiny_bundle(path, files={**CORES, "cases.json": cases_json, **named}, graphs=GRAPHS, force=True)
        return path

    return write_with


def failed(results: Sequence[GraphResult]) -> set[str]:
    return {stage.name for result in results for stage in result.stages if not stage.ok}


def test_the_machine_that_made_the_cases_passes_them(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write()
    results = verify_bundle(path)
    assert [(result.engine, result.precision, result.ok) for result in results] == [
        ("onnx", "int8", True),
        ("onnx", "fp32", True),
    ]
    for result in results:
        assert tuple(stage.name for stage in result.stages) == STAGES
        assert all(stage.passed == stage.total > 0 for stage in result.stages) and result.first_difference is None
    assert main(["verify", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("onnxruntime" in line and ": as trained: tokens " in line for line in lines)
    assert main(["verify", str(path), "--precision", "fp32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [(graph["precision"], graph["ok"]) for graph in found["graphs"]] == [("fp32", True)]


def test_the_first_difference_is_one_sentence_and_the_exit_code_is_one(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tokenizer=json.dumps({**TOKENIZER, "suffix": r"[.]$"}).encode())
    assert main(["verify", str(path)]) == 1
    output = capsys.readouterr()
    assert all(": NOT as trained: tokens " in line for line in output.out.splitlines())
    assert output.err.count("\n") == 1
    expected = "tokens of text 0 ('Who built the old bridge over the Wern?'): token 7: expected 'Wern' from 34 to 38"
    assert expected in output.err and "found 'Wern?' from 34 to 39" in output.err
    assert main(["verify", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and "tokens of text 0" in found["graphs"][0]["stages"][0]["first_difference"]


def test_a_wrong_vocabulary_is_seen_in_the_ids(write: Write) -> None:
    words = [*WORDS[1:], WORDS[0]]
    vocabulary = json.dumps({"format_version": 1, "words": words, "characters": CHARACTERS}).encode()
    results = verify_bundle(write(vocabulary=vocabulary))
    assert "ids" in failed(results) and not failed(results) & {"tokens", "positions", "decoder"}
    assert "word id of 'the' in text 0: expected 3, found 2" in str(results[0].first_difference)


def test_a_wrong_scale_is_seen_in_the_states(write: Write) -> None:
    scales = np.load(io.BytesIO(table_files("int8", 3)["table_scales.npy"]))
    results = verify_bundle(write(scales=npy((scales * np.float16(1.01)).astype(np.float16))))
    assert failed(results) == {"states", "logits", "logits rms"}
    assert " of the table): column " in str(results[0].first_difference)


def test_a_wrong_token_graph_is_seen_in_the_states(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_bundle, "UNKNOWN", tiny_bundle.UNKNOWN * np.float32(1.01))
    results = verify_bundle(write(token=token_graph()))
    assert {"states"} <= failed(results) <= {"states", "logits", "logits rms", "answers"}
    assert "(token graph): column " in str(results[0].first_difference)


def test_a_wrong_core_graph_is_seen_in_its_own_logits_alone(write: Write) -> None:
    eight, full = verify_bundle(write(core=core_graph(scale=1.2)))
    assert eight.ok and failed([full]) == {"logits", "logits rms"}
    assert str(full.first_difference).startswith(
        "case 0 ('Who built the old bridge over the Wern?'): start logit of token"
    )


def test_logits_that_are_all_a_little_off_are_seen_together(write: Write, cases_json: bytes) -> None:
    found = json.loads(cases_json)
    for graph in found["graphs"]:  # each logit may be off, but not all of them
        graph["logit_tolerance"] = 10.0
    for case in found["cases"]:
        for expected in case["expected"]:
            expected["start_logits"] = [logit + 0.01 for logit in expected["start_logits"]]
    assert failed(verify_bundle(write(cases=json.dumps(found).encode()))) == {"logits rms"}


@pytest.mark.parametrize(
    ("where", "name", "broken", "stages", "sentence"),
    [
        (
            Vocabulary,
            "character_ids",
            lambda self, tokens, width=16: np.full((len(tokens), width), 2),
            {"ids", "states"},
            "ids of the word",
        ),
        (
            conformance_stages,
            "position_signal",
            lambda tokens, hidden: position_signal(tokens + 1, hidden)[1:],
            {"positions"},
            "position signal of token 0: column 0: expected 0, found 0.84147",
        ),
        (
            conformance_stages,
            "decode_spans",
            lambda start, end, max_tokens: decode_spans(start, end, max_tokens=30),
            {"decoder"},
            "best span in the logits of decoder case",
        ),
        (
            Windows,
            "cut",
            lambda self, tokens, chosen=None: [Window(start=0, stop=tokens, kept_start=0, kept_stop=tokens)],
            {"logits", "logits rms"},
            "case 2 ('How long must a burn be held under water?')",
        ),
        (
            Answerer,
            "answer",
            lambda self, question, context: replace(self.answers(question, context)[0], start=1),
            {"answers"},
            "case 0 ('Who built the old bridge over the Wern?'): expected the answer '",
        ),
    ],
    ids=["characters", "positions", "decoder", "windows", "answers"],
)
def test_each_stage_that_is_broken_is_reported(
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    broken: Callable[..., Any],
    stages: set[str],
    sentence: str,
) -> None:
    path = write()
    monkeypatch.setattr(where, name, broken)
    results = verify_bundle(path, precision="fp32")
    assert stages & failed(results) and min(map(STAGES.index, failed(results))) == min(map(STAGES.index, stages))
    assert str(results[0].first_difference).startswith(sentence)


def test_a_graph_that_cannot_be_run_here_is_passed_over_and_said(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path, verify_graph = write(), conformance._verify_graph

    def without_int8(bundle: Any, cases: Any, engine: str, precision: str, *others: Any) -> GraphResult:
        if precision == "int8":
            raise MissingExtraError("no int8 here")
        return verify_graph(bundle, cases, engine, precision, *others)

    monkeypatch.setattr(conformance, "_verify_graph", without_int8)
    eight, full = verify_bundle(path)
    assert format_result(eight) == "onnx int8: not run: no int8 here" and not eight.ok and full.ok
    assert main(["verify", str(path)]) == 0
    with pytest.raises(MissingExtraError, match="no int8 here"):
        verify_bundle(path, precision="int8")
    with pytest.raises(InputError, match="has no graph for tflite in int8"):
        verify_bundle(path, engine="tflite", precision="int8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found.update(format_version=1), "cases of format 1, expected 2: export again"),
        (lambda found: found.update(format_version=3), "cases of format 3, expected 2: upgrade qa-edge-runtime"),
        (lambda found: found.pop("words"), r"an entry is missing or of another kind \(KeyError\('words'\)\)"),
        (lambda found: found["texts"][0].update(text=7), "7 is not text"),
        (lambda found: found["texts"][0].update(word_ids=[True]), "True is not a whole number"),
        (lambda found: found["decoder"][0].update(start_logits="12"), "'1' is not a number"),
        (lambda found: found["cases"][0]["expected"][0].update(graphs=[2]), "a case names graph 2 of 2"),
        (lambda found: found["cases"][0]["expected"][0].update(end_logits=None), "start_logits without end_logits"),
        (lambda found: found["cases"][0]["expected"][0].update(answers=[]), "without an answer that counts as right"),
        (lambda found: found["positions"][0].update(position=10**12), "position 1000000000000 is beyond 100,000"),
        (lambda found: found["graphs"].reverse(), None),
        (
            lambda found: [case.update(expected=[]) for case in found["cases"] + found["documents"]],
            "holds no case of the onnx graph in int8",
        ),
    ],
)
def test_cases_of_another_shape_are_refused(
    write: Write, cases_json: bytes, change: Callable[[dict[str, Any]], Any], sentence: str | None
) -> None:
    found = json.loads(cases_json)
    change(found)
    path = write(cases=json.dumps(found).encode())
    if sentence is None:  # the graphs' numbers now say something else
        assert "logits" in failed(verify_bundle(path))
        return
    with pytest.raises(BundleError, match=sentence):
        verify_bundle(path)


def test_cases_are_read_as_they_were_written(cases_json: bytes) -> None:
    cases = Cases.from_json(cases_json)
    assert cases.to_json() == cases_json and cases_json.isascii()
    with pytest.raises(BundleError, match="is not JSON"):
        Cases.from_json(cases_json[:-9])
