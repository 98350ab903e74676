"""The experiments by name: which variants each has, which of them the others are judged against, and what is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qa_edge.noise import NOISES
from qa_edge_runtime.errors import InputError

CLUSTERS = "least-confidence-clusters"
CHOICE, AT_RANDOM, WHOLE = "least-confidence", "random", "all"
"""Who chose a variant's questions: the paper's Table 6, what that is judged against, and nobody."""
STRATEGIES = ("random", "least-confidence", "margin", "entropy", CLUSTERS)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of training, of which an experiment has a run for each seed.

    :param said: in a few words, for tables.
    :param train: settings of `TrainSettings` that this variant fixes; the others are the experiment's.
    :param student: sizes that it fixes.
    :param vectors: which of the vector files it takes; None takes the only one, `none` no vectors.
    :param chosen: trained on questions that a loop of active learning chose by this strategy, or on all of them, with
        the teacher fine-tuned on the same ones; None takes the experiment's questions and teacher.
    :param strategy: of a loop of active learning; such a variant trains an encoder, no student.
    :param answered: the share of the articles whose questions have answers, drawn as a budget's share is, while updates
        are as many as with all; None gives all of them theirs.
    :param rest: the questions of the other articles are there too, without answers; else they are left out.
    :param labels: which of the named labels it takes, `average` the mean of all; None takes the only ones.
    """

    name: str
    said: str
    train: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] = field(default_factory=dict)
    vectors: str | None = None
    chosen: str | None = None
    strategy: str | None = None
    answered: float | None = None
    rest: bool = False
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A named set of variants.

    :param question: what it answers.
    :param baseline: the variant that the others are compared with.
    :param preset: of the student, where none is given.
    :param whole_articles: questions are asked of whole articles too.
    :param noises: kinds of `noise.NOISES` that questions are asked in too; the features have noisy copies to train on.
    :param chosen: labels that active learning may choose for `chosen` variants, as a share; None has no loop.
    :param equal_updates: all variants make as many updates as passes over all questions are.
    :param tables: of the paper, that its runs fill.
    """

    name: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    preset: str = "edge"
    whole_articles: bool = False
    noises: tuple[str, ...] = ()
    chosen: float | None = None
    equal_updates: bool = False
    tables: tuple[str, ...] = ()

    def variant(self, name: str) -> Variant:
        """A variant by its name.

        :raises InputError: if there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise InputError(f"experiment {self.name} has no variant {name!r}; there are {names}")

    @property
    def has_students(self) -> bool:
        """Whether students are trained, not encoders alone."""
        return any(variant.strategy is None for variant in self.variants)

    @property
    def has_loops(self) -> bool:
        """Whether an encoder is fine-tuned on ever more questions."""
        return self.chosen is not None or any(variant.strategy for variant in self.variants)


HARD = {"rho": 0.0, "mse_weight": 0.0, "layers_weight": None}
_KD = {"alignment": "rule", "mse_weight": 0.0}
_RULE = {"alignment": "rule"}
_LINEAR, _CUBIC = {"alignment": "rule", "interpolation": "linear"}, {"alignment": "rule", "interpolation": "cubic"}


AVERAGE = "average"
"""Name of the mean of all teachers, beside their own."""
_A_QUARTER = 0.25


def _papers(chosen: str | None = None) -> tuple[Variant, ...]:
    """QANet as Tables 2 and 6 to 8 have it: base, KD, and KD with either interpolation."""
    where, whose = ("-chosen", ", chosen questions") if chosen else ("", "")
    return tuple(
        Variant(name=f"{name}{where}", said=f"{said}{whose}", train=train, chosen=chosen)
        for name, said, train in (
            ("base", "QANet (Base)", HARD),
            ("kd", "QANet+KD", _KD),
            ("kd-linear", "QANet+KD+Linear", _LINEAR),
            ("kd-cubic", "QANet+KD+Cubic", _CUBIC),
        )
    )


