"""Adversarial SQuAD (Jia and Liang, 2017): the altered questions of a set against the originals that they were made of.

An altered question has a text with a distracting sentence added, and its original's id with a suffix behind a hyphen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qa_edge.breakdown import Group, group_scores
from qa_edge.question_scores import QuestionScores
from qa_edge.split import only_questions, sample_questions
from qa_edge.squad import Squad


@dataclass(frozen=True, kw_only=True)
class AdversarialScores:
    """A set with altered questions, taken apart. The paper's Tables 7 and 8 have the whole set instead.

    :ivar originals: the questions as SQuAD has them.
    :ivar altered: all altered ones, of which an original may have several.
    :ivar attacked: the originals that have an altered one, as they were.
    :ivar worst: the same by the altered one with the lowest F1, and `best` by the one with the highest.
    :ivar official: every original by its worst altered one, or as it is where it has none: the adversarial score of
        Jia and Liang.
    :ivar kept: of the attacked originals that are exactly right, the percentage of which every altered one is too;
        None if none is right.
    """

    originals: Group
    altered: Group
    attacked: Group
    worst: Group
    best: Group
    official: Group
    kept: float | None

    @property
    def groups(self) -> tuple[Group, ...]:
        """All that is scored, each with its name."""
        return (self.originals, self.altered, self.attacked, self.worst, self.best, self.official)


def original_of(identifier: str, identifiers: frozenset[str]) -> str | None:
    """The question that an altered one was made of: what stands before a hyphen, the first where that is a question."""
    begin = identifier.find("-")
    while begin > 0:
        if identifier[:begin] in identifiers:
            return identifier[:begin]
        begin = identifier.find("-", begin + 1)
    return None


def sample_with_altered(squad: Squad, count: int, seed: int) -> Squad:
    """At most `count` answered questions as `sample_questions` draws them, none of them an altered one, and with each
    all that were made of it: torn apart, neither could be scored for what it is.
    """
    identifiers = frozenset(question.id for _, _, question in squad.items())
    originals = {one: original_of(one, identifiers) or one for one in identifiers}
    drawn = sample_questions(only_questions(squad, lambda one: originals[one] == one), count, seed)
    chosen = {question.id for _, _, question in drawn.items()}
    return only_questions(squad, lambda one: originals[one] in chosen)


def adversarial_scores(scores: QuestionScores) -> AdversarialScores | None:
    """Altered questions against their originals; None if no question is an altered one.

    Of the altered ones of an original the one with the lowest F1 counts, the first of equal ones, and EM is that one's,
    as in the official script; it leaves out what was not answered, which here scores 0.
    """
    identifiers = frozenset(scores.ids)
    places = {identifier: place for place, identifier in enumerate(scores.ids)}
    variants: dict[int, list[int]] = {}
    for place, identifier in enumerate(scores.ids):
        original = original_of(identifier, identifiers)
        if original is not None:
            variants.setdefault(places[original], []).append(place)
    if not variants:
        return None
    altered = [place for found in variants.values() for place in found]
    originals = sorted(set(range(len(scores.ids))) - set(altered))
    attacked = sorted(variants)
    worst = {place: min(variants[place], key=lambda variant: scores.f1[variant]) for place in attacked}
    best = [max(variants[place], key=lambda variant: scores.f1[variant]) for place in attacked]
    right = [place for place in attacked if scores.exact[place]]
    held = [place for place in right if all(scores.exact[variant] for variant in variants[place])]

    def group(name: str, chosen: list[int]) -> Group:
        index = np.array(chosen)
        return group_scores(name, scores.exact[index], scores.f1[index])

    return AdversarialScores(
        originals=group("originals", originals),
        altered=group("altered questions", sorted(altered)),
        attacked=group("originals that were altered", attacked),
        worst=group("worst altered one of each of these", list(worst.values())),
        best=group("best altered one of each of these", best),
        official=group("Jia and Liang: originals by the worst", [worst.get(place, place) for place in originals]),
        kept=100 * len(held) / len(right) if right else None,
    )
