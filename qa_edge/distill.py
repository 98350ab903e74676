"""The whole way from SQuAD JSON to a trained student: prepare, label, train, score; what is done already is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qa_edge.accelerator import open_accelerator
from qa_edge.batches import TrainingData
from qa_edge.checkpoint import STATE, WEIGHTS, TrainingState, copy_inputs, load_student
from qa_edge.features import HELDOUT, MANIFEST, Features
from qa_edge.heldout import heldout_questions
from qa_edge.labels import LabelSettings
from qa_edge.lock import alone_in
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.recipe import Input, read_recipe, settle_recipe
from qa_edge.scores import settle_scores
from qa_edge.slices import train_slice
from qa_edge.split import require_unseen
from qa_edge.squad import Squad, read_squad, write_squad
from qa_edge.states import states_folder
from qa_edge.student.config import StudentConfig, preset_config, split_sizes
from qa_edge.student.fused import missing
from qa_edge.student.qanet import QANet, count_parameters
from qa_edge.student.widen import widen_words
from qa_edge.taught import NO_TEACHER, taught_by
from qa_edge.train import Trainer
from qa_edge.train_settings import TrainSettings
from qa_edge.trained import TrainedStudent, read_inputs
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.scoring import Scores

if TYPE_CHECKING:
    from accelerate import Accelerator

_MARKS = {
    "squad": "",
    "questions": "",
    "dev": "",
    "vectors": "",
    "features": MANIFEST,
    "labels": MANIFEST,
    "init": WEIGHTS,
}
_NOUNS = {
    "squad": "SQuAD file",
    "questions": "SQuAD file",
    "dev": "SQuAD file",
    "vectors": "vector file",
    "features": "features",
    "labels": "labels",
    "init": "checkpoint",
}

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a run, `max_steps` apart, which only says how far to go this time.

    :param inputs: by name: `squad`, `dev`, `vectors`, `features` and `labels` (folders that `prepare` and `label`
        wrote), `init` (a trained student to go on from), `questions` (a part of `squad` that alone is trained on).
    :param teacher: name or folder of the teacher; `none` trains on the answers alone.
    :param student: preset and sizes that differ from it; with `init`, whose sizes are kept, dropout and survival alone.
    :param prepare: how features are made, or how those of `inputs` were.
    """

    inputs: Mapping[str, Input]
    teacher: str | None = None
    student: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    label: LabelSettings = field(default_factory=LabelSettings)

    def __post_init__(self) -> None:
        has = self.inputs.keys()
        if self.teacher is None and "labels" not in has:
            raise InputError("no teacher: give its name or folder, labels that it gave before, or none")
        if self.teacher is not None and "labels" in has:
            raise InputError("a teacher and labels exclude each other: the labels are already a teacher's")
        needs = [f"without {name}" for name in ("features", "labels") if name not in has and self._makes(name)]
        if "squad" not in has and needs:
            raise InputError(f"a SQuAD file is needed {' and '.join(needs)}")
        if "questions" in has and "squad" not in has:
            raise InputError("questions are a part of a SQuAD file: give that file too")
        if "features" in has and "vectors" in has:
            raise InputError("vectors and features exclude each other: the features have their vectors already")
        sizes, _ = split_sizes(self.student)
        if "init" in has and sizes:
            raise InputError(f"the sizes of a student to go on from cannot be changed: leave out {', '.join(sizes)}")
        if self.teacher == NO_TEACHER and (self.train.rho or self.train.mse_weight):
            raise InputError("without a teacher there is no soft loss and no MSE: rho and mse_weight must be 0")
        if self.teacher == NO_TEACHER and self.train.layers_weight:
            raise InputError(f"layers_weight is {self.train.layers_weight:g}, but the teacher is none: leave it out")
        self.config(word_dim=0, characters=2)  # refuses sizes that do not go together, before the long work

    def _makes(self, name: str) -> bool:
        return name == "features" or self.teacher != NO_TEACHER

    def config(self, *, word_dim: int, characters: int) -> StudentConfig:
        """Sizes of a new student."""
        sizes = dict(self.student)
        return preset_config(sizes.pop("preset", "edge"), **sizes, word_dim=word_dim, characters=characters)

    @classmethod
    def of(cls, paths: Mapping[str, str | Path | None], **values: Any) -> Recipe:
        """Make a recipe from the paths of its inputs, which are hashed; None is left out.

        :raises DataError: if one cannot be read.
        :raises InputError: if they do not go together.
        """
        given = {name: path for name, path in paths.items() if path is not None}
        if "features" in given:
            values["prepare"] = _prepared_with(given["features"])
        # The rules first: hashing gigabytes of vectors takes a while.
        cls(inputs={name: Input(path=str(path), sha256="") for name, path in given.items()}, **values)
        inputs = {name: Input.of(path, _NOUNS[name], _MARKS[name]) for name, path in given.items()}
        if "labels" in given and values.get("train", TrainSettings()).layers_weight:
            inputs["states"] = Input.of(states_folder(given["labels"]), "states", MANIFEST)
        return cls(inputs=inputs, **values)

    def to_json(self) -> dict[str, Any]:
        """The recipe as `recipe.json` holds it."""
        train = asdict(self.train)
        del train["max_steps"]
        return {
            "kind": "distill",
            "inputs": {name: asdict(found) for name, found in self.inputs.items()},
            "teacher": self.teacher,
            "student": dict(self.student),
            "train": train,
            "prepare": asdict(self.prepare),
            "label": asdict(self.label),
        }

    @classmethod
    def load(cls, run: str | Path) -> Recipe:
        """Read the recipe of a run.

        :raises DataError: if it has none, or not one that this version can follow.
        """
        found = read_recipe(Path(run))
        if found.get("kind") != "distill":
            raise DataError(f"{run} is a run of {found.get('kind')}, expected one of distill; name another folder")
        try:
            if not isinstance(found["teacher"], str | None):
                raise TypeError("its teacher is no name")
            return cls(
                inputs={name: Input(**values) for name, values in found["inputs"].items()},
                teacher=found["teacher"],
                student=found["student"],
                train=TrainSettings(**found["train"]),
                prepare=PrepareSettings(**found["prepare"]),
                label=LabelSettings(**found["label"]),
            )
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise DataError(f"recipe of {run} cannot be followed ({error}): use the qa-edge that wrote it") from error


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """Where a run stands.

    :ivar finished: the end was reached, or the held-out F1 no longer grew; else it can be gone on with.
    :ivar heldout_f1: of the checkpoint, percent; None before the first evaluation.
    :ivar scores: on the development set, as `scores.json` holds them; None without one, or before the end.
    """

    run: str
    steps: int
    total_steps: int
    finished: bool
    best_step: int | None
    heldout_f1: float | None
    scores: Mapping[str, Any] | None