def _grid() -> tuple[Variant, ...]:
    """One value changed at a time, from the paper's; and two of them together."""
    papers = {"rho": 0.7, "temperature": 10.0, "mse_weight": 1.0}
    variants = [Variant(name="paper", said="rho 0.7, T 10, MSE 1", train=papers)]
    for name, said, change in (
        ("rho-0.3", "rho 0.3", {"rho": 0.3}),
        ("rho-0.9", "rho 0.9", {"rho": 0.9}),
        ("t-2", "T 2", {"temperature": 2.0}),
        ("t-5", "T 5", {"temperature": 5.0}),
        ("mse-0", "MSE 0", {"mse_weight": 0.0}),
        ("mse-0.05", "MSE 0.05", {"mse_weight": 0.05}),
        ("t-2-mse-0.05", "T 2, MSE 0.05", {"temperature": 2.0, "mse_weight": 0.05}),
    ):
        variants.append(Variant(name=name, said=said, train={**papers, **change}))
    return tuple(variants)


def ensemble(teachers: Sequence[str]) -> Experiment:
    """Each of several teachers, and the mean of them; the first is the baseline.

    :param teachers: names of their labels.
    :raises InputError: if there are fewer than two, or a name is no name of a folder.
    """
    if len(teachers) < 2:
        raise InputError("experiment ensemble needs --labels NAME=FOLDER of two teachers or more")
    for name in teachers:
        if name == AVERAGE or re.fullmatch(r"\w[\w.-]*", name) is None:
            raise InputError(f"{name!r} cannot name labels: expected letters and digits, and not {AVERAGE}")
    return Experiment(
        name="ensemble",
        question="Is the mean of several teachers a better teacher than each of them?",
        baseline=teachers[0],
        variants=(
            *(Variant(name=name, said=f"teacher {name}", labels=name) for name in teachers),
            Variant(name=AVERAGE, said=f"mean of the {len(teachers)} teachers", labels=AVERAGE),
        ),
    )


