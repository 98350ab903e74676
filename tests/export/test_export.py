"""From a run folder to a bundle that answers as the torch student does, or to nothing at all."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_student import TorchReference, random_student, tiny_config, write_run
from safetensors.numpy import load_file, save_file

from qa_edge_export.case_texts import CASE_TEXTS
from qa_edge_export.export import export_bundle, format_report
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import BundleError, DataError, InputError

QUESTIONS = [
    ("Where is the switch?", "The switch is behind the grey panel, above the water meter. The bridge is old."),
    ("Who can't come?", 'Anna can\'t come - she went to the bridge. "Boris" is in the water.'),
    ("Why?", "Because."),
]


@pytest.mark.parametrize(
    "sizes",
    [{}, {"heads": 2}, {"word_dim": 0}, {"word_dim": 0, "words": ()}],
    ids=["one head", "two", "characters", "no words"],
)
def test_a_bundle_answers_as_torch_does(tmp_path: Path, sizes: dict[str, Any]) -> None:
    known = {"words": sizes.pop("words")} if "words" in sizes else {}
    student = random_student(tiny_config(**sizes))
    reference = TorchReference(student, **known)
    run, output, answered = write_run(tmp_path / "run", student, **known), tmp_path / "tiny.qab", []
    report = export_bundle(
        run, output, reference=reference, questions=QUESTIONS, licences={"data": "own"}, advance=answered.append
    )
    assert report.verification is not None and report.verification.equal_share == 1
    assert report.verification.largest_difference < 1e-4 and sum(answered) == len(QUESTIONS)
    with Answerer.load(output) as answerer:
        for question, context in QUESTIONS:
            start, end = reference.logits(question, context)
            logits = answerer.logits(question, context)
            np.testing.assert_allclose([logits.start, logits.end], [start, end], atol=1e-4)
    manifest = Bundle.open(output).manifest
    assert manifest.verification["questions"] == len(QUESTIONS) and manifest.licences == {"data": "own"}
    assert manifest.student["hidden"] == 16 and manifest.max_answer_tokens == 30 and manifest.name == "tiny"
    assert {name: record.size_bytes for name, record in manifest.files.items()} == report.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.qab"]


def test_each_conformance_case_is_what_the_bundle_does(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    export_bundle(write_run(tmp_path / "run", student), tmp_path / "tiny.qab")
    bundle = Bundle.open(tmp_path / "tiny.qab")
    cases, tokenizer, vocabulary = bundle.cases(), bundle.tokenizer(), bundle.vocabulary()
    assert len(cases) == len(CASE_TEXTS) >= 24
    reference = TorchReference(student)
    for case in cases:
        for text, side in ((case["question"], case["question_side"]), (case["context"], case["context_side"])):
            assert side["tokens"] == [list(token) for token in tokenizer(text)]
            assert all(text[start:end] == token for token, start, end in side["tokens"])
            texts = [token for token, _, _ in side["tokens"]]
            assert side["word_ids"] == vocabulary.word_ids(texts).tolist()
            assert side["character_ids"] == vocabulary.character_ids(texts).tolist()
        answer = case["answer"]
        assert case["context"][answer["start"] : answer["end"]] == answer["text"]
        logits = reference.logits(case["question"], case["context"])
        np.testing.assert_allclose([case["start_logits"], case["end_logits"]], logits, atol=2e-4)


def test_a_bundle_made_without_a_reference_says_so(tmp_path: Path) -> None:
    report = export_bundle(write_run(tmp_path / "run", random_student(tiny_config())), tmp_path / "tiny.qab")
    assert report.verification is None and Bundle.open(tmp_path / "tiny.qab").manifest.verification == {}
    assert "verified" in format_report(report) and "core.onnx" in format_report(report)


def test_a_bundle_of_other_weights_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    reference, run = TorchReference(student), write_run(tmp_path / "run", student)
    weights = load_file(run / "model.safetensors")
    save_file({**weights, "start.weight": -weights["start.weight"]}, run / "model.safetensors")
    with pytest.raises(BundleError, match=r"'Where is the switch\?'"):
        export_bundle(run, tmp_path / "new" / "tiny.qab", reference=reference, questions=QUESTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_bundle_that_stands_there_survives_a_refused_one(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    reference, run, output = TorchReference(student), write_run(tmp_path / "run", student), tmp_path / "tiny.qab"
    export_bundle(run, output, reference=reference, questions=QUESTIONS)
    before = (output / "manifest.json").read_bytes()
    weights = load_file(run / "model.safetensors")
    save_file({**weights, "end.weight": -weights["end.weight"]}, run / "model.safetensors")
    with pytest.raises(BundleError):
        export_bundle(run, output, reference=reference, questions=QUESTIONS, force=True)
    assert (output / "manifest.json").read_bytes() == before
    with pytest.raises(DataError, match="exists already"):
        export_bundle(run, output)
    export_bundle(run, output, force=True)
    assert (output / "manifest.json").read_bytes() != before


def test_the_run_is_no_place_for_its_bundle(tmp_path: Path) -> None:
    run = write_run(tmp_path / "around" / "run", random_student(tiny_config()))
    (run / "manifest.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for output in (run, run / ".." / "run", tmp_path / "around"):
        with pytest.raises(DataError, match="holds the run"):
            export_bundle(run, output, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_logits_over_other_tokens_are_refused(tmp_path: Path) -> None:
    student = random_student(tiny_config())
    run = write_run(tmp_path / "run", student)
    with pytest.raises(BundleError, match="same tokens"):
        export_bundle(
            run,
            tmp_path / "tiny.qab",
            reference=lambda pairs: [(np.zeros(2), np.zeros(2))] * len(pairs),
            questions=QUESTIONS,
        )
    with pytest.raises(InputError, match="no questions"):
        export_bundle(run, tmp_path / "tiny.qab", reference=TorchReference(student))
    assert not (tmp_path / "tiny.qab").exists()


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(DataError, match="free some space"):
        export_bundle(run, tmp_path / "tiny.qab")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    manifests = []
    for name in ("a.qab", "b.qab"):
        export_bundle(run, tmp_path / name)
        manifests.append(json.loads((tmp_path / name / "manifest.json").read_text())["files"])
    assert manifests[0] == manifests[1]


def test_export_needs_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    script = f"""
import pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "spacy", "qa_edge"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import qa_edge_export
names = [module.name for module in pkgutil.iter_modules(qa_edge_export.__path__)]
assert "export" in names
for name in names:
    __import__("qa_edge_export." + name)
from qa_edge_export.export import export_bundle
export_bundle({str(run)!r}, {str(tmp_path / "tiny.qab")!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["onnx", "safetensors"])
def test_a_missing_extra_is_named(tmp_path: Path, missing: str) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    script = f"""
import sys
sys.modules[{missing!r}] = None
from qa_edge_export.export import export_bundle
from qa_edge_runtime.errors import MissingExtraError
try:
    export_bundle({str(run)!r}, {str(tmp_path / "tiny.qab")!r})
except MissingExtraError as error:
    assert "qa-edge[train]" in str(error)
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
