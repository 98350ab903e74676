"""What an experiment costs, in questions trained on: the one measure that holds on any machine."""

from __future__ import annotations

from qa_edge.active.cycles import LoopSettings, labelled_counts
from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import WHOLE, Experiment


def questions_trained(experiment: Experiment, budget: Budget, *, pool: int, teach_epochs: int) -> tuple[int, int]:
    """Questions that students and fine-tuned encoders train on, over all passes, variants, seeds and cycles.

    What is labelled and answered comes on top: each of a run's questions once, and the test sets.

    :param pool: questions of the whole training set.
    :returns: of students, and of encoders.
    """
    available = max(1, round(budget.share * pool))
    students = encoders = 0
    for variant in experiment.variants:
        if variant.strategy is not None:
            encoders += _loop(available, budget.labels, teach_epochs)
        else:
            part = variant.chosen not in (None, WHOLE) and not experiment.equal_updates
            share = experiment.chosen if part and experiment.chosen is not None else 1.0
            students += round(share * available) * budget.epochs
    for strategy in {variant.chosen for variant in experiment.variants} - {None}:
        if strategy == WHOLE:
            encoders += teach_epochs * available
        elif experiment.chosen is not None:
            encoders += _loop(available, experiment.chosen, teach_epochs)
    return students * budget.seeds, encoders * budget.seeds


def _loop(pool: int, labels: float, epochs: int) -> int:
    return epochs * sum(labelled_counts(pool, LoopSettings(budget=labels)))
