"""A random student with its run folder, exported: what the tests of whole bundles begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from random_student import WORDS, TorchReference, random_student, tiny_config, write_run
from safetensors.numpy import load_file, save_file

from qa_edge_export.case_texts import CASE_TEXTS
from qa_edge_export.export import ExportReport, export_bundle
from qa_edge_export.settings import ExportSettings
from qa_edge_export.verify import Question

PAIRS = [
    ("Where is the switch?", "The switch is behind the grey panel, above the water meter. The bridge is old."),
    ("Who can't come?", 'Anna can\'t come - she went to the bridge. "Boris" is in the water.'),
    ("Why?", "Because."),
    *CASE_TEXTS[5:11],
]
CALIBRATION = [Question(*pair) for pair in CASE_TEXTS[:5]]
FLOAT = ExportSettings(precisions=("fp32",), table="float32")


class Trained:
    """A random student, its run folder and the questions that it answers rightly, all of them."""

    def __init__(self, folder: Path, words: tuple[str, ...] = WORDS, **sizes: Any) -> None:
        self.student = random_student(tiny_config(**sizes))
        self.reference = TorchReference(self.student, words)
        self.run = write_run(folder / "run", self.student, words)
        self.questions = self.reference.ask(PAIRS)
        self.folder = folder

    def export(self, name: str = "tiny.qab", settings: ExportSettings = FLOAT, **others: Any) -> ExportReport:
        """With every form of the texts in the table, so that the table approximates nothing."""
        given: dict[str, Any] = {
            "reference": self.reference,
            "questions": self.questions,
            "calibration": CALIBRATION,
            "required_words": self.reference.forms(PAIRS),
        }
        return export_bundle(self.run, self.folder / name, settings=settings, **{**given, **others})

    def spoil(self, name: str) -> None:
        """The run's array `name` with the other sign: no longer what the reference runs."""
        weights = load_file(self.run / "model.safetensors")
        save_file({**weights, name: -weights[name]}, self.run / "model.safetensors")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
