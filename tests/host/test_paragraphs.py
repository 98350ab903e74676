from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qa_edge.batches import TrainingData  # noqa: E402
from qa_edge.features import Features  # noqa: E402
from qa_edge.labels import Labels  # noqa: E402
from qa_edge.loss_settings import DistillationLoss  # noqa: E402
from qa_edge.losses import OtherLogits, distillation_loss  # noqa: E402
from qa_edge.paragraphs import CANDIDATES, Others, find_candidates  # noqa: E402
from qa_edge.prepare import PrepareSettings, prepare  # noqa: E402
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, write_squad  # noqa: E402


def article(title: str, *paragraphs: tuple[str, str, str]) -> Article:
    """Paragraphs of a context, a question and its answer."""
    return Article(
        title=title,
        paragraphs=tuple(
            Paragraph(
                context=context,
                questions=(
                    Question(
                        id=f"{title}{n}", text=asked, answers=(Reference(text=answer, start=context.find(answer)),)
                    ),
                ),
            )
            for n, (context, asked, answer) in enumerate(paragraphs)
        ),
    )


def test_candidates_are_the_nearest_of_the_article_that_lack_the_answer(tmp_path: Path) -> None:
    pots = article(
        "Pots",
        ("The red pot stands on the stove.", "Where does the red pot stand?", "on the stove"),
        ("The red pot has a lid.", "What has the red pot?", "a lid"),
        ("Soup burns ON THE STOVE and the red pot is hot.", "Which pot is hot?", "the red pot"),
        ("Bread is in the oven.", "What is in the oven?", "Bread"),
    )
    cars = article("Cars", ("The red pot stands in a car.", "Who drives?", "car"))
    write_squad(tmp_path / "data.json", Squad(articles=(pots, cars)))
    prepare(tmp_path / "data.json", tmp_path / "features", settings=PrepareSettings(heldout=0.0))
    features = Features.open(tmp_path / "features")
    found = find_candidates(features)
    assert found.shape == (5, CANDIDATES)
    # The third holds the first one's answer, in capitals; the fifth is of another article; rarer words weigh more.
    assert found[0].tolist() == [1, 3] + [-1] * 6
    assert found[1].tolist()[:2] == [0, 2]
    assert set(found[2].tolist()) == {3, -1}, "the first two hold its answer"
    assert found[4].tolist() == [-1] * 8


def test_a_share_of_the_questions_draws_one(tiny_features: Features) -> None:
    candidates = find_candidates(tiny_features)
    rows = np.arange(len(tiny_features))
    for share, least, most in ((0.0, 0, 0), (0.5, 0.25, 0.75), (1.0, 1.0, 1.0)):
        places, paragraphs = Others(candidates=candidates, share=share, generator=np.random.default_rng(3)).draw(rows)
        possible = int((candidates[:, 0] >= 0).sum())
        assert least * possible <= len(places) <= most * possible
        for place, paragraph in zip(places, paragraphs, strict=True):
            own = tiny_features.question_context[place]
            assert paragraph in candidates[place]
            assert paragraph != own
            assert tiny_features.context_article[paragraph] == tiny_features.context_article[own]


def test_a_batch_with_others_is_the_batch_and_they(tiny_features: Features, tiny_labels: Labels) -> None:
    data, rows = TrainingData(tiny_features, tiny_labels), np.arange(12)
    others = Others(candidates=find_candidates(tiny_features), share=1.0, generator=np.random.default_rng(0))
    (plain, expected), (batch, targets) = data.batch(rows), data.batch(rows, others)
    assert len(targets.others) and len(batch.context_lengths) == len(rows) + len(targets.others)
    assert batch.context.shape[1] == plain.context.shape[1], "others cost no padding"
    assert batch.context_lengths[: len(rows)].equal(plain.context_lengths)
    assert targets.aligned_logits is not None and targets.aligned_logits.equal(expected.aligned_logits)
    for place, question in enumerate(targets.others):
        length = plain.question_lengths[question]
        assert batch.question_lengths[len(rows) + place] == length
        asked, again = batch.question[question, :length], batch.question[len(rows) + place, :length]
        assert asked.equal(again)


def test_one_softmax_runs_over_both_paragraphs() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    own, other, teacher = random(3, 2, 5), random(1, 2, 4), random(3, 2, 5)
    mask = torch.tensor([[True] * 5, [True] * 4 + [False], [True] * 3 + [False] * 2])
    beside = torch.tensor([[True, True, True, False]])
    own = own.masked_fill(~mask.unsqueeze(1), -1e4)
    start, end = torch.tensor([0, 1, 2]), torch.tensor([4, 1, 2])
    others = OtherLogits(torch.tensor([1]), other, beside)
    joined = others.joined(own)
    terms = distillation_loss(
        DistillationLoss(rho=0.5, temperature=2.0, mse_weight=0.0),
        start_logits=joined[0],
        end_logits=joined[1],
        mask=others.beside(mask),
        start=start,
        end=end,
        teacher_start=others.without_answer(teacher[:, 0]),
        teacher_end=others.without_answer(teacher[:, 1]),
        aligned=others.beside(mask),
    )
    hard = soft = 0.0
    for row in range(3):
        for side, target in enumerate((start, end)):
            scores = own[row, side][mask[row]]
            if row == 1:
                scores = torch.cat([scores, other[0, side, :3]])
            hard -= float(torch.log_softmax(scores, -1)[target[row]])
            wanted = torch.softmax(teacher[row, side][mask[row]] / 2, -1)
            given = torch.log_softmax(scores / 2, -1)[: len(wanted)]
            soft += 4 * float((wanted * (wanted.log() - given)).sum())
    assert float(terms.hard) == pytest.approx(hard / 3)
    assert float(terms.soft) == pytest.approx(soft / 3)
    assert float(terms.total) == pytest.approx((hard + soft) / 6)


def test_without_others_nothing_changes() -> None:
    none = OtherLogits(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 5), torch.zeros(0, 5, dtype=torch.bool))
    own, mask = torch.randn(2, 2, 5), torch.ones(2, 5, dtype=torch.bool)
    assert none.joined(own)[0].equal(own[:, 0]) and none.beside(mask) is mask and none.without_answer(own) is own
