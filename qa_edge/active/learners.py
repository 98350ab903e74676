"""What the loop trains: anything that learns from SQuAD JSON and reads a pool afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from qa_edge.active.readers import PlacedReader, open_reader
from qa_edge.recipe import model_entry
from qa_edge.teach import teach
from qa_edge.teach_settings import TeachSettings
from qa_edge_runtime.errors import DataError, InputError

Log = Callable[[str], None]


class Learner(Protocol):
    """A kind of model, trained anew in each cycle."""

    @property
    def has_teacher(self) -> bool:
        """Whether `open_teacher` gives one, for the strategies that need it."""
        ...

    def recipe(self) -> Mapping[str, Any]:
        """All that decides its training, as JSON holds it."""
        ...

    def train(self, squad: Path, folder: Path, *, before: Path | None, seed: int, log: Log) -> Mapping[str, Any]:
        """Train on the answers of a SQuAD file, or go on with what was interrupted; do nothing if it is done.

        :param folder: of the model.
        :param before: the last cycle's model to go on from; None trains from the pretrained weights.
        :returns: `exact_match`, `f1` and `total` on the development set.
        """
        ...

    def open(self, folder: Path) -> PlacedReader:
        """The trained model."""
        ...

    def open_teacher(self, folder: Path) -> PlacedReader:
        """The teacher beside the model of this folder; asked for only if there is one."""
        ...


@dataclass(frozen=True, kw_only=True)
class TeacherLearner:
    """An encoder that is fine-tuned into a question answerer, as the paper does with BERT-Base (section 5.4).

    :param encoder: name on the hub, or a folder.
    :param dev: SQuAD JSON that each cycle's model is scored on.
    :param device: where the pool is read; None lets accelerate choose.
    """

    encoder: str
    dev: str
    settings: TeachSettings
    device: str | None = None
    has_teacher = False

    def recipe(self) -> Mapping[str, Any]:
        """The encoder and the settings; the seed is the loop's."""
        settings = asdict(self.settings)
        del settings["seed"]
        return {"kind": "teacher", "encoder": model_entry(self.encoder), "settings": settings}

    def train(self, squad: Path, folder: Path, *, before: Path | None, seed: int, log: Log) -> Mapping[str, Any]:
        """Fine-tune; see `Learner.train`."""
        encoder = self.encoder if before is None else str(before)
        settings = replace(self.settings, seed=seed)
        report = teach(encoder, squad, folder, dev_path=self.dev, settings=settings, log=log)
        if not report.finished:
            raise DataError(f"{folder} was not trained to its end; run the same command again")
        return report.scores or {}

    def open(self, folder: Path) -> PlacedReader:
        """The fine-tuned model."""
        settings = self.settings
        return open_reader(str(folder), device=self.device, window=settings.window, stride=settings.stride)

    def open_teacher(self, folder: Path) -> PlacedReader:
        """A fine-tuned encoder has no teacher.

        :raises InputError: always.
        """
        raise InputError("an encoder that is fine-tuned has no teacher beside it; a student has")
