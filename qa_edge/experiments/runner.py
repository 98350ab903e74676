"""Runs an experiment: each variant and seed an ordinary run in a folder of its own, gone on with after any kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qa_edge.accelerator import open_processes
from qa_edge.active.cycles import LoopSettings
from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import AT_RANDOM, CLUSTERS, WHOLE, Experiment, Variant
from qa_edge.experiments.inputs import Inputs, ScoringSet
from qa_edge.experiments.lineage import describe_teacher
from qa_edge.experiments.records import evaluate_run, read_record, training_course, write_record
from qa_edge.experiments.revision import git_revision
from qa_edge.experiments.sources import NOISY_COPIES, Sources
from qa_edge.hub import require_loadable
from qa_edge.lock import holding
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import model_entry, read_recipe, settle_recipe
from qa_edge.squad import read_squad
from qa_edge.student.config import split_sizes
from qa_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from qa_edge.train_settings import TrainSettings

LOCKS = ".locks"
SHORT_BATCH = 32
MOST_WARMUP = 1000
EVALUATIONS = 4
Log = Callable[[str], None]


class Run(NamedTuple):
    """One run of an experiment."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.variant.name}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides an experiment's runs.

    :param runs: folder of all experiments; this one's is `runs/NAME`.
    :param train: settings of `TrainSettings` that all variants share, where they fix none themselves.
    :param student: sizes of the student, the same.
    :param teach: settings of `TeachSettings`, for active learning.
    :param label: settings of `LabelSettings`.
    """

    experiment: Experiment
    runs: Path
    budget: Budget
    sources: Sources
    train: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    teach: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed = {"epochs", "seed"} & self.train.keys()
        if fixed:
            raise InputError(f"{', '.join(sorted(fixed))} are the budget's: leave them out of the settings")
        sizes, _ = split_sizes(self.student)
        if sizes and self.sources.init is not None:
            raise InputError(f"a checkpoint to go on from has its sizes: leave out {', '.join(sizes)}")
        for variant in self.experiment.variants:
            if variant.strategy is not None:
                continue
            found = self.settings(variant, 0, questions=1)  # refuses what cannot be, before the work
            if (variant.rest or variant.labels) and not (found.rho or found.mse_weight):
                raise InputError(f"variant {variant.name} learns from a teacher: rho and mse-weight cannot both be 0")

    def require(self) -> None:
        """Refuse what the runs cannot begin with, before any work.

        :raises InputError: naming what is missing or too much.
        :raises DataError: if labels that are given cannot serve.
        """
        self.sources.require(self.experiment)
        for name in (self.sources.teacher, self.sources.encoder, self.sources.sentence_encoder):
            if name is not None:
                require_loadable(name)
        for variant in self.experiment.variants:
            if variant.strategy is None:
                found = self.settings(variant, 0, questions=1)
                self.sources.require_teacher(variant, taught=_taught(found), layers=bool(found.layers_weight))

    @property
    def folder(self) -> Path:
        """Of this experiment."""
        return self.runs / self.experiment.name

    @property
    def said_size(self) -> str:
        """The budget, and the trained student that all runs go on from, if there is one."""
        init = self.sources.init
        size = replace(self.budget, share=round(self.budget.share * self.sources.given_share, 6))
        said = str(size) if self.experiment.has_students else size.of_loops
        return f"{said}{'' if init is None else f', each from the trained student {Path(init).name}'}"

    @property
    def all_runs(self) -> list[Run]:
        """Seed by seed, so that what is there after a part of them can be compared."""
        return [Run(variant, seed) for seed in range(self.budget.seeds) for variant in self.experiment.variants]

    def has_done(self, run: Run) -> bool:
        """Whether a run has come to its end; a loop goes on where the budget has more labels than it began with."""
        record = read_record(self.folder / run.name)
        if record is None or run.variant.strategy is None:
            return record is not None
        return bool(record["budget"]["labels"] >= self.budget.labels)

    def settings(self, variant: Variant, seed: int, *, questions: int) -> TrainSettings:
        """How a run trains: the paper's defaults, or a schedule that ends where there are fewer passes than its 30.

        :param questions: of a pass over the budget's share; over what was chosen of it, unless updates are equal.
        """
        from qa_edge.train_settings import TrainSettings

        chosen: dict[str, Any] = {}
        batch = self.train.get("batch_size", SHORT_BATCH if self.budget.is_short else TrainSettings.batch_size)
        total = self.budget.epochs * max(1, questions // batch)
        if self.budget.is_short:
            log_every = min(TrainSettings.log_every, max(1, total // EVALUATIONS))
            chosen = {
                "batch_size": batch,
                "schedule": "cosine",
                "warmup": min(MOST_WARMUP, total // 10),
                "evaluate_every": min(TrainSettings.evaluate_every, max(1, -(-total // EVALUATIONS))),
                "log_every": log_every,
                "save_every": log_every * max(1, TrainSettings.save_every // log_every),
            }
        chosen |= {**self.train, **variant.train}
        if variant.answered is not None or self.experiment.equal_updates:
            chosen["least_updates"] = max(total, chosen.get("least_updates", 0))
        return TrainSettings(**chosen, epochs=self.budget.epochs, seed=seed)

    def sizes(self, variant: Variant) -> dict[str, Any]:
        """Preset and sizes of a variant's student; nothing with a checkpoint, which has its own."""
        if self.sources.init is not None:
            return dict(self.student)
        return {"preset": self.experiment.preset, **self.student, **variant.student}

    def recipe(self) -> dict[str, Any]:
        """What the experiment's folder belongs to; more seeds, test sets or variants may be added later."""
        # How far a loop goes decides nothing before: one that ended at 40 % is gone on with to 100 %.
        of_students = {"epochs": self.budget.epochs} if self.experiment.has_students else {}
        found = {
            "kind": "experiment",
            "experiment": self.experiment.name,
            "inputs": self.sources.hashes(),
            "budget": {"share": self.budget.share, **of_students},
            "models": {name: model_entry(model) for name, model in self._models().items()},
        }
        if self.experiment.has_students:
            found |= {"train": dict(self.train), "student": self.sizes(Variant(name="", said=""))}
            found |= {"label": dict(self.label)}
        return found | ({"teach": dict(self.teach)} if self.experiment.has_loops else {})

    def _models(self) -> dict[str, str]:
        """The models that decide what is trained; a loop's own recipe holds its sentence encoder."""
        experiment, sources = self.experiment, self.sources
        teaches = experiment.has_students and experiment.chosen is None and not sources.labels
        wanted = {
            "teacher": sources.teacher if teaches else None,
            "encoder": sources.encoder if experiment.has_loops else None,
        }
        return {name: model for name, model in wanted.items() if model is not None}


