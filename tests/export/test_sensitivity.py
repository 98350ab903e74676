"""The layer that 8 bits hurt is named first, by the name that keeps it in float."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from random_student import arrays_of, random_student, tiny_config, write_run
from safetensors.numpy import save_file

from qa_edge_export.case_texts import CASE_TEXTS
from qa_edge_export.checkpoint import read_checkpoint
from qa_edge_export.graphs import layer_names, merged_form
from qa_edge_export.progress import no_progress
from qa_edge_export.sensitivity import ALL, layer_effects
from qa_edge_export.verify import Question
from qa_edge_runtime.errors import InputError

pytest.importorskip("onnxruntime")

QUESTIONS = [Question(*pair) for pair in CASE_TEXTS[:6]]


def run_with_a_bad_layer(folder: Path, layer: str, readers: tuple[str, ...], heads: int) -> Path:
    """A student one of whose layers has a channel so large that 8 bits leave nothing of the others, and that nobody
    reads: in float the layer does what it did.
    """
    student = random_student(tiny_config(hidden=32, heads=heads))
    run = write_run(folder, student)
    arrays = {name: array.copy() for name, array in arrays_of(student).items()}
    arrays[f"{layer}.norm.weight"][5] *= 3000
    for reader in readers:
        arrays[f"{layer}.{reader}.weight"][:, 5] = 0
    save_file(arrays, run / "model.safetensors")
    return run


@pytest.mark.parametrize(
    ("layer", "readers", "heads"),
    [
        ("blocks.1.feedforward", ("inner",), 1),
        ("encoder.attention", ("query", "key", "value"), 1),
        ("blocks.0.attention", ("query", "key", "value"), 4),
        ("blocks.0.convolutions.0", ("pointwise",), 1),
    ],
)
def test_a_layer_made_bad_on_purpose_is_named_first(
    tmp_path: Path, layer: str, readers: tuple[str, ...], heads: int
) -> None:
    run, advanced = run_with_a_bad_layer(tmp_path / "run", layer, readers, heads), []

    def progress(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        advanced.append(total)
        return no_progress(description, total)

    effects = layer_effects(run, QUESTIONS, progress=progress)
    names = layer_names(merged_form(read_checkpoint(run)))
    assert effects[0].layer == ALL and effects[1].layer == layer
    assert {effect.layer for effect in effects[1:]} == set(names) and len(effects) == len(names) + 1 == sum(advanced)
    differences = [effect.difference for effect in effects[1:]]
    assert differences == sorted(differences, reverse=True) and differences[-1] > 0
    assert differences[0] > 3 * differences[1], "the bad layer stands out"
    assert effects[0].difference > 0.5 * differences[0]
    assert all(effect.size_bytes_without != effects[0].size_bytes_without for effect in effects[1:])
    assert effects[1].difference_without == min(effect.difference_without for effect in effects), "it pays to keep it"


def test_it_is_the_same_when_it_is_done_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config(model_blocks=1)))
    first, second = (layer_effects(run, QUESTIONS[:1], calibration="error") for _ in range(2))
    assert first == second and all(np.isfinite(effect.difference) for effect in first)


def test_no_questions_and_an_unknown_method_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", random_student(tiny_config()))
    with pytest.raises(InputError, match="no held-out questions to calibrate on"):
        layer_effects(run, [])
    with pytest.raises(InputError, match="unknown calibration 'dynamic'"):
        layer_effects(run, QUESTIONS[:1], calibration="dynamic")
