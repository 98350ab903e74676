"""What may not be exported is refused before anything has its name, and what is missing is said."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from random_student import random_student, tiny_config, write_run
from trained_run import CALIBRATION, FLOAT, PAIRS, Trained, folder_size

from qa_edge_export import graphs as graphs_module
from qa_edge_export.export import export_bundle
from qa_edge_export.settings import ExportSettings
from qa_edge_export.verify import Question
from qa_edge_runtime.errors import BundleError, DataError, InputError

pytest.importorskip("onnxruntime")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def test_a_size_that_cannot_be_met_names_the_smallest_that_can(trained: Trained) -> None:
    with pytest.raises(InputError, match=r"bundle of 0\.05 MB was asked for; .*takes 0\.\d\d MB: allow more") as caught:
        trained.export(settings=ExportSettings(precisions=("fp32",), max_size_bytes=50_000))
    assert trained.left() == ["run"]
    smallest = float(str(caught.value).split("takes ")[1].split(" MB")[0])
    settings = ExportSettings(precisions=("fp32",), max_size_bytes=round((smallest + 0.01) * 1e6), f1_margin=100)
    report = trained.export(settings=settings)
    assert folder_size(report.path) <= settings.max_size_bytes


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_an_int8_graph_that_costs_too_much_is_refused_and_nothing_is_written(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "tflite":
        pytest.importorskip("ai_edge_litert")
    honest = graphs_module.limits
    monkeypatch.setattr(
        graphs_module, "limits", lambda found, method: {p: v * 0.01 for p, v in honest(found, method).items()}
    )
    settings = ExportSettings(engines=(engine,), precisions=("fp32", "int8"))
    advice = "worst layers are .*keep-float" if engine == "onnx" else "another precision or calibration"
    with pytest.raises(BundleError, match=rf"core\.int8\.{engine} has F1 \d.* 100\.00.*margin of 0\.3.*{advice}"):
        trained.export("new/tiny.qab", settings)
    assert trained.left() == ["run"]
    report = trained.export(settings=ExportSettings(engines=(engine,), f1_margin=100))
    assert report.graphs[f"core.int8.{engine}"].f1_loss > 1


def test_a_table_that_costs_too_much_is_refused(trained: Trained) -> None:
    # All that the table lacks is unknown, though the student has vectors of it.
    with pytest.raises(BundleError, match=r"the bundle with its table has F1 .*more words or a finer dtype"):
        trained.export(settings=ExportSettings(precisions=("fp32",), words=0), required_words=())
    assert trained.left() == ["run"]


def test_questions_to_calibrate_on_are_not_those_to_verify_on(trained: Trained) -> None:
    shared = Question(*PAIRS[4])
    with pytest.raises(InputError, match="1 calibration questions are also verified on, such as") as caught:
        trained.export(settings=ExportSettings(), calibration=[*CALIBRATION, shared])
    assert shared.question in str(caught.value) and trained.left() == ["run"]
    with pytest.raises(InputError, match="1 calibration questions are also verified on, such as"):
        trained.export(settings=FLOAT, fitting=[*CALIBRATION, shared])  # though nothing has a scale there
    same_text = Question("How many legs has a bee?", shared.context)
    trained.export(settings=ExportSettings(f1_margin=100), calibration=[*CALIBRATION, same_text])


def test_a_bundle_of_other_weights_is_refused_and_nothing_is_left(trained: Trained) -> None:
    trained.spoil("start.weight")
    with pytest.raises(BundleError, match=r"core\.fp32\.onnx answers \d of 9 questions .*'Where is the switch\?'"):
        trained.export("new/tiny.qab")
    assert trained.left() == ["run"]


def test_an_existing_bundle_is_kept_unless_it_is_to_be_replaced_by_a_good_one(trained: Trained) -> None:
    output = trained.export().path
    before = (output / "manifest.json").read_bytes()
    trained.spoil("end.weight")
    with pytest.raises(BundleError):
        trained.export(force=True)
    assert (output / "manifest.json").read_bytes() == before
    with pytest.raises(DataError, match="exists already"):
        trained.export(reference=None)
    trained.export(reference=None, force=True)
    assert (output / "manifest.json").read_bytes() != before


def test_the_run_is_no_place_for_its_bundle(tmp_path: Path) -> None:
    run = write_run(tmp_path / "around" / "run", random_student(tiny_config()))
    (run / "manifest.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for output in (run, run / ".." / "run", tmp_path / "around"):
        with pytest.raises(DataError, match="holds the run"):
            export_bundle(run, output, settings=FLOAT, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_logits_over_other_tokens_are_refused(trained: Trained) -> None:
    with pytest.raises(BundleError, match=r"core\.fp32\.onnx cannot be compared .*same tokens"):
        trained.export(reference=lambda questions: [(np.zeros(2), np.zeros(2))] * len(questions))
    with pytest.raises(InputError, match="no questions"):
        trained.export(questions=())
    assert trained.left() == ["run"]


def test_a_full_disk_is_one_sentence(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(trained.folder / "full"))
    with pytest.raises(DataError, match="free some space"):
        trained.export()
    assert trained.left() == ["run"]


def test_export_needs_no_torch(trained: Trained) -> None:
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
    if not name.startswith("tflite"):  # these need LiteRT
        __import__("qa_edge_export." + name)
from qa_edge_export.export import export_bundle
from qa_edge_export.settings import ExportSettings
settings = ExportSettings(calibration="dynamic")
export_bundle({str(trained.run)!r}, {str(trained.folder / "tiny.qab")!r}, settings=settings)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "engine", "extra"),
    [
        ("onnx", "onnx", "qa-edge[train]"),
        ("safetensors", "onnx", "qa-edge[train]"),
        ("ai_edge_litert", "tflite", "tflite"),
    ],
)
def test_a_missing_extra_is_named(trained: Trained, missing: str, engine: str, extra: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from qa_edge_export.export import export_bundle
from qa_edge_export.settings import ExportSettings
import qa_edge_export.sensitivity
from qa_edge_runtime.errors import MissingExtraError
settings = ExportSettings(engines=({engine!r},), precisions=("fp32",))
try:
    export_bundle({str(trained.run)!r}, {str(trained.folder / "tiny.qab")!r}, settings=settings)
except MissingExtraError as error:
    assert {extra!r} in str(error), error
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_tflite_bundle_in_full_precision_needs_no_onnx(trained: Trained) -> None:
    pytest.importorskip("ai_edge_litert")
    script = f"""
import sys
sys.modules["onnx"] = sys.modules["onnxruntime"] = None
from qa_edge_export.export import export_bundle
from qa_edge_export.settings import ExportSettings
settings = ExportSettings(engines=("tflite",), precisions=("fp32", "fp16"))
export_bundle({str(trained.run)!r}, {str(trained.folder / "tiny.qab")!r}, settings=settings)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