def distill(
    run: str | Path,
    recipe: Recipe,
    *,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    log: Log = lambda message: None,
    on_step: Callable[[int], None] | None = None,
) -> DistillReport:
    """Do the steps of a recipe that are not done yet, in the run's folder.

    Under `accelerate launch` the main process prepares, the processes share the labelling, and all train.

    :param max_steps: stop, to be gone on with, after this many updates in all.
    :param max_minutes: stop likewise, after the first update that ends so many minutes after this call, the time that
        reading took included.
    :param log: is told what happens, in sentences; on the main process alone.
    :raises DataError: if the folder is another run's, or data cannot be used.
    :raises InputError: if the settings do not go together.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    run = Path(run)
    settings = TrainSettings(**{**asdict(recipe.train), "max_steps": max_steps})
    accelerator = open_accelerator(settings.precision)
    log = log if accelerator.is_main_process else (lambda message: None)
    with alone_in(run, enabled=accelerator.is_main_process):
        if accelerator.is_main_process:
            _settle(run, recipe)
        accelerator.wait_for_everyone()
        features = _features(run, recipe, accelerator, log)
        labels, states = taught_by(run, recipe, features, accelerator, log)
        data = TrainingData(
            features,
            labels,
            strategy=settings.alignment,
            context_limit=settings.context_limit,
            questions=_questions(recipe),
            states=states,
        )
        if states is not None:
            log(f"{states.share_of(data):.1%} of the questions have the teacher's states")
        if labels is not None:
            log(f"{data.coverage:.1%} of the context tokens have a teacher logit ({settings.alignment} alignment)")
        heldout = _heldout(features, settings.seed)
        if accelerator.is_main_process:
            copy_inputs(features.folder, run)
            if heldout.articles:
                write_squad(run / HELDOUT, heldout)
            else:  # an attempt before this one may have held some out
                (run / HELDOUT).unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        model = _student(recipe, features, settings.seed)
        weights, bare = count_parameters(model)
        log(f"student of {weights:,} weights, {bare:,} without embeddings")
        student = TrainedStudent(model, *read_inputs(features.folder))
        trainer = Trainer(run, student, data, heldout, settings, accelerator=accelerator, on_step=on_step)
        updates = f"{trainer.epoch_steps:,} updates a pass, {trainer.total_steps:,} in all"
        log(f"training on {len(data):,} questions, {updates}")
        if settings.precision == "bf16" and missing(torch.bfloat16, accelerator.device, model.config.hidden):
            log("an update takes 1.7 times as long as with a C compiler and a processor with AVX-512 BF16")
        state = train_slice(trainer, log, deadline=deadline)
        scores = None
        if state.finished and "dev" in recipe.inputs:
            if accelerator.is_main_process:
                scores = _score(run, recipe, accelerator, log)
            accelerator.wait_for_everyone()
        return DistillReport(
            run=str(run),
            steps=state.step,
            total_steps=trainer.total_steps,
            finished=state.finished,
            best_step=state.best_step if state.best_step >= 0 else None,
            heldout_f1=state.best_f1 if state.best_step >= 0 and heldout.articles else None,
            scores=scores,
        )


def _prepared_with(features: str | Path) -> PrepareSettings:
    """How features were made, by their manifest.

    :raises DataError: if they are not there, or their settings not of this version.
    """
    settings = Features.open(features).manifest["settings"]
    try:
        return PrepareSettings(**settings)
    except (TypeError, InputError) as error:
        raise DataError(f"features {features} were made by another version ({error}): prepare them again") from error


def _settle(run: Path, recipe: Recipe) -> None:
    """Write the recipe, or see that the run goes on with its own.

    :raises DataError: if the folder holds a student that this run could only write over.
    """
    if (run / WEIGHTS).exists() and not (run / STATE).exists():
        raise DataError(
            f"{run} holds a trained student ({WEIGHTS}) and no state of its training to go on from: name another "
            "folder for this run, or remove that one"
        )
    settle_recipe(run, recipe.to_json(), begun=TrainingState.saved(run))
    (run / STATE).mkdir(exist_ok=True)  # from here on the weights that lie there are this run's


def _features(run: Path, recipe: Recipe, accelerator: Accelerator, log: Log) -> Features:
    if "features" in recipe.inputs:
        features = Features.open(recipe.inputs["features"].checked("features"))
    else:
        if accelerator.is_main_process and not (run / "features").exists():
            log("preparing features")
            # All before any is used: a changed file is better refused before the work.
            paths = {
                name: recipe.inputs[name].checked(_NOUNS[name])
                for name in ("squad", "vectors", "init")
                if name in recipe.inputs
            }
            prepare(
                paths["squad"],
                run / "features",
                vectors_path=paths.get("vectors"),
                init=paths.get("init"),
                settings=recipe.prepare,
            )
        accelerator.wait_for_everyone()
        features = Features.open(run / "features")
        _require_same(features, recipe)
    found = features.manifest
    if "squad" in recipe.inputs and found["squad_sha256"] != recipe.inputs["squad"].sha256:
        raise DataError(f"features {features.folder} were made from other data than {recipe.inputs['squad'].path}")
    if "init" in recipe.inputs:
        split = {name: found["settings"][name] for name in ("heldout", "seed")}
        require_unseen(Path(recipe.inputs["init"].path), found["squad_sha256"], **split)
    log(
        f"{found['questions']:,} questions on {found['contexts']:,} contexts, {found['heldout_questions']:,} held out; "
        f"{found['words']:,} words know {found['known_token_share']:.1%} of the tokens; "
        f"{found['unlabelled_questions']:,} without an answer, {found['misplaced_answers']:,} misplaced"
    )
    return features


def _require_same(features: Features, recipe: Recipe) -> None:
    """Features in the run's folder may be older than the run."""
    settings = {"noisy": None, **features.manifest["settings"]}  # older ones lack it
    expected = asdict(recipe.prepare)
    if "init" in recipe.inputs:  # the student's own
        expected["characters_per_word"] = settings["characters_per_word"]
    vectors = recipe.inputs.get("vectors")
    if settings != expected or features.manifest["vectors_sha256"] != (vectors and vectors.sha256):
        raise DataError(
            f"features {features.folder} were made with other settings or vectors: remove them, or name another folder"
        )


