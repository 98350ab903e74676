"""A student in the loop: trained in each cycle on the questions chosen so far, from features that are made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qa_edge.active.learners import Log, TeacherLearner
from qa_edge.active.readers import LabelReader, PlacedReader, open_reader
from qa_edge.checkpoint import WEIGHTS
from qa_edge.distill import Recipe, distill
from qa_edge.features import MANIFEST as FEATURES
from qa_edge.features import Features
from qa_edge.labels import Labels, LabelSettings, label
from qa_edge.recipe import Input
from qa_edge.shards import MANIFEST as LABELS_MANIFEST
from qa_edge.squad import read_squad
from qa_edge.states import label_states, states_folder
from qa_edge.student.config import split_sizes
from qa_edge.taught import NO_TEACHER
from qa_edge.train_settings import TrainSettings
from qa_edge_runtime.errors import DataError, InputError

TEACHER, LABELS = "teacher", "labels"


@dataclass(frozen=True, kw_only=True)
class StudentLearner:
    """A student that is distilled in each cycle on the chosen questions alone.

    Where its soft targets come from decides what its learning curve means:

    - neither `labels` nor `teacher`: it learns from the chosen answers, and nothing else knows any;
    - `teacher`: in each cycle an encoder is fine-tuned on the chosen answers first, and is the student's teacher there
      (section 5.5): still nothing knows an answer that was not chosen. It lies in the cycle's folder `teacher`, its
      logits in `labels`;
    - `labels`: of a teacher that was there before. What it was trained on counts as labelled too.

    Features are made once, before the loop: no cycle tokenises a text for the student again.

    :param pool: the loop's SQuAD JSON, which the features were made from.
    :param features: folder that `prepare` wrote with nothing held out: a held-out answer would be used without having
        been chosen.
    :param dev: SQuAD JSON that each cycle's student is scored on.
    :param compared: the strategy compares student and teacher, which then reads the whole pool in each cycle; else it
        reads the questions that were chosen alone.
    :param sizes: of the student, as `qa_edge.distill.Recipe.student` has them.
    :param init: trained student that each cycle starts from, where the loop starts from pretrained weights; what it was
        trained on counts as labelled too. None starts from new weights.
    :raises InputError: if labels and a teacher are given, or what does not go together.
    """

    pool: str
    features: str
    dev: str
    settings: TrainSettings
    sizes: Mapping[str, Any] = field(default_factory=dict)
    labels: str | None = None
    teacher: TeacherLearner | None = None
    compared: bool = True
    init: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.teacher is not None:
            raise InputError("labels are a teacher's already: give them, or an encoder to fine-tune, not both")
        if self.teacher is not None and self.teacher.settings.precision != self.settings.precision:
            raise InputError(
                f"the encoder is fine-tuned in precision {self.teacher.settings.precision}, the student in "
                f"{self.settings.precision}: both are trained in one process, give both the same"
            )
        if not self.has_teacher and (self.settings.rho or self.settings.mse_weight):
            raise InputError("without a teacher there is no soft loss and no MSE: rho and mse_weight must be 0")
        if not self.has_teacher and self.settings.layers_weight:
            raise InputError(f"layers_weight is {self.settings.layers_weight:g}, but there is no teacher: leave it out")
        sizes, _ = split_sizes(self.sizes)
        if self.init is not None and sizes:
            raise InputError(f"the sizes of a student to go on from are its own: leave out {', '.join(sizes)}")

    @property
    def has_teacher(self) -> bool:
        """Whether there is somebody to learn from beside the answers, and to disagree with."""
        return self.labels is not None or self.teacher is not None

    def check(self) -> None:
        """Look at the features before the first cycle.

        :raises DataError: if they are of other questions than the pool's, or some are held out.
        """
        found = Features.open(self.features).manifest
        if found["heldout_articles"]:
            raise DataError(
                f"features {self.features} hold out {found['heldout_questions']:,} questions, whose answers nobody "
                "chose: prepare the pool with --heldout 0"
            )
        if found["squad_sha256"] != read_squad(self.pool).sha256:
            raise DataError(f"features {self.features} were made from other data than {self.pool}: prepare the pool")
        if self.labels is not None:
            Labels(self.labels).require(found["squad_sha256"])
            if self.settings.layers_weight:
                states_folder(self.labels)

    def recipe(self) -> Mapping[str, Any]:
        """Features, labels, sizes and settings, checked; the seed is the loop's.

        :raises DataError: as `check`.
        """
        self.check()
        settings = asdict(self.settings)
        del settings["seed"], settings["max_steps"]
        given = (
            ("features", self.features, FEATURES),
            ("labels", self.labels, LABELS_MANIFEST),
            ("init", self.init, WEIGHTS),
        )
        inputs = {name: asdict(Input.of(path, name, mark)) for name, path, mark in given if path is not None}
        teacher = None if self.teacher is None else dict(self.teacher.recipe())
        sizes = dict(self.sizes)
        return {"kind": "student", "inputs": inputs, "sizes": sizes, "settings": settings, "teacher": teacher}

    def train(self, squad: Path, folder: Path, *, before: Path | None, seed: int, log: Log) -> Mapping[str, Any]:
        """Fine-tune the cycle's teacher if there is one, then distil; see `Learner.train`."""
        labels = self.labels
        if self.teacher is not None:
            labels = str(self._teach(squad, folder, before=before, seed=seed, log=log))
        start = self.init if before is None else str(before)
        recipe = Recipe.of(
            {
                "squad": self.pool,
                "questions": squad,
                "features": self.features,
                "labels": labels,
                "init": start,
                "dev": self.dev,
            },
            teacher=NO_TEACHER if labels is None else None,
            student=self.sizes if start is None else split_sizes(self.sizes)[1],
            train=replace(self.settings, seed=seed),
        )
        report = distill(folder, recipe, log=log)
        if not report.finished:
            raise DataError(f"{folder} was not trained to its end; run the same command again")
        return report.scores or {}

    def open(self, folder: Path) -> PlacedReader:
        """The trained student, through torch."""
        return open_reader(str(folder), device=self.device)

    def open_teacher(self, folder: Path) -> PlacedReader:
        """The logits that this student was taught with.

        :raises InputError: if it had no teacher.
        """
        if not self.has_teacher:
            raise InputError("this student has no teacher: give labels, or an encoder to fine-tune")
        return LabelReader(Labels(self.labels or folder.with_name(LABELS)), read_squad(self.pool))

    def _teach(self, squad: Path, folder: Path, *, before: Path | None, seed: int, log: Log) -> Path:
        from qa_edge.accelerator import open_processes

        assert self.teacher is not None
        last = None if before is None else before.with_name(TEACHER)
        teacher, labels = folder.with_name(TEACHER), folder.with_name(LABELS)
        found = self.teacher.train(squad, teacher, before=last, seed=seed, log=log)
        log(f"teacher of this cycle: {dict(found)}")
        state, settings = open_processes(), self.teacher.settings
        asked: dict[str, Any] = {
            "settings": LabelSettings(window=settings.window, stride=settings.stride),
            "device": self.device or str(state.device),
            "process": state.process_index,
            "processes": state.num_processes,
        }
        only = None
        if not self.compared:
            chosen = {question.id for _, _, question in read_squad(squad).items()}
            only = [place for place, (_, _, one) in enumerate(read_squad(self.pool).items()) if one.id in chosen]
        label(self.pool, str(teacher), labels, only=None if only is None else frozenset(only), **asked)
        if self.settings.layers_weight:
            state.wait_for_everyone()
            label_states(self.pool, str(teacher), labels, self.features, **asked)
        state.wait_for_everyone()
        return labels