_ALL = (
    Experiment(
        name="kd",
        question="What does distillation give over hard labels alone, at equal steps?",
        baseline="hard",
        variants=(
            Variant(name="hard", said="hard labels alone", train=HARD),
            Variant(name="rule", said="KD, rule alignment", train=_KD),
            Variant(name="offset", said="KD, offset alignment", train={"alignment": "offset", "mse_weight": 0.0}),
            Variant(name="rule-linear", said="KD, rule + linear interpolation", train=_LINEAR),
            Variant(name="rule-cubic", said="KD, rule + cubic interpolation", train=_CUBIC),
        ),
    ),
    Experiment(
        name="grid",
        question="Are rho 0.7, T 10 and MSE weight 1 the best use of a teacher?",
        baseline="paper",
        variants=_grid(),
    ),
    Experiment(
        name="others",
        question="How many second paragraphs without the answer, and what do they cost on the paragraph?",
        baseline="others-0",
        whole_articles=True,
        variants=tuple(
            Variant(name=f"others-{share:g}", said=f"{100 * share:g} % second paragraphs", train={"others": share})
            for share in (0.0, 0.2, 0.4, 0.8)
        ),
    ),
    Experiment(
        name="size",
        question="How large should the student be?",
        baseline="edge",
        variants=(
            Variant(name="edge", said="1 head, 7 blocks, hidden 128", student={"heads": 1}),
            Variant(name="heads-8", said="8 heads", student={"heads": 8}),
            Variant(name="blocks-5", said="5 blocks", student={"heads": 1, "model_blocks": 5}),
            Variant(name="blocks-4", said="4 blocks", student={"heads": 1, "model_blocks": 4}),
            Variant(name="hidden-96", said="hidden 96", student={"heads": 1, "hidden": 96}),
            Variant(name="hidden-192", said="hidden 192", student={"heads": 1, "hidden": 192}),
        ),
    ),
    Experiment(
        name="vectors",
        question="Which word vectors, or none?",
        baseline="glove",
        variants=(
            Variant(name="glove", said="GloVe", vectors="glove"),
            Variant(name="none", said="characters alone", vectors="none"),
            Variant(name="encoder", said="static, of an encoder", vectors="encoder"),
            Variant(name="both", said="both side by side", vectors="both"),
        ),
    ),
    Experiment(
        name="unlabelled",
        question="What do questions without an answer add, taught by the teacher alone?",
        baseline="quarter",
        variants=(
            Variant(name="quarter", said="a quarter of the articles answered", answered=_A_QUARTER),
            Variant(
                name="quarter-and-rest",
                said="a quarter answered and the rest left to the teacher",
                answered=_A_QUARTER,
                rest=True,
            ),
            Variant(name="all", said="all answered"),
        ),
    ),
    Experiment(
        name="noise",
        question="What does training on noisy questions give on such questions, and cost on clean ones?",
        baseline="noise-0",
        noises=NOISES,
        variants=(
            Variant(name="noise-0", said="no noise", train={"noise": None}),
            *(
                Variant(name=f"noise-{share:g}", said=f"{100 * share:g} % in noise", train={"noise": share})
                for share in (0.15, 0.3, 0.6)
            ),
        ),
    ),
    Experiment(
        name="layers",
        question="What do the teacher's layers teach beside its logits?",
        baseline="rule",
        variants=(
            Variant(name="rule", said="KD, rule alignment", train=_KD),
            *(
                Variant(
                    name=f"layers-{weight:g}", said=f"KD + layers {weight:g}", train={**_KD, "layers_weight": weight}
                )
                for weight in (0.1, 1.0, 10.0)
            ),
        ),
    ),
    ensemble(("first", "second")),
    Experiment(
        name="joint",
        question="What is distilled on 40 % by least confidence, on a random 40 %, and on all?",
        baseline="random-40",
        chosen=0.4,
        equal_updates=True,
        variants=(
            Variant(name="random-40", said="KD, a random 40 %", train=_RULE, chosen=AT_RANDOM),
            Variant(name="chosen-40", said="KD, 40 % by least confidence", train=_RULE, chosen=CHOICE),
            Variant(name="all", said="KD, all questions", train=_RULE, chosen=WHOLE),
        ),
    ),
    Experiment(
        name="table2",
        question="QANet before and after distillation (Table 2, Figure 7).",
        baseline="base",
        preset="paper",
        variants=_papers(),
        tables=("2", "7", "8"),
    ),
    Experiment(
        name="table4",
        question="Which strategy needs the fewest labels (Tables 4 and 5)?",
        baseline="random",
        variants=tuple(Variant(name=name, said=name, strategy=name) for name in STRATEGIES),
        tables=("4", "5"),
    ),
    Experiment(
        name="table6",
        question="Distillation on the 40 % of the questions that least confidence chose (Table 6).",
        baseline="base-chosen",
        preset="paper",
        chosen=0.4,
        variants=(_papers()[0], *_papers(CHOICE)),
        tables=("6", "7", "8"),
    ),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}
# Tables that are other columns, or other data, of the same runs.
SAME_RUNS = {"table5": ("table4",), "table7": ("table2", "table6"), "table8": ("table2", "table6")}
# Tables without training.
COUNTED = {
    "table1": "Documents, paragraphs and questions of the data sets; no training.",
    "table3": "Parameters and speed, from the JSON of benchmarks/peers.py; no training.",
}
ADVERSARIAL = ("table7", "table8")


def experiments_of(name: str, teachers: Sequence[str] = ()) -> tuple[Experiment, ...]:
    """The experiments whose runs a name stands for.

    :param teachers: names of their labels, of `ensemble`.
    :raises InputError: if there is no such name, or `ensemble` cannot be made of these teachers.
    """
    if name == "ensemble" and teachers:
        return (ensemble(teachers),)
    if name in COUNTED:
        return ()
    if name not in EXPERIMENTS and name not in SAME_RUNS:
        raise InputError(f"unknown experiment {name!r}; there are {', '.join(names())}")
    return tuple(EXPERIMENTS[one] for one in SAME_RUNS.get(name, (name,)))


def names() -> list[str]:
    """All names, issue's rows first, then the paper's tables."""
    return [*(name for name in EXPERIMENTS if name[:5] != "table"), *(f"table{number}" for number in range(1, 9))]
