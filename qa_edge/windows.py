"""What a teacher is fine-tuned on: windows of contexts with the answer's positions, in batches by token count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qa_edge.progress import progress
from qa_edge.squad import Squad
from qa_edge.teacher import Pieces, Teacher, Window, padded_width
from qa_edge_runtime.errors import DataError

ENCODE_QUESTIONS = 512
# Windows are sorted by length within groups of this many: little padding, and an order that stays random.
GROUP_WINDOWS = 4096


@dataclass(frozen=True, kw_only=True)
class Example:
    """A window with its answer: positions among all its pieces; the special first piece where it has none."""

    ids: np.ndarray
    types: np.ndarray | None
    start: int
    end: int


def encode_examples(teacher: Teacher, squad: Squad) -> list[Example]:
    """Windows of the questions that have an answer at its offset, each with the answer's positions.

    :raises DataError: if no question has one.
    """
    items = []
    for _, paragraph, question in squad.items():
        standing = [answer for answer in question.answers if answer.stands_in(paragraph.context)]
        if standing:
            items.append((question.text, paragraph.context, standing[0].start, standing[0].end))
    if not items:
        raise DataError("no question has an answer at its offset; fine-tuning needs some: see qa-edge check")
    examples: list[Example] = []
    with progress("windows", len(items)) as advance:
        for first in range(0, len(items), ENCODE_QUESTIONS):
            part = items[first : first + ENCODE_QUESTIONS]
            windows, pieces = teacher.encode([item[0] for item in part], [item[1] for item in part])
            for window in windows:
                examples.append(_example(window, pieces[window.question], *part[window.question][2:], teacher))
            advance(len(part))
    return examples


def _example(window: Window, pieces: Pieces, start: int, end: int, teacher: Teacher) -> Example:
    """An answer that a window does not hold whole is at its class piece, as in BERT's own run_squad."""
    first = int(np.searchsorted(pieces.ends, start, side="right")) - window.first_piece
    last = int(np.searchsorted(pieces.starts, end, side="left")) - 1 - window.first_piece
    if 0 <= first <= last < window.pieces:
        first, last = first + window.first_position, last + window.first_position
    else:
        special = teacher.tokenizer.cls_token_id
        first = last = window.ids.index(special) if special in window.ids else 0
    types = None if window.types is None else np.asarray(window.types, np.int32)
    return Example(ids=np.asarray(window.ids, np.int32), types=types, start=first, end=last)


def token_batches(lengths: np.ndarray, batch_tokens: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Numbers of the windows of each batch: a random order, windows of like length together, padded tokens bounded."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for first in range(0, len(order), GROUP_WINDOWS):
        group = order[first : first + GROUP_WINDOWS]
        group = group[np.argsort(lengths[group], kind="stable")]
        begin = 0
        for place, number in enumerate(group):
            if place > begin and (place + 1 - begin) * padded_width(int(lengths[number])) > batch_tokens:
                batches.append(group[begin:place])
                begin = place
        batches.append(group[begin:])
    return [batches[i] for i in generator.permutation(len(batches))]
