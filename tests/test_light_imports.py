"""What is light stays light: each import runs in a process in which the heavy modules cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = ("onnx", "onnxruntime", "ai_edge_litert", "tflite_runtime")
TRAINING = (
    "torch",
    "transformers",
    "spacy",
    "safetensors",
    "accelerate",
    "tensorboard",
    "scipy",
    "sklearn",
    "datasets",
)
COMMAND_LINE = ("click", "rich", "matplotlib")

BLOCK = """
import importlib, pkgutil, runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ImportError("blocked by the test: " + name)

sys.meta_path.insert(0, Blocked())
before = set(sys.modules)
"""


def run_blocked(code: str, *names: str) -> subprocess.CompletedProcess[str]:
    source = BLOCK.format(names=names) + code
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)


def assert_runs(code: str, *names: str) -> str:
    done = run_blocked(code, *names)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runtime_needs_numpy_alone() -> None:
    code = """
import qa_edge_runtime
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(roots - set(sys.stdlib_module_names) - {"numpy", "qa_edge_runtime"}))
"""
    assert assert_runs(code, *ENGINES, *TRAINING, *COMMAND_LINE).strip() == "[]"


def test_every_module_of_the_runtime_imports_without_an_engine() -> None:
    code = """
import qa_edge_runtime
for module in pkgutil.iter_modules(qa_edge_runtime.__path__):
    importlib.import_module("qa_edge_runtime." + module.name)
"""
    assert_runs(code, *ENGINES, *TRAINING, *COMMAND_LINE)


@pytest.mark.parametrize("package", ["qa_edge", "qa_edge_export"])
def test_packages_of_the_host_import_nothing_heavy(package: str) -> None:
    assert_runs(f"import {package}", *ENGINES, *TRAINING, *COMMAND_LINE)


def test_help_of_the_command_line_imports_nothing_heavy() -> None:
    code = """
sys.argv = ["qa-edge", "--help"]
runpy.run_module("qa_edge", run_name="__main__")
"""
    assert "distill" in assert_runs(code, *ENGINES, *TRAINING)


def test_the_report_of_runs_needs_nothing_of_training(tmp_path: Path) -> None:
    code = f"""
sys.argv = ["qa-edge", "report", "--runs", {str(tmp_path)!r}, "-o", {str(tmp_path / "report")!r}]
runpy.run_module("qa_edge", run_name="__main__")
"""
    assert "Table 8" in assert_runs(code, *ENGINES, *TRAINING)


def test_blocking_blocks() -> None:
    assert "blocked by the test: numpy" in run_blocked("import qa_edge_runtime", "numpy").stderr
