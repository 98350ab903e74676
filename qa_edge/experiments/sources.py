"""Files and folders that an experiment is given, and whether they suffice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qa_edge.active.clusters import require_clustering
from qa_edge.checkpoint import WEIGHTS
from qa_edge.experiments.definitions import AVERAGE, CLUSTERS, Experiment, Variant
from qa_edge.features import MANIFEST, Features
from qa_edge.noise import NOISES
from qa_edge.recipe import Input
from qa_edge_runtime.errors import InputError

NOISY_COPIES = 2
"""Of each question, in features that an experiment makes for training in noise."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files and folders that an experiment is given.

    :param squad: to train on; needed without `features`, and by active learning.
    :param dev: that runs are scored on, for the report alone.
    :param adversarial: other sets to score on, such as AddSent.json.
    :param vectors: files of word vectors by name; `only` is that of an experiment which has but one.
    :param labels: folders of teachers' logits by name, for all questions of the file that `squad` or `features` are
        of; `only` is that of an experiment which has but one teacher.
    :param teacher: name or folder, which gives them where they are not given; tables have its own scores too.
    :param encoder: that active learning fine-tunes; `sentence_encoder` that clusters its questions.
    :param init: checkpoint of a trained student that all runs go on from, with its sizes, words and vectors.
    """

    squad: str | None = None
    dev: str | None = None
    adversarial: tuple[str, ...] = ()
    vectors: Mapping[str, str] = field(default_factory=dict)
    features: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    teacher: str | None = None
    encoder: str | None = None
    sentence_encoder: str | None = None
    init: str | None = None

    @property
    def given_share(self) -> float:
        """The share of a data set's articles that the features which are given hold; 1 without any."""
        return 1.0 if self.features is None else Features.open(self.features).share

    def require(self, experiment: Experiment) -> None:
        """Refuse what an experiment cannot begin with, before any work.

        :raises InputError: naming what is missing or too much.
        """
        name = experiment.name
        if self.dev is None:
            raise InputError(f"experiment {name} needs --dev, the set that its report is scored on")
        self._require_own_names()
        if experiment.has_loops and (self.squad is None or self.encoder is None):
            raise InputError(f"experiment {name} needs --squad and --encoder, which active learning fine-tunes on it")
        if any(variant.strategy == CLUSTERS for variant in experiment.variants):
            if self.sentence_encoder is None:
                raise InputError(
                    f"experiment {name} needs --sentence-encoder, whose vectors strategy {CLUSTERS} clusters"
                )
            require_clustering()
        if not experiment.has_students:
            return
        # Of the paper's tables a teacher has a row of its own, whichever of the students are asked for.
        own = all(variant.chosen for variant in experiment.variants) and not experiment.tables
        if own and (self.labels or self.teacher):
            raise InputError(
                f"experiment {name} fine-tunes the teachers of its students itself: leave out --labels and --teacher"
            )
        if self.init is not None:
            self._require_same_start(experiment)
        if self.features is not None and (self.vectors or experiment.has_loops or name == "vectors"):
            raise InputError(
                f"experiment {name} makes features of its own: leave out --features, and give --squad and --vectors"
                if not self.vectors
                else "vectors and features exclude each other: the features have their vectors already"
            )
        if self.features is None and self.squad is None:
            raise InputError(f"experiment {name} needs --squad with --vectors, or --features")
        missing = {variant.vectors or "only" for variant in experiment.variants} - {"none", *self.vectors}
        if self.features is None and missing and (self.init is None or self.vectors):
            wanted = sorted(missing)
            asked = "--vectors FILE|none" if wanted == ["only"] else " ".join(f"--vectors {one}=FILE" for one in wanted)
            raise InputError(f"experiment {name} needs {asked}")
        self._require_labels(experiment)
        if experiment.noises and self.features is not None and not Features.open(self.features).noisy_copies:
            raise InputError(
                f"features {self.features} have no noisy questions, which experiment {name} trains on: qa-edge prepare"
                f" --squad FILE --features {self.features} --noisy {NOISY_COPIES} -o NEW adds them"
            )

    def _require_own_names(self) -> None:
        """Refuse adversarial sets whose scores would stand under another set's name."""
        taken = {"dev", "articles", *NOISES}
        for path in self.adversarial:
            name = Path(path).stem
            if name in taken:
                raise InputError(f"--adversarial {path} is scored as {name}, as another set is: give it another name")
            taken.add(name)

    def _require_same_start(self, experiment: Experiment) -> None:
        """Refuse a checkpoint for runs that do not all begin with its sizes and words, or that the paper has."""
        if experiment.tables:
            raise InputError(
                f"the students of {experiment.name} begin with nothing, as the paper's do: leave out --init"
            )
        fixed = [one.name for one in experiment.variants if one.student or one.vectors]
        if fixed:
            raise InputError(
                f"a checkpoint has its size and its vectors already, which {', '.join(fixed)} of experiment"
                f" {experiment.name} would change: leave out --init"
            )

    def _require_labels(self, experiment: Experiment) -> None:
        wanted = [variant.labels for variant in experiment.variants if variant.labels is not None]
        missing = [name for name in wanted if name not in (AVERAGE, *self.labels)]
        if missing:
            asked = " ".join(f"--labels {name}=FOLDER" for name in missing)
            raise InputError(f"experiment {experiment.name} needs {asked}, or others of two teachers or more")
        if AVERAGE in wanted:
            from qa_edge.ensemble import require_alike
            from qa_edge.labels import Labels

            require_alike([Labels(folder) for folder in self.labels.values()])

    def require_teacher(self, variant: Variant, *, taught: bool, layers: bool) -> None:
        """Refuse a variant whose teacher is missing, or has no layers where they are learned from.

        :raises InputError: if there is none.
        :raises DataError: if labels that are given have no states.
        """
        if not taught or variant.chosen is not None:
            return
        if self.labels and layers:
            from qa_edge.states import LayerStates, states_folder

            for folder in self.labels.values():
                LayerStates(states_folder(folder))
        if not self.labels and (self.teacher is None or self.squad is None):
            raise InputError(f"variant {variant.name} learns from a teacher: give --labels, or --squad and --teacher")

    def hashes(self) -> dict[str, Any]:
        """What decides training, as recipes hold inputs: evaluation data may change between commands."""
        found = {} if self.squad is None else {"squad": Input.of(self.squad, "SQuAD file")}
        if self.features is not None:
            found["features"] = Input.of(self.features, "features", MANIFEST)
        if self.init is not None:
            found["init"] = Input.of(self.init, "checkpoint", WEIGHTS)
        for name, folder in self.labels.items():
            found["labels" if name == "only" else f"labels-{name}"] = Input.of(folder, "labels", MANIFEST)
        return {name: asdict(one) for name, one in found.items()}
