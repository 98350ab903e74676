"""Batches: every question once, tokens and targets at their places, what lies beyond the limit left out."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_squad

from qa_edge.align import align, align_logits
from qa_edge.batches import GROUP_BATCHES, TrainingData, build_batch, epoch_batches
from qa_edge.features import Features
from qa_edge.labels import Labels
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, read_squad, write_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.tokenizer import Tokenizer


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 3000), batch_size=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_question_at_most_once_and_nearly_all_of_them(count: int, batch_size: int, seed: int, epoch: int) -> None:
    lengths = np.random.default_rng(count).integers(1, 400, count)
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
    rows = np.concatenate(batches)
    assert len(set(rows.tolist())) == len(rows) and set(rows.tolist()) <= set(range(count))
    assert len(rows) >= min(count, count - batch_size + 1)
    if count >= batch_size:
        assert {len(batch) for batch in batches} == {batch_size} and len(batches) == count // batch_size
    else:
        assert len(batches) == 1 and len(rows) == count
    again = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


def test_epochs_and_seeds_differ_in_order_and_in_what_is_left_out() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 1003)
    orders = [
        [tuple(batch.tolist()) for batch in epoch_batches(lengths, 10, seed=seed, epoch=epoch)]
        for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0)]
    ]
    for one, two in itertools.combinations(orders, 2):
        assert len(set(one) & set(two)) < 5
        assert set(range(1003)) - {row for batch in one for row in batch} != set(range(1003)) - {
            row for batch in two for row in batch
        }


def test_batches_hold_like_lengths_but_no_order_of_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 20_000)
    batches = epoch_batches(lengths, 32, seed=0, epoch=0)
    padding = sum(int(lengths[batch].max()) * len(batch) for batch in batches) / sum(
        int(lengths[b].sum()) for b in batches
    )
    assert padding < 1.05
    means = np.asarray([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2
    assert len(lengths) > GROUP_BATCHES * 32


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(0, 30), min_size=1, max_size=40), st.lists(st.integers(0, 30), min_size=1, max_size=12)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_batch_gives_back_each_tokens_form(rows: list[tuple[list[int], list[int]]]) -> None:
    form_words = (np.arange(31) % 7).astype(np.int32)
    form_characters = np.arange(31 * 16).reshape(31, 16).astype(np.int32)
    vectors = np.arange(7 * 3).reshape(7, 3).astype(np.float16)
    batch = build_batch(
        [np.asarray(c, np.int32) for c, _ in rows],
        [np.asarray(q, np.int32) for _, q in rows],
        form_words,
        form_characters,
        vectors,
    )
    for ids, lengths, side in ((batch.context, batch.context_lengths, 0), (batch.question, batch.question_lengths, 1)):
        assert ids.shape[1] % 8 == 0 and ids.shape[1] - 8 < max(lengths.tolist())
        for row, pair in enumerate(rows):
            forms = pair[side]
            assert lengths[row] == len(forms)
            here = ids[row, : len(forms)].numpy()
            assert np.array_equal(batch.character_ids[here].numpy(), form_characters[forms])
            assert np.array_equal(batch.word_vectors[here].numpy(), vectors[form_words[forms]].astype(np.float32))
            assert batch.unknown[here].tolist() == [form % 7 == 0 for form in forms]
            assert not ids[row, len(forms) :].any()
    distinct = {form for pair in rows for side in pair for form in side}
    used = {
        int(i)
        for ids, n in ((batch.context, batch.context_lengths), (batch.question, batch.question_lengths))
        for row, count in zip(ids, n, strict=True)
        for i in row[:count]
    }
    assert used == set(range(len(distinct))) and len(batch.unknown) % 128 == 0  # each once


def test_batches_hold_the_tokens_of_the_questions(tiny_features: Features, tiny_squad_path: Path) -> None:
    data = TrainingData(tiny_features, None)
    tokenizer, vocabulary = Tokenizer.load(tiny_features.folder), tiny_features.vocabulary()
    items = list(read_squad(tiny_squad_path).items())
    rows = [50, 3, 88]
    batch, targets = data.batch(rows)
    for place, row in enumerate(rows):
        _, paragraph, question = items[int(tiny_features.question_number[row])]
        tokens = tokenizer(paragraph.context)
        here = batch.context[place, : batch.context_lengths[place]]
        assert np.array_equal(batch.character_ids[here], vocabulary.character_ids([t.text for t in tokens]))
        here = batch.question[place, : batch.question_lengths[place]]
        asked = [token.text for token in tokenizer(question.text)]
        assert np.array_equal(batch.character_ids[here], vocabulary.character_ids(asked))
        answer = paragraph.context[tokens[targets.start[place]].start : tokens[targets.end[place]].end]
        assert answer == question.answers[0].text
    assert targets.aligned is None and targets.piece_logits is None and len(data) == 90


@pytest.mark.parametrize("strategy", ["rule", "offset"])
def test_teacher_logits_stand_at_their_tokens(
    tiny_features: Features, tiny_labels: Labels, tiny_squad_path: Path, strategy: str
) -> None:
    data = TrainingData(tiny_features, tiny_labels, strategy=strategy)
    assert data.coverage > 0.97
    items = list(read_squad(tiny_squad_path).items())
    contexts = [paragraph.context for _, paragraph in read_squad(tiny_squad_path).paragraphs()]
    tokenizer = Tokenizer.load(tiny_features.folder)
    rows = np.asarray([4, 89, 41, 17])
    _, targets = data.batch(rows)
    assert targets.aligned is not None and targets.aligned_logits is not None and targets.piece_logits is not None
    for place, row in enumerate(rows):
        number = int(tiny_features.question_number[row])
        context = items[number][1].context
        pieces = tiny_labels.pieces(contexts.index(context))
        start, end = tiny_labels.logits(number)
        tokens = tokenizer(context)
        alignment = align(
            strategy, context, [t.start for t in tokens], [t.end for t in tokens], pieces.starts, pieces.ends
        )
        *both, mask = align_logits(alignment, start, end)
        count = len(tokens)
        assert targets.aligned[place, :count].tolist() == mask.tolist() and not targets.aligned[place, count:].any()
        for side, logits in enumerate((start, end)):
            assert np.array_equal(targets.aligned_logits[place, side, :count], both[side])
            assert targets.piece_lengths[place] == len(pieces.starts)
            assert np.array_equal(targets.piece_logits[place, side, : len(logits)], logits.astype(np.float32))
            assert not targets.piece_logits[place, side, len(logits) :].any()
        # By characters alone: a token that is one piece has that piece's logits.
        for at, token in enumerate(tokens):
            same = np.flatnonzero((pieces.starts == token.start) & (pieces.ends == token.end))
            if len(same) == 1:
                assert targets.aligned[place, at]
                assert targets.aligned_logits[place, 0, at] == start[same[0]]
                assert targets.aligned_logits[place, 1, at] == end[same[0]]


@pytest.mark.parametrize("limit", [1, 5, 20, 30, 45])
def test_contexts_beyond_the_limit(tiny_features: Features, tiny_labels: Labels, limit: int) -> None:
    whole, cut = TrainingData(tiny_features, tiny_labels), TrainingData(tiny_features, tiny_labels, context_limit=limit)
    assert (cut.lengths <= limit).all() and (cut.lengths == np.minimum(whole.lengths, limit)).all()
    rows = np.arange(len(tiny_features))
    (_, long), (batch, short) = whole.batch(rows), cut.batch(rows)
    assert batch.context_lengths.tolist() == cut.lengths.tolist()
    assert long.aligned is not None and short.aligned is not None
    assert long.aligned_logits is not None and short.aligned_logits is not None
    for row in rows:
        context = int(tiny_features.question_context[row])
        first = int(tiny_features.context_offsets[context])
        inside = tiny_features.answer_end[row] < limit
        expected = (tiny_features.answer_start[row], tiny_features.answer_end[row]) if inside else (-1, -1)
        assert (short.start[row], short.end[row]) == expected
        assert (short.start[row] < batch.context_lengths[row]) and (short.end[row] < batch.context_lengths[row])
        count = int(batch.context_lengths[row])
        assert short.aligned[row, :count].equal(long.aligned[row, :count]) and not short.aligned[row, count:].any()
        assert short.aligned_logits[row, :, :count].equal(long.aligned_logits[row, :, :count])
        # Interpolation sees the pieces that begin before the end of the last token seen.
        last = int(tiny_features.context_ends[first + count - 1])
        pieces = tiny_labels.pieces(int(tiny_features.context_number[context]))
        assert short.piece_lengths[row] == sum(start < last for start in pieces.starts.tolist())
    assert long.piece_lengths.tolist() == [
        len(tiny_labels.pieces(int(tiny_features.context_number[c])).starts) for c in tiny_features.question_context
    ]


def test_labels_of_other_data_are_refused(tmp_path: Path, tiny_labels: Labels) -> None:
    write_squad(tmp_path / "data.json", tiny_squad(seed=9))
    prepare(tmp_path / "data.json", tmp_path / "features")
    with pytest.raises(DataError, match="other data"):
        TrainingData(Features.open(tmp_path / "features"), tiny_labels)


def test_settings_that_cannot_be(tiny_features: Features, tiny_labels: Labels) -> None:
    with pytest.raises(InputError, match="limit"):
        TrainingData(tiny_features, tiny_labels, context_limit=0)
    with pytest.raises(InputError, match="strategy"):
        TrainingData(tiny_features, tiny_labels, strategy="guess")


def without_answers(tmp_path: Path, *answers: tuple[Reference, ...]) -> Features:
    questions = tuple(Question(id=str(i), text="Which pot?", answers=found) for i, found in enumerate(answers))
    paragraph = Paragraph(context="a pot, a lid, a pan", questions=questions)
    write_squad(tmp_path / "data.json", Squad(articles=(Article(title="Pots", paragraphs=(paragraph,)),)))
    prepare(tmp_path / "data.json", tmp_path / "features", settings=PrepareSettings(heldout=0.0))
    return Features.open(tmp_path / "features")


def test_without_a_teacher_only_answers_that_stand_at_their_offset_teach(tmp_path: Path) -> None:
    """One misplaced answer, which `prepare` counts, must not stop the training on the others."""
    lid, pan, off = Reference(text="lid", start=9), Reference(text="pan", start=16), Reference(text="lid", start=8)
    features = without_answers(tmp_path, (off,), (pan,), (), (lid,), (off,))
    data = TrainingData(features, None)
    assert len(data) == len(data.lengths) == 2
    _, targets = data.batch([1, 0])
    assert targets.start.tolist() == targets.end.tolist() == [4, 7]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no question has an answer.*label"):
        TrainingData(without_answers(tmp_path, (), (Reference(text="lid", start=8),)), None)
