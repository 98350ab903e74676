"""Scores by kind of question, by length of the answer and by length of the context."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge.question_scores import QuestionScores
from qa_edge.squad import Question, Squad
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.scoring import percent

QUESTION_TYPES = ("who", "what", "when", "where", "why", "how many", "how", "which", "other")
# Longest of each bin, in words; SQuAD's development set has 90 % of its contexts between 57 and 213.
ANSWER_WORDS = (1, 2, 3, 5, 10)
CONTEXT_WORDS = (75, 100, 125, 150, 200, 400, 1000)
# The mean of fewer questions is hardly normally distributed.
ENOUGH_FOR_AN_INTERVAL = 30
_TYPE_OF_WORD = {name: name for name in QUESTION_TYPES if " " not in name and name != "other"} | {
    "whom": "who",
    "whose": "who",
}
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Questions that have something in common, and what they score.

    :ivar exact_match: percent, and `f1` too.
    :ivar exact_match_error: half of the 95 % interval in points (normal approximation); None on fewer than
        `ENOUGH_FOR_AN_INTERVAL` questions, or where all score alike. `f1_error` is that of `f1`.
    """

    name: str
    questions: int
    exact_match: float
    f1: float
    exact_match_error: float | None = None
    f1_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """All questions in groups; groups without questions are left out.

    :ivar key: name for programs.
    :ivar rule: how a question came into its group.
    """

    key: str
    title: str
    rule: str
    groups: tuple[Group, ...]


def break_down(squad: Squad, scores: QuestionScores) -> tuple[Breakdown, ...]:
    """The scores by question type, by answer length and by context length.

    :param squad: the data that was scored.
    :raises InputError: if a scored question is not in the data.
    """
    types, answers, contexts = {}, {}, {}
    for _, paragraph, question in squad.items():
        if question.answers:
            types[question.id] = QUESTION_TYPES.index(question_type(question.text))
            answers[question.id] = _bin(answer_words(question), ANSWER_WORDS)
            contexts[question.id] = _bin(len(paragraph.context.split()), CONTEXT_WORDS)
    unknown = next((identifier for identifier in scores.ids if identifier not in types), None)
    if unknown is not None:
        raise InputError(f"question {unknown} has a score but is not in the data; give the data that was scored")
    return (
        Breakdown(
            key="question_type",
            title="By type of question",
            rule="The first question word, wherever it stands: whom and whose are who, how much is how many.",
            groups=_groups(types, QUESTION_TYPES, scores),
        ),
        Breakdown(
            key="answer_words",
            title="By length of the answer",
            rule="Words of the reference answer, of the middle one by length where there are several.",
            groups=_groups(answers, _bin_names(ANSWER_WORDS), scores),
        ),
        Breakdown(
            key="context_words",
            title="By length of the text",
            rule="Words of the context, parted by white space.",
            groups=_groups(contexts, _bin_names(CONTEXT_WORDS), scores),
        ),
    )


def question_type(text: str) -> str:
    """One of `QUESTION_TYPES`, by the first question word that stands anywhere in a question."""
    words = _WORD.findall(text.lower())
    for place, word in enumerate(words):
        if word == "how" and words[place + 1 : place + 2] in (["many"], ["much"]):
            return "how many"
        if word in _TYPE_OF_WORD:
            return _TYPE_OF_WORD[word]
    return "other"


def answer_words(question: Question) -> int:
    """Words of a question's reference answer: the lower median of several."""
    lengths = sorted(len(answer.text.split()) for answer in question.answers)
    return lengths[(len(lengths) - 1) // 2]


def group_scores(name: str, exact: NDArray[np.bool_], f1: NDArray[np.float64]) -> Group:
    """The scores of some questions.

    :param exact: exact match of each, shape (questions,), one at least.
    :param f1: 0 to 1, same shape.
    """
    return Group(
        name=name,
        questions=len(exact),
        exact_match=percent(exact.tolist(), len(exact)),
        f1=percent(f1.tolist(), len(f1)),
        exact_match_error=_error(exact),
        f1_error=_error(f1),
    )


def _groups(number: Mapping[str, int], names: Sequence[str], scores: QuestionScores) -> tuple[Group, ...]:
    numbers = np.array([number[identifier] for identifier in scores.ids])
    return tuple(
        group_scores(name, scores.exact[inside], scores.f1[inside])
        for place, name in enumerate(names)
        if (inside := numbers == place).any()
    )


def _error(values: NDArray[np.bool_] | NDArray[np.float64]) -> float | None:
    if len(values) < ENOUGH_FOR_AN_INTERVAL or not values.std():  # of all right or all wrong it would have no width
        return None
    return 100 * 1.96 * float(values.std(ddof=1)) / float(np.sqrt(len(values)))


def _bin(length: int, longest: Sequence[int]) -> int:
    return int(np.searchsorted(longest, length))


def _bin_names(longest: Sequence[int]) -> list[str]:
    names = []
    for begin, end in zip((0, *longest), longest, strict=False):
        length = f"{end:,}" if begin + 1 == end else f"{begin + 1:,}-{end:,}"
        names.append(f"{length} word{'' if end == 1 else 's'}")
    return [*names, f"over {longest[-1]:,} words"]