def _questions(recipe: Recipe) -> set[int] | None:
    """Places in the SQuAD file of the questions that are trained on, if not all are."""
    if "questions" not in recipe.inputs:
        return None
    part, squad = (recipe.inputs[name].checked("SQuAD file") for name in ("questions", "squad"))
    places = {question.id: place for place, (_, _, question) in enumerate(read_squad(squad).items())}
    wanted = [question.id for _, _, question in read_squad(part).items()]
    unknown = [identity for identity in wanted if identity not in places]
    if unknown:
        raise DataError(
            f"{part} is no part of {squad}: {len(unknown):,} of its questions are not there (the first is "
            f"{unknown[0]!r:.60}); give the file that they were chosen from"
        )
    return {places[identity] for identity in wanted}


def _heldout(features: Features, seed: int) -> Squad:
    if not features.manifest["heldout_articles"]:
        return Squad(articles=())
    return heldout_questions(read_squad(features.folder / HELDOUT), seed)


def _student(recipe: Recipe, features: Features, seed: int) -> QANet:
    vocabulary, word_dim = features.vocabulary(), features.vectors().shape[1]
    if "init" not in recipe.inputs:
        torch.manual_seed(seed)
        return QANet(recipe.config(word_dim=word_dim, characters=vocabulary.character_rows), seed=seed)
    folder = recipe.inputs["init"].checked("checkpoint")
    model = load_student(folder, **recipe.student)
    _, own, vectors = read_inputs(folder)
    same = vocabulary.words[: len(own.words)] == own.words and vocabulary.characters == own.characters
    known = features.vectors()[: len(vectors), : model.config.word_dim]
    if not same or not np.array_equal(known, vectors):
        remedy = "prepare them with --init" if "features" in recipe.inputs else "remove them, and they are made again"
        raise DataError(
            f"features {features.folder} were not made for the checkpoint {folder} (other words, characters or "
            f"vectors): {remedy}; wider vectors have to begin with the checkpoint's, as vectors --beside writes them"
        )
    return model if word_dim == model.config.word_dim else widen_words(model, word_dim)


def _score(run: Path, recipe: Recipe, accelerator: Accelerator, log: Log) -> dict[str, Any]:
    dev = recipe.inputs["dev"]

    def measure() -> Scores:
        path = dev.checked("SQuAD file")
        log(f"scoring on {path.name}")
        student = TrainedStudent.load(run)
        student.model.to(accelerator.device)
        return student.evaluate(read_squad(path))

    return settle_scores(run, Path(dev.path).name, dev.sha256, measure)
