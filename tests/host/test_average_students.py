"""The mean of students that went on from one: its weights, what it can be used for, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_teacher import Workshop, ran

from qa_edge.features import read_tensors

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import average_students

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def runs(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two students that went on from a third one, by other seeds."""
    folder = tmp_path_factory.mktemp("average")
    own = (
        "--teacher",
        "none",
        "--rho",
        "0",
        "--mse-weight",
        "0",
        "--batch-size",
        "8",
        "--warmup",
        "1",
        "--epochs",
        "1",
    )
    ran("distill", "--squad", shop.train, "--vectors", "none", *own, "--heldout", "0.3", "-o", folder / "first",
        "--hidden", "16", "--model-blocks", "1")  # fmt: skip
    for seed in ("1", "2"):
        options = ("--seed", seed, "--features", folder / "first" / "features", "--init", folder / "first")
        ran("distill", "--squad", shop.train, *own, *options, "-o", folder / f"seed{seed}")
    return [folder / "seed1", folder / "seed2"]


def test_the_mean_is_a_student_that_answers_and_can_be_gone_on_from(
    runs: list[Path], shop: Workshop, tmp_path: Path
) -> None:
    mean = tmp_path / "mean"
    assert average_students.main([*map(str, runs), "-o", str(mean)]) == 0
    one, other, found = (read_tensors(folder / WEIGHTS) for folder in (*runs, mean))
    assert one.keys() == found.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, (one[name].astype(np.float64) + other[name]) / 2, rtol=1e-6, atol=1e-9)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    recipe = json.loads((mean / "recipe.json").read_text())
    assert recipe["kind"] == "average" and [part["train"]["seed"] for part in recipe["of"]] == [1, 2]
    report = json.loads(ran("evaluate", mean, "--squad", mean / "heldout.json", "--json"))
    assert report["total"] > 0
    ran("distill", "--squad", shop.train, "--teacher", "none", "--rho", "0", "--mse-weight", "0", "--init", mean,
        "--features", runs[0].parent / "first" / "features", "--epochs", "1", "--max-steps", "1",
        "-o", tmp_path / "on")  # fmt: skip


def test_what_has_no_mean_is_one_sentence(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apart = tmp_path / "apart"
    shutil.copytree(runs[1], apart)
    recipe = json.loads((apart / "recipe.json").read_text())
    recipe["inputs"]["init"]["sha256"] = "0" * 64
    (apart / "recipe.json").write_text(json.dumps(recipe))
    words = tmp_path / "words"
    shutil.copytree(runs[1], words)
    (words / "vocabulary.json").write_text("{}")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    for given, said in (
        ([runs[0]], "1 run to average"),
        ([runs[0], apart], "did not go on from the student"),
        ([runs[0], words], "another vocabulary.json"),
        ([runs[0], runs[0].parent / "first"], "did not go on from the student"),
        ([runs[0], tmp_path / "nothing"], "recipe"),
    ):
        assert average_students.main([*map(str, given), "-o", str(tmp_path / "mean")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
        assert not (tmp_path / "mean").exists()
    assert average_students.main([*map(str, runs), "-o", str(taken)]) == 1
    assert (taken / "mine").read_text() == "x"
