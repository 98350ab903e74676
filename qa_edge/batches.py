"""Batches: questions of like length together, each distinct token once, teacher logits beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qa_edge.align import align, align_logits, coverage
from qa_edge.features import Features
from qa_edge.labels import Labels
from qa_edge.noisy_questions import Noisy
from qa_edge.paragraphs import Others
from qa_edge.progress import progress
from qa_edge.states import LayerStates
from qa_edge.student.qanet import Batch
from qa_edge_runtime.errors import DataError, InputError

# Questions are sorted by length within groups of this many batches: enough to leave little padding,
# few enough that an epoch's order stays random.
GROUP_BATCHES = 64
# Lengths are rounded up to these, so that a backend which prepares a kernel for each shape meets few shapes.
LENGTH_STEP = 8
DISTINCT_STEP = 128


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a batch learns from; see `losses.distillation_loss`.

    :param start: first token of the answer, int64, -1 without one, shape (batch,).
    :param end: last token, inclusive, the same.
    :param aligned_logits: the teacher's start and end logits at student tokens, float32, shape (batch, 2, tokens).
    :param aligned: True where a token has one, shape (batch, tokens).
    :param piece_logits: the teacher's logits at its own pieces, float32, shape (batch, 2, pieces).
    :param piece_lengths: pieces of each context that the student sees, int64, shape (batch,).
    :param others: the questions to which the batch's last rows, one each, put another paragraph of their article, which
        does not hold the answer, int64; all the rest here is of the rows before these.
    :param states: the teacher's reduced states at student tokens (`states`), float32, shape (batch, tokens, numbers);
        zeros where there are none.
    """

    start: Tensor
    end: Tensor
    aligned_logits: Tensor | None = None
    aligned: Tensor | None = None
    piece_logits: Tensor | None = None
    piece_lengths: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    others: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    states: Tensor | None = None


Record = TypeVar("Record", Batch, Targets)


