"""Sampling strategies: how much a question would tell the model if somebody answered it (section 4.2).

A strategy of one's own needs a name and a number a question, the highest first:

    import numpy as np
    from qa_edge.active.strategies import Strategy, choose

    class LongQuestions(Strategy):
        name = "long-questions"
        needs_model = False

        def informativeness(self, pool, random):
            return np.array([len(question) for question in pool.questions], float)

    chosen = choose(pool, LongQuestions(), count=500)

On the command line it is `--strategy package.module:LongQuestions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.active.clusters import Encoder, cluster, draw_in_proportion
from qa_edge.active.duplicates import NearDuplicates
from qa_edge_runtime.errors import DataError, InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The questions that can be chosen, in the pool's order, as strategies see them.

    :param ids: question ids.
    :param questions: their texts.
    :param contexts: the text that each is about.
    :param probabilities: of each question's best answers, best first, float64, shape (questions, 5); a context with
        fewer answers has zeros. None if no model has read them.
    :param disagreement: of the model with a teacher, 0 to log 2, float64, shape (questions,); None without a teacher.
    """

    ids: Sequence[str]
    questions: Sequence[str]
    contexts: Sequence[str]
    probabilities: NDArray[np.float64] | None = None
    disagreement: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.questions), len(self.contexts)}
        lengths |= {len(values) for values in (self.probabilities, self.disagreement) if values is not None}
        if len(lengths) > 1:
            raise InputError(f"candidates are of different numbers: {sorted(lengths)}; expected one of each a question")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answers(self) -> NDArray[np.float64]:
        """`probabilities`, of a pool that a model has read.

        :raises InputError: if none has.
        """
        if self.probabilities is None:
            raise InputError("this strategy needs a model's probabilities: score the pool with one first")
        return self.probabilities


class Strategy(ABC):
    """One way to choose: the questions with the highest `informativeness`, of equal ones the first of the pool.

    :cvar name: as the command line calls it.
    :cvar needs_model: whether it looks at a model's probabilities.
    :cvar needs_teacher: whether it looks at the model's disagreement with a teacher.
    :cvar widening: so many times the count are candidates, of which `draw` takes the count.
    """

    name: str
    needs_model: bool = True
    needs_teacher: bool = False
    widening: int = 1

    @abstractmethod
    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """A number a question, shape (questions,): the highest are chosen."""

    def draw(
        self, pool: Candidates, ranked: NDArray[np.int64], count: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Take `count` of the candidates.

        :param ranked: indices into the pool, most informative first, at most `widening * count` and at least `count`.
        """
        return ranked[:count]


class Random(Strategy):
    """Every question as likely as any other."""

    name = "random"
    needs_model = False

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """Random numbers."""
        return random.random(len(pool))


class LeastConfidence(Strategy):
    """1 - p of the best answer (Eq. 13, 14)."""

    name = "least-confidence"

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """1 - p of the best answer, 0 to 1."""
        return 1 - pool.answers[:, 0]


class Margin(Strategy):
    """The smallest difference of the two best answers: section 4.2.2's text, against the sign of its Eq. 15."""

    name = "margin"

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """p of the second answer less p of the best one, -1 to 0."""
        return pool.answers[:, 1] - pool.answers[:, 0]


class MarginAsPrinted(Strategy):
    """The largest difference of the two best answers (Eq. 15 as it is printed)."""

    name = "margin-as-printed"

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """p of the best answer less p of the second one, 0 to 1."""
        return pool.answers[:, 0] - pool.answers[:, 1]


class Entropy(Strategy):
    """Entropy over the five best answers, renormalised (Eq. 16, with the p that is missing from its logarithm)."""

    name = "entropy"

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """Entropy in nats, 0 to log 5."""
        total = pool.answers.sum(axis=1, keepdims=True)
        shares = pool.answers / np.where(total > 0, total, 1)
        # p log p goes to 0 with p.
        return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)


