"""A run carried to another machine by its weights alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_teacher import SIZES, TRAINING, Workshop, ran

from qa_edge.checkpoint import TrainingState

TOOL = Path(__file__).parents[2] / "tools" / "carry_run.py"

pytestmark = pytest.mark.usefixtures("one_thread")


def carry(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=120)


def test_a_run_goes_on_elsewhere(shop: Workshop, tmp_path: Path) -> None:
    inputs = ("--features", shop.run / "features", "--labels", shop.run / "labels", *SIZES, *TRAINING)
    here, there, packed = tmp_path / "here", tmp_path / "there", tmp_path / "run.safetensors"
    ran("distill", *inputs, "--max-steps", "4", "-o", here)
    assert carry("pack", here, packed).returncode == 0
    assert (
        "no recipe" in carry("unpack", packed, there).stderr
        or "does not exist" in carry("unpack", packed, there).stderr
    )
    ran("distill", *inputs, "--max-steps", "1", "-o", there)
    assert carry("unpack", packed, there).returncode == 0
    before, moved = TrainingState.load(here), TrainingState.load(there)
    assert before is not None and moved is not None and moved.step == before.step == 4
    assert (moved.tensors["average"] - before.tensors["average"]).abs().max() < 1e-2
    assert "finished" in ran("distill", "--resume", there)
    refused = carry("unpack", packed, there)
    assert refused.returncode == 1 and "expected a run begun and before" in refused.stderr
