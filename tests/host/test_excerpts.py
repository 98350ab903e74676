"""Excerpts: what is cut, that the answer stays, and that nothing else changes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qa_edge.batches import TrainingData  # noqa: E402
from qa_edge.excerpts import Excerpts, sentence_borders  # noqa: E402
from qa_edge.features import Features  # noqa: E402
from qa_edge.labels import Labels  # noqa: E402
from qa_edge.prepare import PrepareSettings, prepare  # noqa: E402
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, write_squad  # noqa: E402
from qa_edge.train_settings import TrainSettings  # noqa: E402
from qa_edge.updates import Updates  # noqa: E402
from qa_edge_runtime.errors import InputError  # noqa: E402
from tests.host.tiny_models import student_of  # noqa: E402

TEXT = 'Dr. Lee left. "Is it far?" he asked. No! It cost $3.50 (in the U.S. alone.) Then he slept'
SENTENCES = ["Dr. Lee left.", '"Is it far?"', "he asked.", "No!", "It cost $3.50 (in the U.S. alone.)", "Then he slept"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    folder = tmp_path_factory.mktemp("excerpts")
    answers = [("Lee", "a"), ("he asked. No", "b"), ("slept", "c")]
    questions = tuple(
        Question(id=key, text="Who is it?", answers=(Reference(text=text, start=TEXT.index(text)),))
        for text, key in answers
    )
    article = Article(title="A", paragraphs=(Paragraph(context=TEXT, questions=questions),))
    write_squad(folder / "data.json", Squad(articles=(article,)))
    prepare(folder / "data.json", folder / "features", settings=PrepareSettings(heldout=0.0))
    return Features.open(folder / "features")


def excerpts_of(features: Features, share: float, seed: int = 0) -> Excerpts:
    return Excerpts(borders=sentence_borders(features), share=share, generator=np.random.default_rng(seed))


def test_sentences_end_where_a_sign_stands_alone_with_what_closes_it(features: Features) -> None:
    (borders,) = sentence_borders(features)
    starts, ends = features.context_starts, features.context_ends
    found = [TEXT[starts[a] : ends[b - 1]] for a, b in itertools.pairwise(borders)]
    assert found == SENTENCES


def test_an_excerpt_is_whole_sentences_that_hold_the_answer_and_all_of_them_are_drawn(features: Features) -> None:
    (borders,) = sentence_borders(features)
    rows = np.arange(3)
    seen: list[set[tuple[int, int]]] = [set(), set(), set()]
    for seed in range(300):
        kept = excerpts_of(features, 1.0, seed).draw(
            features.question_context[rows], features.answer_start[rows], features.answer_end[rows]
        )
        for place, (begin, end) in enumerate(kept.tolist()):
            assert begin in borders and end in borders
            assert begin <= features.answer_start[place] <= features.answer_end[place] < end
            seen[place].add((begin, end))
    # The first sentence: six ends; the third and fourth: three beginnings, three ends; the last: six beginnings.
    assert [len(found) for found in seen] == [6, 9, 6]


def test_a_batch_of_excerpts_asks_of_the_same_answer(features: Features) -> None:
    data, rows = TrainingData(features, None), np.arange(3)
    whole, targets = data.batch(rows)
    for seed in range(20):
        kept = excerpts_of(features, 0.7, seed).draw(
            features.question_context[rows], features.answer_start[rows], features.answer_end[rows]
        )
        batch, cut = data.batch(rows, excerpts=excerpts_of(features, 0.7, seed))
        for place in range(3):
            length = int(batch.context_lengths[place])
            assert length == kept[place, 1] - kept[place, 0]
            words = batch.character_ids[batch.context[place, :length]]
            expected = whole.character_ids[whole.context[place, kept[place, 0] : kept[place, 1]]]
            assert words.equal(expected)
            assert int(cut.start[place]) == int(targets.start[place]) - kept[place, 0]
            assert int(cut.end[place]) == int(targets.end[place]) - kept[place, 0]


def test_a_question_without_an_answer_stays_without(features: Features) -> None:
    none = np.full(3, -1, np.int32)
    kept = excerpts_of(features, 1.0).draw(features.question_context, none, none)
    assert kept.tolist() == [[0, len(features.context_tokens)]] * 3


def test_updates_draw_by_their_number_and_share_0_is_no_excerpt(tiny_features: Features) -> None:
    data = TrainingData(tiny_features, None)
    plain, cut, again = (Updates(data, TrainSettings(batch_size=8, excerpts=share))[3][0] for share in (None, 0.8, 0.8))
    assert cut.context.equal(again.context)
    assert int(cut.context_lengths.sum()) < int(plain.context_lengths.sum())
    assert cut.question.shape == plain.question.shape


def test_a_teacher_or_a_share_that_is_none_is_refused(
    tiny_features: Features, tiny_labels: Labels, tmp_path: Path
) -> None:
    from qa_edge.distill import Recipe
    from qa_edge.recipe import Input
    from qa_edge.train import Trainer

    for share in (0.0, 1.5):
        with pytest.raises(InputError, match="excerpts is"):
            TrainSettings(excerpts=share)
    settings = TrainSettings(excerpts=0.5, batch_size=4)
    with pytest.raises(InputError, match="excerpts go without a teacher"):
        data = TrainingData(tiny_features, tiny_labels)
        Trainer(tmp_path, student_of(tiny_features), data, Squad(articles=()), settings)
    with pytest.raises(InputError, match="excerpts go without a teacher"):
        Recipe(inputs={"squad": Input(path="data.json", sha256="")}, teacher="some/teacher", train=settings)
