"""Annotations that come back: checked against the source, conflicts reported, written as SQuAD JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qa_edge.active.label_studio import Annotation, Region, parse_export
from qa_edge.active.pool import part_of
from qa_edge.squad import Question, Reference, Squad, parse_squad
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.files import read_hashed_json
from qa_edge_runtime.scoring import normalize_answer

ON_CONFLICT = ("leave-out", "keep-all")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An annotation that was not taken, or a question on which annotators differ.

    :param kind: "unknown id", "other context", "other label", "answer not in its context", or "conflict".
    """

    kind: str
    question_id: str
    annotator: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """The labelled questions, and all that is wrong with the others.

    :param squad: questions that are labelled now, with their contexts, in the source's order.
    :param labelled: how many they are; `impossible` of them have no answer.
    :param unanswered: questions that somebody opened and said nothing about.
    """

    squad: Squad
    labelled: int
    impossible: int
    unanswered: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class _Said:
    """One annotator's word on a question: reference answers, or none if there is no answer."""

    annotator: str
    answers: tuple[Reference, ...]


def import_annotations(
    source: Squad, annotations: Iterable[Annotation], *, on_conflict: str = "leave-out"
) -> ImportReport:
    """Label a source's questions; the source itself stays as it is.

    Two annotators agree if they mark the same characters, or overlapping ones that are the same answer to the official
    scoring (lower case, no punctuation, no articles); of such the first is taken. What the source says already counts
    as an annotator.

    :param on_conflict: questions on which annotators differ are left out ("leave-out"), or get the answers of all of
        them, as the development set of SQuAD has them ("keep-all"; an annotator who finds none is overruled).
    :raises InputError: if `on_conflict` is something else.
    """
    if on_conflict not in ON_CONFLICT:
        raise InputError(f"on_conflict is {on_conflict!r}, expected {' or '.join(ON_CONFLICT)}")
    known = {question.id: (paragraph.context, question) for _, paragraph, question in source.items(impossible=True)}
    problems: list[Problem] = []
    said: dict[str, list[_Said]] = defaultdict(list)
    opened: set[str] = set()
    for annotation in annotations:
        identity, context = annotation.question_id, ""
        if identity in known:
            opened.add(identity)
            context = known[identity][0]
        problem = _problem(annotation, identity in known, context)
        if problem is not None:
            problems.append(problem)
        elif annotation.regions or annotation.impossible:
            answers = _references(annotation.regions, context)
            said[identity].append(_Said(annotator=annotation.annotator, answers=answers))
    labels: dict[str, Question] = {}
    for identity, words in said.items():
        question = known[identity][1]
        if not question.unlabelled:
            words = [_Said(annotator="the source", answers=question.answers), *words]
        agreed = all(_agree(words[0], other) for other in words[1:])
        if not agreed:
            problems.append(_conflict(identity, words))
            if on_conflict == "leave-out":
                continue
        answers = words[0].answers if agreed else _merged(words)
        labels[identity] = replace(question, answers=answers, impossible=not answers)
    squad = part_of(source, labels)
    squad = replace(
        squad,
        articles=tuple(
            replace(
                article,
                paragraphs=tuple(
                    replace(paragraph, questions=tuple(labels[one.id] for one in paragraph.questions))
                    for paragraph in article.paragraphs
                ),
            )
            for article in squad.articles
        ),
    )
    wrong = {problem.question_id for problem in problems}
    return ImportReport(
        squad=squad,
        labelled=len(labels),
        impossible=sum(one.impossible for one in labels.values()),
        unanswered=len(opened - set(said) - wrong),
        problems=tuple(problems),
    )


def read_annotations(path: str | Path) -> list[Annotation]:
    """Read Label Studio's export, or SQuAD JSON whose answers are annotations by the file's name.

    The file is read once: it may be a pipe.

    :raises DataError: if it is neither.
    """
    root, sha256 = read_hashed_json(path, "annotations")
    if isinstance(root, dict):
        return annotations_of(parse_squad(root, sha256, path), Path(path).name)
    return parse_export(root, path)


def annotations_of(squad: Squad, annotator: str) -> list[Annotation]:
    """The answers of a SQuAD file as annotations, for people who label in another tool."""
    return [
        Annotation(
            question_id=question.id,
            annotator=annotator,
            context=paragraph.context,
            regions=tuple(Region(start=one.start, end=one.end, text=one.text) for one in question.answers),
            impossible=question.impossible,
        )
        for _, paragraph, question in squad.items(impossible=True)
    ]


def _problem(annotation: Annotation, known: bool, context: str) -> Problem | None:
    kind = message = ""
    if not known:
        kind, message = "unknown id", "the source has no question of this id"
    elif annotation.context is not None and annotation.context != context:
        kind, message = "other context", "the text was annotated in another wording than the source has"
    elif annotation.other_labels and not (annotation.regions or annotation.impossible):
        labels = ", ".join(annotation.other_labels)
        kind, message = "other label", f"marked as {labels[:60]}, expected Answer (qa-edge labels config)"
    elif annotation.regions and annotation.impossible:
        kind, message = "conflict", f"{annotation.annotator} marks an answer and says that there is none"
    else:
        for region in annotation.regions:
            if region.in_context(context) is None:
                kind = "answer not in its context"
                message = _misplaced(region, context)
                break
    if not kind:
        return None
    return Problem(kind=kind, question_id=annotation.question_id, annotator=annotation.annotator, message=message)


def _misplaced(region: Region, context: str) -> str:
    there = context[max(region.start, 0) : max(region.end, 0)][:40]
    message = f"characters {region.start} to {region.end} are {there!r}"
    if region.text is None:
        return f"{message}, expected an answer"
    place = context.find(region.text) if region.text.strip() else -1
    elsewhere = f"it stands at {place}" if place >= 0 else "it stands nowhere"
    return f"{message}, expected {region.text[:40]!r}; {elsewhere}"


def _references(regions: Sequence[Region], context: str) -> tuple[Reference, ...]:
    """Reference answers of regions that stand in the context, each once."""
    places = [region.in_context(context) for region in regions]
    return tuple(
        Reference(text=context[place[0] : place[1]], start=place[0]) for place in dict.fromkeys(places) if place
    )


def _agree(one: _Said, other: _Said) -> bool:
    """Each answer of either is an answer of the other, or both find none."""
    if not one.answers or not other.answers:
        return one.answers == other.answers
    return all(any(_same(a, b) for b in other.answers) for a in one.answers) and all(
        any(_same(a, b) for a in one.answers) for b in other.answers
    )


def _same(one: Reference, other: Reference) -> bool:
    if one == other:
        return True
    overlap = one.start < other.end and other.start < one.end
    return overlap and normalize_answer(one.text) == normalize_answer(other.text)


def _conflict(identity: str, words: Sequence[_Said]) -> Problem:
    def quoted(one: _Said) -> str:
        return ", ".join(f"{answer.text[:40]!r} at {answer.start}" for answer in one.answers) or "no answer"

    return Problem(
        kind="conflict",
        question_id=identity,
        annotator=", ".join(dict.fromkeys(one.annotator for one in words)),
        message="; ".join(f"{one.annotator}: {quoted(one)}" for one in words),
    )


def _merged(words: Sequence[_Said]) -> tuple[Reference, ...]:
    kept: list[Reference] = []
    for answer in (answer for one in words for answer in one.answers):
        if not any(_same(answer, other) for other in kept):
            kept.append(answer)
    return tuple(kept)