def run_experiment(plan: Plan, *, process: int = 0, processes: int = 1, log: Log = lambda message: None) -> list[Run]:
    """Do the runs that are not done yet and score them; returns those that are still missing.

    Under `accelerate launch` or `torchrun` all processes train each run together. Otherwise several processes, started
    each for itself, share the runs between them: `process` does those of its number, and leaves one alone that another
    process of this machine is at.

    :raises InputError: if the sources do not suffice, or settings do not go together.
    :raises DataError: if the folder was begun with others, or data cannot be used.
    """
    if not 0 <= process < processes:
        raise InputError(f"process {process} is not one of {processes}: the first is 0")
    plan.require()
    state = open_processes()
    if state.num_processes > 1 and processes > 1:
        raise InputError("the processes of a launcher train each run together: leave out --process and --processes")
    with _held(plan.runs / LOCKS / plan.experiment.name, wait=True):
        if state.is_main_process:
            _settle(plan)
    state.wait_for_everyone()
    work = _Work(plan, log if state.is_main_process else lambda message: None)
    missing = []
    for number, run in enumerate(plan.all_runs):
        folder = plan.folder / run.name
        if number % processes != process:
            if not plan.has_done(run):
                missing.append(run)
            continue
        with _held(plan.runs / LOCKS / f"{plan.experiment.name}-{run.name}", wait=False) as held:
            if held:
                work.do(run, folder)
            else:
                log(f"{run.name} is another process's: left to it")
                missing.append(run)
    if plan.sources.teacher is not None and plan.experiment.tables and process == 0:
        work.score_teacher()
    return missing