class LeastConfidenceClusters(LeastConfidence):
    """Of three times as many by least confidence, some of each of ten kinds of question (section 4.2.4).

    The paper encodes questions with the universal sentence encoder; here any encoder that transformers loads does.
    Within a cluster questions are drawn at random.

    :param encoder: makes sentences vectors.
    """

    name = "least-confidence-clusters"
    widening = 3

    def __init__(self, encoder: Encoder, *, clusters: int = 10) -> None:
        if type(clusters) is not int or clusters < 1:
            raise InputError(f"clusters is {clusters!r}, expected a whole number from 1")
        self.encoder, self.clusters = encoder, clusters

    def draw(
        self, pool: Candidates, ranked: NDArray[np.int64], count: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """`count` candidates, in proportion to the sizes of the clusters, still most informative first."""
        vectors = self.encoder.encode([pool.questions[i] for i in ranked])
        labels = cluster(vectors, self.clusters, seed=int(random.integers(2**31)))
        return ranked[draw_in_proportion(labels, count, random)]


class Disagreement(Strategy):
    """The largest disagreement of a model and its teacher; see `qa_edge.active.disagreement`. Not in the paper."""

    name = "disagreement"
    needs_teacher = True

    def informativeness(self, pool: Candidates, random: np.random.Generator) -> NDArray[np.float64]:
        """Jensen-Shannon divergence in nats, 0 to log 2."""
        if pool.disagreement is None:
            raise InputError(f"strategy {self.name} compares a model with its teacher: score the pool with both first")
        return pool.disagreement


STRATEGIES: Mapping[str, type[Strategy]] = {
    kind.name: kind
    for kind in (Random, LeastConfidence, Margin, MarginAsPrinted, Entropy, LeastConfidenceClusters, Disagreement)
}


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of a name, or an outsider's by `package.module:Class`.

    :raises InputError: if there is none; the message lists those there are.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    there_are = f"there are {', '.join(STRATEGIES)}, and package.module:Class of one's own"
    if ":" not in name:
        raise InputError(f"unknown strategy {name!r}; {there_are}")
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except Exception as error:  # an outsider's module raises what it likes
        raise InputError(
            f"strategy {name!r} cannot be imported ({type(error).__name__}: {error}); a module in this folder is found "
            f"with PYTHONPATH=.; {there_are}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise InputError(f"{name!r} is no subclass of qa_edge.active.strategies.Strategy; {there_are}")
    if not isinstance(getattr(found, "name", None), str):
        raise InputError(f'strategy {name!r} has no name: give its class one, as name = "long-questions"')
    return found


def open_strategy(name: str, encoder: Encoder | None = None) -> Strategy:
    """The strategy of a name, ready to choose.

    :param encoder: of sentences, for `least-confidence-clusters`.
    :raises InputError: as `strategy_class`, or if the strategy needs an encoder.
    """
    kind = strategy_class(name)
    if not issubclass(kind, LeastConfidenceClusters):
        try:
            return kind()
        except Exception as error:
            raise InputError(f"strategy {name} cannot be made without arguments ({error})") from error
    if encoder is None:
        raise InputError(
            f"strategy {name} needs a sentence encoder: name one with --sentence-encoder, "
            'such as sentence-transformers/all-MiniLM-L6-v2; it needs: pip install "qa-edge[train,active]"'
        )
    return kind(encoder)


def choose(
    pool: Candidates,
    strategy: Strategy,
    count: int,
    *,
    seed: int = 0,
    duplicates: NearDuplicates | None = None,
) -> NDArray[np.int64]:
    """Choose exactly `count` questions, most informative first.

    :param seed: of all that is random.
    :param duplicates: knows which questions are nearly the same; None lets the same question be chosen twice.
    :returns: indices into the pool, int64, shape (count,), all different.
    :raises InputError: if the count is not from 1 to the size of the pool, or the strategy gives no finite number a
        question.
    :raises DataError: if fewer are left when near-duplicates count once.
    """
    if type(count) is not int or count < 1:
        raise InputError(f"count is {count!r}, expected a whole number from 1")
    if count > len(pool):
        raise InputError(f"count {count:,} is more than the {len(pool):,} questions of the pool; choose a smaller one")
    random = np.random.default_rng(seed)
    try:
        values = np.asarray(strategy.informativeness(pool, random), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"strategy {strategy.name} gave no number for each question ({error})") from error
    if values.shape != (len(pool),) or not np.isfinite(values).all():
        raise InputError(
            f"strategy {strategy.name} gave numbers of shape {values.shape}, not all finite or not one a question: "
            f"expected shape ({len(pool)},)"
        )
    order = np.argsort(-values, kind="stable")
    wanted = strategy.widening * count
    ranked = order[:wanted] if duplicates is None else duplicates.first_distinct(pool, order, wanted)
    if len(ranked) < count:
        raise DataError(
            f"count {count:,} is more than the {len(ranked):,} different questions of the pool ({len(pool):,} with "
            "those that are nearly the same): choose a smaller one, or allow near-duplicates"
        )
    chosen = np.asarray(strategy.draw(pool, ranked, count, random), np.int64)
    if len(chosen) != count or len(set(chosen.tolist())) != count or not set(chosen.tolist()) <= set(ranked.tolist()):
        raise InputError(
            f"strategy {strategy.name} drew {len(chosen)} questions, expected {count} different candidates"
        )
    return chosen
