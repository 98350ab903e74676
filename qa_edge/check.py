"""What a SQuAD file holds, and which of its answers training cannot use."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from qa_edge.squad import Reference, Squad

EXAMPLES = 5
"""Number of misplaced answers that a report quotes by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MisplacedAnswer:
    """An answer that does not stand at its offset: what was expected there, and what was found."""

    question_id: str
    article: str
    start: int
    expected: str
    found: str
    nearest: int | None
    """Start of the occurrence of `expected` nearest to `start`; None if the context does not hold it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """Counts over a SQuAD file; lengths are in characters."""

    version: str
    sha256: str
    articles: int
    contexts: int
    contexts_without_questions: int
    duplicate_contexts: int
    """Contexts whose text an earlier one has."""
    context_length_median: float
    context_length_max: int
    questions: int
    """All questions, the impossible and the unlabelled ones too."""
    impossible: int
    unlabelled: int
    trainable: int
    """Questions with at least one answer that stands at its offset."""
    duplicate_questions: int
    """Questions whose text an earlier one has about the same context."""
    question_length_max: int
    answers: int
    answer_length_max: int
    misplaced: int
    """Answers that do not stand at their offset; training leaves them out."""
    misplaced_elsewhere: int
    """Those of them whose text the context holds at another place."""
    repeated: int
    """Answers that stand at their offset and occur at another place of the context too."""
    examples: tuple[MisplacedAnswer, ...]
    """The first misplaced answers in file order."""

    @property
    def clean(self) -> bool:
        """Every answer stands at its offset."""
        return self.misplaced == 0


def check_squad(squad: Squad, *, examples: int = EXAMPLES) -> CheckReport:
    """Count what a SQuAD file holds and find the answers that do not stand at their offset.

    Nothing is changed or printed. What makes a file unreadable is `qa_edge.squad.read_squad`'s to refuse.

    :param examples: how many misplaced answers to quote; all are counted.
    """
    paragraphs = [paragraph for _, paragraph in squad.paragraphs()]
    lengths = [len(paragraph.context) for paragraph in paragraphs]
    items = list(squad.items(impossible=True))
    answers = trainable = repeated = 0
    misplaced: list[MisplacedAnswer] = []
    for index, paragraph, question in items:
        standing = [answer for answer in question.answers if answer.stands_in(paragraph.context)]
        answers += len(question.answers)
        trainable += bool(standing)
        repeated += sum(_occurs_twice(answer.text, paragraph.context) for answer in standing)
        if len(standing) < len(question.answers):
            title = squad.articles[index].title
            misplaced += [
                _misplaced(answer, paragraph.context, question.id, title)
                for answer in question.answers
                if not answer.stands_in(paragraph.context)
            ]
    return CheckReport(
        version=squad.version,
        sha256=squad.sha256,
        articles=len(squad.articles),
        contexts=len(paragraphs),
        contexts_without_questions=sum(not paragraph.questions for paragraph in paragraphs),
        duplicate_contexts=len(paragraphs) - len({paragraph.context for paragraph in paragraphs}),
        context_length_median=float(median(lengths)) if lengths else 0.0,
        context_length_max=max(lengths, default=0),
        questions=len(items),
        impossible=squad.impossible,
        unlabelled=sum(question.unlabelled for _, _, question in items),
        trainable=trainable,
        duplicate_questions=len(items) - len({(paragraph.context, question.text) for _, paragraph, question in items}),
        question_length_max=max((len(question.text) for _, _, question in items), default=0),
        answers=answers,
        answer_length_max=max((len(answer.text) for _, _, question in items for answer in question.answers), default=0),
        misplaced=len(misplaced),
        misplaced_elsewhere=sum(answer.nearest is not None for answer in misplaced),
        repeated=repeated,
        examples=tuple(misplaced[:examples]),
    )


def _occurs_twice(text: str, context: str) -> bool:
    """Tell whether a text that the context holds stands at a second place, overlapping the first or not."""
    return context.find(text) != context.rfind(text)


def _misplaced(answer: Reference, context: str, question_id: str, article: str) -> MisplacedAnswer:
    """Describe an answer that does not stand at its offset."""
    start = max(answer.start, 0)
    places = [context.rfind(answer.text, 0, start + len(answer.text)), context.find(answer.text, start)]
    found = [place for place in places if place >= 0]
    return MisplacedAnswer(
        question_id=question_id,
        article=article,
        start=answer.start,
        expected=answer.text,
        found=context[answer.start : answer.end] if answer.start >= 0 else "",
        nearest=min(found, key=lambda place: abs(place - answer.start)) if found else None,
    )