def _settle(plan: Plan) -> None:
    """Write the experiment's recipe, or check it; a model that no run has used yet is added to it."""
    recipe, folder = plan.recipe(), plan.folder
    begun = any(folder.glob("*-seed*"))
    if begun and (folder / RECIPE).exists():
        known = read_recipe(folder).get("models", {})
        models = {**known, **recipe["models"]}
        recipe["models"] = {name: model for name, model in models.items() if name in known}
        settle_recipe(folder, recipe, begun=True)
        recipe["models"], begun = models, models.keys() == known.keys()
    settle_recipe(folder, recipe, begun=begun)


@contextmanager
def _held(path: Path, *, wait: bool) -> Iterator[bool]:
    """A lock, unless a launcher's processes work together."""
    if open_processes().num_processes > 1:
        yield True
        return
    with holding(path.with_name(f"{path.name}.lock"), wait=wait) as held:
        yield held


class _Work:
    """Does the runs of a plan, one after the other."""

    def __init__(self, plan: Plan, log: Log) -> None:
        from qa_edge.labels import LabelSettings
        from qa_edge.prepare import PrepareSettings

        in_noise = plan.experiment.noises or plan.train.get("noise")
        self.plan, self.log, self.state = plan, log, open_processes()
        label_settings = LabelSettings(**plan.label)
        self.windows = (label_settings.window, label_settings.stride)
        self.inputs = Inputs(
            plan.folder / "inputs",
            plan.sources,
            plan.budget,
            lock=plan.runs / LOCKS / f"{plan.experiment.name}-inputs.lock",
            log=log,
            choose=self.choose,
            prepare_settings=PrepareSettings(noisy=NOISY_COPIES if in_noise else None),
            label_settings=label_settings,
        )
        self.tests: list[ScoringSet] = self.inputs.test_sets(plan.experiment)

    def do(self, run: Run, folder: Path) -> None:
        """Train a run to its end, unless it is, and score it on what it has not been scored on yet."""
        record = read_record(folder)
        if record is not None and run.variant.strategy is not None:
            # Nothing is left of these labels, but it is seen there whether the loop was made of other files.
            self._learn(folder, run.variant.strategy, run.seed, record["budget"]["labels"])
        if not self.plan.has_done(run):
            self.log(f"{self.plan.experiment.name}: {run.name} ({run.variant.said})")
            record = self._distil(run, folder) if run.variant.strategy is None else self._loop(run, folder)
            if self.state.is_main_process:
                write_record(folder, {**self._common(run), **record})
            self.state.wait_for_everyone()
        if self.state.is_main_process and run.variant.strategy is None:
            for test in self.tests:
                evaluate_run(folder, test.key, test.path, of=test.of, log=self.log)
        self.state.wait_for_everyone()

    def score_teacher(self) -> None:
        """Have the teacher answer the test sets, for the tables that have its row."""
        teacher = self.plan.sources.teacher
        assert teacher is not None
        folder = self.plan.folder / "teacher"
        if self.state.is_main_process:
            folder.mkdir(exist_ok=True)
            for test in self.tests:
                evaluate_run(folder, test.key, test.path, of=test.of, model=teacher, windows=self.windows, log=self.log)
            write_record(
                folder, {"experiment": self.plan.experiment.name, "kind": "teacher", **describe_teacher(teacher)}
            )
        self.state.wait_for_everyone()

    def _common(self, run: Run) -> dict[str, Any]:
        return {
            "experiment": self.plan.experiment.name,
            "variant": run.variant.name,
            "seed": run.seed,
            "budget": asdict(self.plan.budget),
            "git": git_revision(),
        }

    def _distil(self, run: Run, folder: Path) -> dict[str, Any]:
        from qa_edge.distill import Recipe, distill
        from qa_edge.features import Features
        from qa_edge.taught import NO_TEACHER

        features = self.inputs.features(run.variant, run.seed)
        found = Features.open(features)
        if self.plan.experiment.equal_updates:
            questions = read_squad(self.inputs.squad()).answered
        else:
            questions = len(Features.open(self.inputs.all_features(run.variant, run.seed)))
        settings = self.plan.settings(run.variant, run.seed, questions=questions)
        taught = _taught(settings)
        labels = self.inputs.labels(run.variant, run.seed, states=bool(settings.layers_weight)) if taught else None
        recipe = Recipe.of(
            {"features": features, "labels": labels, "init": self.plan.sources.init},
            teacher=None if taught else NO_TEACHER,
            student=self.plan.sizes(run.variant),
            train=settings,
        )
        report = distill(folder, recipe, log=self.log)
        return {
            "kind": "distill",
            "data": self.inputs.data_of(run.variant, found),
            "teacher": None if labels is None else _teacher_name(labels),
            "planned_steps": report.total_steps,
            **training_course(folder, settings.batch_size),
            "parameters": _parameters(folder),
        }

    def _loop(self, run: Run, folder: Path) -> dict[str, Any]:
        assert run.variant.strategy is not None
        self._learn(folder, run.variant.strategy, run.seed, self.plan.budget.labels)
        return {"kind": "active", "strategy": run.variant.strategy, "data": {"share": self.plan.budget.share}}

    def choose(self, strategy: str, seed: int) -> tuple[Path, Path]:
        """The questions that a strategy chooses, or all, and the encoder fine-tuned on them (section 5.5)."""
        share = self.plan.experiment.chosen
        assert share is not None
        folder = self.plan.folder / f"choice-{strategy}-seed{seed}"
        with _held(self.plan.runs / LOCKS / f"{self.plan.experiment.name}-{folder.name}", wait=True):
            if strategy == WHOLE:
                self._learn(folder, AT_RANDOM, seed, 1.0, first=1.0)
            else:
                self._learn(folder, strategy, seed, share)
        last = max(folder.glob("cycle-*"))
        return last / "train.json", last / "model"

    def _learn(self, folder: Path, strategy: str, seed: int, labels: float, first: float = LoopSettings.first) -> None:
        from qa_edge.active.clusters import SentenceEncoder
        from qa_edge.active.learners import TeacherLearner
        from qa_edge.active.loop import run_loop
        from qa_edge.teach_settings import TeachSettings

        sources = self.plan.sources
        assert sources.encoder is not None
        sentences = None
        if strategy == CLUSTERS and sources.sentence_encoder is not None:
            sentences = SentenceEncoder.load(sources.sentence_encoder, device=str(self.state.device))
        learner = TeacherLearner(
            encoder=sources.encoder, dev=str(self.tests[0].path), settings=TeachSettings(**self.plan.teach)
        )
        settings = LoopSettings(strategy=strategy, first=first, budget=labels, seed=seed)
        run_loop(self.inputs.squad(), learner, folder, settings=settings, encoder=sentences, log=self.log)


def _taught(settings: TrainSettings) -> bool:
    return bool(settings.rho or settings.mse_weight or settings.layers_weight)


def _teacher_name(labels: Path) -> str:
    from qa_edge.labels import Labels

    return Path(str(Labels(labels).manifest["teacher"])).name


def _parameters(run: Path) -> int:
    from qa_edge.checkpoint import load_student
    from qa_edge.student.qanet import count_parameters

    return count_parameters(load_student(run))[0]


def runs_of(experiment: Experiment, only: tuple[str, ...]) -> Experiment:
    """The experiment with some of its variants; all where none is named."""
    return replace(experiment, variants=tuple(experiment.variant(name) for name in only)) if only else experiment


def scored_files(plan: Plan) -> dict[str, Path]:
    """The files of an experiment's test sets, by key."""
    return {test.key: test.path for test in _Work(plan, lambda message: None).tests}
