"""What the runs of an experiment read: shares of the data, features, labels, choices; made once, for all runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import AVERAGE, Experiment, Variant
from qa_edge.experiments.share import share_of_features, share_of_squad
from qa_edge.experiments.sources import Sources
from qa_edge.features import Features
from qa_edge.lock import holding
from qa_edge.noise import noisy_squad
from qa_edge.split import sample_questions
from qa_edge.squad import Squad, read_squad, squad_json, whole_articles, write_squad
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, sha256_file

if TYPE_CHECKING:
    from qa_edge.labels import LabelSettings
    from qa_edge.prepare import PrepareSettings

Log = Callable[[str], None]
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ScoringSet:
    """A data set that finished runs are scored on.

    :param key: what it is in results: `dev`, `articles` or the name of an adversarial set.
    :param of: questions of the set that it was drawn from; `len` of it if it is the whole.
    """

    key: str
    path: Path
    questions: int
    of: int

    @property
    def said(self) -> str:
        """Its name, with what it is a part of."""
        return self.path.name if self.questions == self.of else f"{self.questions:,} of {self.of:,} questions"


class Inputs:
    """Makes what runs read, under `folder`; what is there already is kept.

    :param choose: trains the loop of a strategy and a seed as far as it chooses, and gives the SQuAD file of the chosen
        questions and the teacher fine-tuned on them.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sources,
        budget: Budget,
        *,
        lock: Path,
        log: Log,
        choose: Callable[[str, int], tuple[Path, Path]],
        prepare_settings: PrepareSettings | None = None,
        label_settings: LabelSettings | None = None,
    ) -> None:
        self.folder, self.sources, self.budget, self.log, self.choose = folder, sources, budget, log, choose
        self.lock, self.prepare_settings, self.label_settings = lock, prepare_settings, label_settings

    def squad(self) -> Path:
        """SQuAD JSON of the budget's share of the articles."""
        assert self.sources.squad is not None
        source, share = Path(self.sources.squad), self.budget.share
        if share == 1:
            return source
        path = self.folder / f"{source.stem}-{100 * share:g}-percent.json"
        with self._making(path) as missing:
            if missing:
                write_squad(path, share_of_squad(read_squad(source), share))
        return path

    def features(self, variant: Variant, seed: int) -> Path:
        """What a variant trains on: the budget's share, or a part of it, or all of it with answers to a part."""
        whole = self.all_features(variant, seed)
        if variant.answered is None:
            return whole
        folder = self.folder / f"features-{variant.name}"
        with self._making(folder) as missing:
            if missing:
                share_of_features(whole, folder, variant.answered, rest=variant.rest)
        return folder

    def all_features(self, variant: Variant, seed: int) -> Path:
        """Features of the budget's share, of those given or made of the SQuAD file; or of what was chosen."""
        if variant.chosen is not None:
            data, _ = self.choose(variant.chosen, seed)
            folder = self._chosen(variant.chosen, seed) / "features"
        elif self.sources.features is not None or self.sources.labels:
            # A teacher's labels are those of the whole file, so that the whole is prepared.
            whole = Path(self.sources.features) if self.sources.features else self._whole_features(variant)
            if self.budget.share == 1:
                return whole
            folder = self.folder / f"features{_suffix(variant)}"
            with self._making(folder) as missing:
                if missing:
                    share_of_features(whole, folder, self.budget.share)
            return folder
        else:
            data, folder = self.squad(), self.folder / f"features{_suffix(variant)}"
        self._prepare(data, folder, variant)
        return folder

    def _chosen(self, strategy: str, seed: int) -> Path:
        return self.folder / f"chosen-{strategy}-seed{seed}"

    def _prepare(self, data: Path, folder: Path, variant: Variant) -> None:
        from qa_edge.prepare import prepare

        vectors = self._vectors(variant)
        with self._making(folder) as missing:
            if missing:
                self.log(f"preparing {data.name}")
                init = self.sources.init
                prepare(data, folder, vectors_path=vectors, init=init, settings=self.prepare_settings)
        found = Features.open(folder).manifest
        if found["vectors_sha256"] != (None if vectors is None else _hash(vectors)):
            raise DataError(
                f"features {folder} were made with other vectors than {vectors or 'none'}: put those back, or name "
                "another folder with --runs"
            )

    def _whole_features(self, variant: Variant) -> Path:
        assert self.sources.squad is not None
        folder = self.folder / f"features-whole{_suffix(variant)}"
        self._prepare(Path(self.sources.squad), folder, variant)
        return folder

    def labels(self, variant: Variant, seed: int, *, states: bool = False) -> Path:
        """Logits of the teacher for a variant's questions.

        :param states: its layers' states beside them; labels that were given have theirs.
        """
        from qa_edge.accelerator import open_processes
        from qa_edge.ensemble import average_labels
        from qa_edge.labels import Labels, label
        from qa_edge.states import FOLDER, LayerStates, label_states
        from qa_edge.taught import finished

        if variant.chosen is not None:
            data, found = self.choose(variant.chosen, seed)
            teacher, folder = str(found), self._chosen(variant.chosen, seed) / "labels"
        elif variant.labels == AVERAGE:
            folder = self.folder / f"labels-{AVERAGE}"
            with self._making(folder) as missing:
                if missing:
                    self.log(f"averaging the logits of {', '.join(self.sources.labels)}")
                    average_labels(list(self.sources.labels.values()), folder)
            return folder
        elif self.sources.labels:
            return Path(self.sources.labels[variant.labels or "only"])
        else:
            assert self.sources.teacher is not None and self.sources.squad is not None
            # Features that are given, and their share, are of the whole file.
            data = self.squad() if self.sources.features is None else Path(self.sources.squad)
            teacher, folder = self.sources.teacher, self.folder / "labels"

        asked: dict[str, Any] = {"settings": self.label_settings, "device": str(open_processes().device)}
        with self._making(folder, lambda: finished(Labels, folder) is not None) as missing:
            if missing:
                self.log(f"labelling {data.name} with {Path(teacher).name}")
                label(data, teacher, folder, **asked)
        if states:
            features, kept = self.all_features(variant, seed), folder / FOLDER
            with self._making(kept, lambda: finished(LayerStates, kept) is not None) as missing:
                if missing:
                    self.log(f"reading the layers of {Path(teacher).name}")
                    label_states(data, teacher, folder, features, **asked)
            LayerStates(kept).require_whole(Labels(folder), Features.open(features))
        return folder

    def test_sets(self, experiment: Experiment) -> list[ScoringSet]:
        """What the experiment's runs are scored on."""
        assert self.sources.dev is not None
        path = Path(self.sources.dev)
        dev = read_squad(path)
        found = [self._drawn("dev", path, dev, self.budget.dev)]
        if experiment.whole_articles:
            found.append(self._drawn("articles", path, whole_articles(dev), self.budget.articles, "-whole-articles"))
        found += [self._in_noise(found[0], noise) for noise in experiment.noises]
        for name in self.sources.adversarial:
            path = Path(name)
            count = read_squad(path).answered
            found.append(ScoringSet(key=path.stem, path=path, questions=count, of=count))
        return found

    def _drawn(self, key: str, source: Path, squad: Squad, wanted: int | None, suffix: str = "") -> ScoringSet:
        """A data set, or a fixed part of it in a file whose name says so."""
        count = squad.answered
        if not count:
            raise DataError(f"SQuAD file {source} has no question with an answer to score on; give another --dev")
        questions = min(count, wanted or count)
        if questions == count and not suffix:
            return ScoringSet(key=key, path=source, questions=count, of=count)
        path = self.folder / f"{source.stem}{suffix}-{questions}-of-{count}.json"
        self._settle(path, sample_questions(squad, questions, _SEED))
        return ScoringSet(key=key, path=path, questions=questions, of=count)

    def _in_noise(self, clean: ScoringSet, noise: str) -> ScoringSet:
        """The same questions as `evaluate --noise` asks them."""
        path = self.folder / f"{clean.path.stem}-{noise}.json"
        self._settle(path, noisy_squad(read_squad(clean.path), noise, _SEED))
        return replace(clean, key=noise, path=path)

    def _settle(self, path: Path, squad: Squad) -> None:
        """Have a file hold a data set: one of the same name and size that was drawn of another source is replaced."""
        text = squad_json(squad)
        with self._making(path, lambda: path.exists() and path.read_text(encoding="utf-8") == text) as missing:
            if missing:
                atomic_write(path, text)

    def data_of(self, variant: Variant, features: Features) -> dict[str, Any]:
        """What a run was trained on, for its record; a share is named as one."""
        found = features.manifest
        source = self.sources.squad
        return {
            "name": Path(source).name if source is not None else found["squad"],
            "share": round(self.budget.share * self.sources.given_share, 6),
            "questions": found["questions"],
            "contexts": found["contexts"],
            "articles": len(set(features.context_article.tolist())),
            "unanswered": int((features.answer_start < 0).sum()),
            "heldout_questions": found["heldout_questions"],
            "vectors": found["vectors"],
            "chosen": variant.chosen,
            "answered": variant.answered,
        }

    def _vectors(self, variant: Variant) -> str | None:
        name = variant.vectors or "only"
        # Without any, those of the checkpoint to go on from are the only ones.
        path = "none" if name == "none" else self.sources.vectors.get(name, "none")
        return None if path == "none" else path

    @contextmanager
    def _making(self, path: Path, done: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Hold the inputs' lock while something is made; yields whether it is missing.

        :param done: says whether it is there, where that is more than its path.
        """
        from qa_edge.accelerator import open_processes

        done = done or path.exists
        path.parent.mkdir(parents=True, exist_ok=True)
        state = open_processes()
        if state.num_processes > 1:
            # Under `accelerate launch` the main process makes it, and the others come when it is there.
            yield state.is_main_process and not done()
            state.wait_for_everyone()
            return
        if done():
            yield False
            return
        with holding(self.lock, wait=True):
            yield not done()


@functools.cache
def _hash(path: str) -> str:
    return sha256_file(path)


def _suffix(variant: Variant) -> str:
    return "" if variant.vectors is None else f"-{variant.vectors}"