def moved(record: Record, device: torch.device) -> Record:
    """The same on a device; a GPU takes it while it computes, which pinned memory alone allows."""
    tensors = {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}
    if all(value.device.type == device.type for value in tensors.values()):
        return record
    pinned = device.type == "cuda"
    if pinned:
        tensors = {name: value.pin_memory() for name, value in tensors.items()}
    return replace(record, **{name: value.to(device, non_blocking=pinned) for name, value in tensors.items()})


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Rows of each batch of an epoch: a random order, sorted by length within groups, the groups' batches shuffled.

    The rest that does not fill a batch is left for the next epoch's order, unless it is all there is.

    :param lengths: context tokens of each question, shape (questions,).
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    if len(order) < batch_size:
        return [order]
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(order), batch_size * GROUP_BATCHES):
        group = order[first : first + batch_size * GROUP_BATCHES]
        group = group[np.argsort(lengths[group], kind="stable")]
        # The rest is taken from a random place, so that it is not always the longest contexts.
        rest = len(group) % batch_size
        if rest:
            place = int(generator.integers(0, len(group) - rest + 1))
            group = np.delete(group, slice(place, place + rest))
        batches.extend(np.split(group, len(group) // batch_size) if len(group) else [])
    return [batches[i] for i in generator.permutation(len(batches))]


def build_batch(
    contexts: Sequence[NDArray[np.int32]],
    questions: Sequence[NDArray[np.int32]],
    form_words: NDArray[np.int32],
    form_characters: NDArray[np.int32],
    vectors: NDArray[np.float16],
) -> Batch:
    """Gather the distinct tokens of a batch and number its tokens by them.

    :param contexts: numbers of surface forms, one array a question.
    :param questions: the same.
    :param form_words: word id of each form.
    :param form_characters: character ids of each form.
    :param vectors: word vectors by word id.
    """
    distinct, places = np.unique(np.concatenate([*contexts, *questions]), return_inverse=True)
    rows = _round_up(len(distinct), DISTINCT_STEP)
    words = np.zeros(rows, np.int64)
    words[: len(distinct)] = form_words[distinct]
    characters = np.zeros((rows, form_characters.shape[1]), np.int64)
    characters[: len(distinct)] = form_characters[distinct]
    context_lengths = [len(context) for context in contexts]
    question_lengths = [len(question) for question in questions]
    split = sum(context_lengths)
    return Batch(
        word_vectors=torch.from_numpy(vectors[words].astype(np.float32)),
        unknown=torch.from_numpy(words == 0),
        character_ids=torch.from_numpy(characters),
        context=torch.from_numpy(_padded(places[:split], context_lengths)),
        question=torch.from_numpy(_padded(places[split:], question_lengths)),
        context_lengths=torch.tensor(context_lengths),
        question_lengths=torch.tensor(question_lengths),
    )


class TrainingData:
    """Features with the teacher's logits aligned to them, by batches.

    :param strategy: alignment of the teacher's pieces with the student's tokens (`align.STRATEGIES`).
    :param context_limit: tokens of a context that training sees; an answer beyond it is left to the teacher.
    :param questions: places in the SQuAD file of the questions that are trained on; None takes all of the features.
    :param states: the teacher's layers, of some of the questions.
    :raises DataError: if the labels were made from other data, or there is nothing to train on.
    """

    def __init__(
        self,
        features: Features,
        labels: Labels | None,
        *,
        strategy: str = "rule",
        context_limit: int = 400,
        questions: Collection[int] | None = None,
        states: LayerStates | None = None,
    ) -> None:
        if context_limit < 1:
            raise InputError(f"context limit is {context_limit} tokens, expected at least 1")
        self.features, self.labels, self.limit = features, labels, context_limit
        self.vectors = features.vectors()
        # Without a teacher, a question without an answer (or with one that is not at its offset) has nothing to teach.
        usable = np.ones(len(features), np.bool_) if labels is not None else features.answer_start >= 0
        if questions is not None:
            usable &= np.isin(features.question_number, np.fromiter(questions, np.int64))
            if not usable.any():
                raise DataError(f"none of the {len(questions):,} chosen questions can be trained on: all are held out")
        self.rows = np.flatnonzero(usable)
        if not len(self.rows):
            raise DataError("no question has an answer and there are no teacher logits: label the data first")
        self.lengths = np.minimum(features.context_lengths()[self.rows], context_limit)
        if labels is not None:
            labels.require(features.manifest["squad_sha256"])
            self._align(labels, strategy)
        self.states = states
        if states is not None:
            states.require(features)

    def _align(self, labels: Labels, strategy: str) -> None:
        features = self.features
        self.alignments = []
        self.pieces_seen: list[int] = []
        covered = 0.0
        contexts = len(features.context_number)
        with progress("align", contexts) as advance:
            for row in range(contexts):
                here = slice(int(features.context_offsets[row]), int(features.context_offsets[row + 1]))
                starts, ends = features.context_starts[here], features.context_ends[here]
                pieces = labels.pieces(int(features.context_number[row]))
                alignment = align(strategy, features.context_text(row), starts, ends, pieces.starts, pieces.ends)
                covered += coverage(alignment) * len(starts)
                self.alignments.append(alignment)
                # Pieces outside the student's context are left out of the interpolation.
                last = ends[: self.limit][-1] if len(ends) else 0
                self.pieces_seen.append(int(np.searchsorted(pieces.starts, last, side="left")))
                advance(1)
        self.coverage = covered / max(int(features.context_offsets[-1]), 1)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, numbers: Sequence[int] | NDArray[np.int64], others: Others | None = None, noisy: Noisy | None = None
    ) -> tuple[Batch, Targets]:
        """Inputs and targets of some questions, numbered from 0 to `len(self) - 1`.

        :param others: which of them are asked of another paragraph too, and of which.
        :param noisy: which of them are asked in noise.
        """
        features, rows = self.features, self.rows[numbers]
        contexts = [self._context(row) for row in features.question_context[rows]]
        copies = np.full(len(rows), -1) if noisy is None else noisy.draw(len(rows))
        questions = [features.question(row, copy) for row, copy in zip(rows, copies.tolist(), strict=True)]
        drawn: list[int] = []
        if others is not None:
            drawn, paragraphs = others.draw(rows)
            # No longer than the longest of the batch, so that they cost no padding.
            longest = max(map(len, contexts))
            contexts += [self._context(paragraph)[:longest] for paragraph in paragraphs]
            questions += [questions[place] for place in drawn]
        batch = build_batch(contexts, questions, features.form_words, features.form_characters, self.vectors)
        return batch, replace(
            self._targets(rows, batch.context.shape[1]), others=torch.tensor(drawn, dtype=torch.int64)
        )

    def _context(self, context: int) -> NDArray[np.int32]:
        first, last = self.features.context_offsets[context : context + 2]
        return self.features.context_tokens[first : min(last, first + self.limit)]

    def _targets(self, rows: NDArray[np.int64], width: int) -> Targets:
        start = torch.from_numpy(self.features.answer_start[rows].astype(np.int64))
        end = torch.from_numpy(self.features.answer_end[rows].astype(np.int64))
        beyond = end >= self.limit
        start, end = start.masked_fill(beyond, -1), end.masked_fill(beyond, -1)
        if self.labels is None:
            return Targets(start=start, end=end)
        states = None
        if self.states is not None:
            numbers = self.features.question_number[rows].tolist()
            states = torch.from_numpy(self.states.batch(numbers, width, self.limit))
        contexts = self.features.question_context[rows]
        lengths = [self.pieces_seen[context] for context in contexts]
        aligned_logits = np.zeros((len(rows), 2, width), np.float32)
        aligned = np.zeros((len(rows), width), np.bool_)
        piece_logits = np.zeros((len(rows), 2, max(lengths)), np.float32)
        for place, (row, context) in enumerate(zip(rows, contexts, strict=True)):
            logits = self.labels.logits(int(self.features.question_number[row]))
            *both, mask = align_logits(self.alignments[context], *logits)
            count = min(len(mask), self.limit)
            aligned[place, :count] = mask[:count]
            for side in range(2):
                aligned_logits[place, side, :count] = both[side][:count]
                piece_logits[place, side, : lengths[place]] = logits[side][: lengths[place]]
        return Targets(
            start=start,
            end=end,
            aligned_logits=torch.from_numpy(aligned_logits),
            aligned=torch.from_numpy(aligned),
            piece_logits=torch.from_numpy(piece_logits),
            piece_lengths=torch.tensor(lengths),
            states=states,
        )


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _padded(flat: NDArray[np.int64], lengths: Sequence[int]) -> NDArray[np.int64]:
    padded = np.zeros((len(lengths), _round_up(max(lengths), LENGTH_STEP)), np.int64)
    padded[np.arange(padded.shape[1]) < np.asarray(lengths)[:, None]] = flat
    return padded
