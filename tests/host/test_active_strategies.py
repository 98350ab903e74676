from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy

from qa_edge.active import strategies
from qa_edge.active.clusters import cluster, draw_in_proportion, shares
from qa_edge.active.duplicates import NearDuplicates, nearly_same
from qa_edge.active.readers import answer_probabilities
from qa_edge.active.strategies import (
    STRATEGIES,
    Candidates,
    LeastConfidenceClusters,
    Strategy,
    choose,
    open_strategy,
    strategy_class,
)
from qa_edge_runtime.errors import DataError, InputError, MissingExtraError


def pool_of(probabilities: Any, questions: list[str] | None = None, contexts: list[str] | None = None) -> Candidates:
    rows = np.asarray(probabilities, np.float64)
    count = len(rows)
    return Candidates(
        ids=[f"q{row}" for row in range(count)],
        questions=questions or [f"Question number {row}?" for row in range(count)],
        contexts=contexts or ["A text."] * count,
        probabilities=rows,
        disagreement=np.log(2) * (1 - rows[:, 0]),
    )


def best_five(seed: int, count: int) -> np.ndarray:
    """Probabilities of five answers among others, best first."""
    random = np.random.default_rng(seed)
    return -np.sort(-softmax(random.normal(scale=3, size=(count, 40)), axis=1), axis=1)[:, :5]


def spans_by_hand(start: np.ndarray, end: np.ndarray, longest: int) -> np.ndarray:
    """Probability of every valid span, best first."""
    logits = [start[i] + end[j] for i in range(len(start)) for j in range(i, min(len(start), i + longest))]
    return -np.sort(-softmax(np.array(logits, np.float64)))


class Lists:
    """A model: whatever logits it was given."""

    max_answer_tokens = 4

    def __init__(self, *logits: tuple[np.ndarray, np.ndarray]) -> None:
        self.given = logits

    def logits(self, pairs: Any) -> Any:
        return self.given


def test_probabilities_are_the_softmax_over_all_valid_spans() -> None:
    random = np.random.default_rng(1)
    logits = [tuple(random.normal(scale=4, size=(2, tokens)).astype(np.float32)) for tokens in (1, 2, 9, 40)]
    found = answer_probabilities(Lists(*logits), [("q", "c")] * 4)
    for row, (start, end) in zip(found, logits, strict=True):
        expected = np.zeros(5)
        by_hand = spans_by_hand(start, end, 4)[:5]
        expected[: len(by_hand)] = by_hand
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-12)


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(InputError, match="gives no start and end logits"):
        answer_probabilities(object(), [("q", "c")])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected start and end logits"):
        answer_probabilities(Lists(), [("q", "c")])


@given(st.integers(0, 1000), st.integers(2, 30))
def test_each_strategy_orders_as_its_equation_does(seed: int, count: int) -> None:
    answers = best_five(seed, count)
    pool = pool_of(answers)
    keys = {
        "least-confidence": 1 - answers.max(axis=1),  # Eq. 13, 14
        "margin": -(answers[:, 0] - answers[:, 1]),  # smallest margin
        "margin-as-printed": answers[:, 0] - answers[:, 1],  # Eq. 15
        "entropy": entropy(answers, axis=1),  # scipy renormalises; Eq. 16 with p log p
        "disagreement": pool.disagreement,
    }
    for name, expected in keys.items():
        chosen = choose(pool, open_strategy(name), count)
        np.testing.assert_allclose(expected[chosen], np.sort(expected)[::-1], atol=1e-12)
        half = choose(pool, open_strategy(name), -(-count // 2))
        np.testing.assert_array_equal(half, chosen[: len(half)])


def test_margins_are_opposite() -> None:
    pool = pool_of(best_five(3, 20))
    smallest, largest = (choose(pool, open_strategy(name), 20) for name in ("margin", "margin-as-printed"))
    np.testing.assert_array_equal(smallest, largest[::-1])


def test_entropy_of_a_text_with_a_single_answer_is_zero() -> None:
    pool = pool_of([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0.2] * 5])
    values = open_strategy("entropy").informativeness(pool, np.random.default_rng())
    np.testing.assert_allclose(values, [0, 0, np.log(5)], atol=1e-15)


def test_random_depends_on_the_seed_alone() -> None:
    pool = pool_of(best_five(0, 200))
    first, again, other = (choose(pool, open_strategy("random"), 50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)
    counts = Counter(int(one) for seed in range(300) for one in choose(pool, open_strategy("random"), 20, seed=seed))
    assert len(counts) == 200
    assert max(counts.values()) < 60  # 30 expected of each


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "least-confidence-clusters"])
@given(data=st.data())
def test_exactly_as_many_different_questions_as_asked_for(name: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    # With ties.
    values = data.draw(arrays(np.float64, (size, 5), elements=st.sampled_from([0.0, 0.1, 0.2])))
    count = data.draw(st.integers(1, size))
    chosen = choose(pool_of(-np.sort(-values, axis=1)), open_strategy(name), count)
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert set(chosen.tolist()) <= set(range(size))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.data())
def test_shares_follow_the_largest_remainder(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(sizes)))
    found = shares(np.array(sizes), count)
    assert found.sum() == count
    quotas = [size * count / sum(sizes) for size in sizes]
    for share, quota, size in zip(found, quotas, sizes, strict=True):
        assert int(quota + 1e-9) <= share <= min(size, int(np.ceil(quota - 1e-9)))
    # Nobody who got one more has a smaller remainder than somebody who did not.
    remainders = [
        (quota % 1 if quota % 1 < 1 - 1e-9 else 0.0, share > quota) for share, quota in zip(found, quotas, strict=True)
    ]
    more = [remainder for remainder, rounded_up in remainders if rounded_up]
    less = [remainder for remainder, rounded_up in remainders if not rounded_up]
    assert not more or not less or min(more) >= max(less) - 1e-9


def test_a_draw_takes_its_share_of_each_cluster_at_random() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    draws = [draw_in_proportion(labels, 20, np.random.default_rng(seed)) for seed in range(40)]
    for drawn in draws:
        assert Counter(labels[drawn].tolist()) == {0: 12, 1: 6, 2: 2}
    assert len({tuple(drawn) for drawn in draws}) > 30


class Places:
    """An encoder: the vector of a question is by its first word."""

    def encode(self, sentences: Any) -> np.ndarray:
        random = np.random.default_rng(5)
        centres = random.normal(scale=50, size=(12, 4)).astype(np.float32)
        noise = random.normal(scale=0.1, size=(len(sentences), 4)).astype(np.float32)
        return np.array([centres[int(sentence.split()[0])] for sentence in sentences]) + noise


def test_clusters_are_drawn_from_three_times_as_many_by_least_confidence() -> None:
    pytest.importorskip("sklearn")
    answers = best_five(8, 300)
    # Ten kinds of question, of different sizes.
    kinds = np.random.default_rng(9).choice(10, size=300, p=np.arange(1, 11) / 55)
    pool = pool_of(answers, questions=[f"{kind} question {row}?" for row, kind in enumerate(kinds)])
    strategy = LeastConfidenceClusters(Places())
    chosen = choose(pool, strategy, 40, seed=3)
    assert len(set(chosen.tolist())) == 40
    candidates = np.argsort(answers[:, 0], kind="stable")[:120]
    assert set(chosen.tolist()) <= set(candidates.tolist())
    sizes, drawn = Counter(kinds[candidates].tolist()), Counter(kinds[chosen].tolist())
    assert all(abs(drawn[kind] - size * 40 / 120) < 1 for kind, size in sizes.items())
    np.testing.assert_array_equal(chosen, choose(pool, strategy, 40, seed=3))
    # All that are left where there are fewer than three times as many, and all of them.
    assert len(choose(pool, strategy, 200)) == 200
    assert set(choose(pool, strategy, 300).tolist()) == set(range(300))


def test_fewer_different_vectors_than_clusters() -> None:
    pytest.importorskip("sklearn")
    labels = cluster(np.repeat(np.eye(3, dtype=np.float32), 4, axis=0), 10, seed=0)
    assert len(set(labels.tolist())) == 3
    with pytest.raises(InputError, match="finite"):
        cluster(np.full((3, 2), np.nan, np.float32), 2, seed=0)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "qa-edge[train,active]"')):
        cluster(np.eye(3, dtype=np.float32), 2, seed=0)
    with pytest.raises(InputError, match="needs a sentence encoder"):
        open_strategy("least-confidence-clusters")


def test_the_documented_example_is_a_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten lines of the module's docstring and of the documentation, as they stand there."""
    documentation = (Path(__file__).parents[2] / "docs" / "active-learning.md").read_text(encoding="utf-8")
    for text in (strategies.__doc__ or "", documentation):
        code = re.search(r"^    import numpy as np\n.*?^    chosen = .*?$", text, re.DOTALL | re.MULTILINE)
        assert code is not None
        lines = [line[4:] for line in code[0].splitlines()]
        pool = pool_of(best_five(0, 600), questions=["x" * (row % 599) for row in range(600)])
        found: dict[str, Any] = {"pool": pool}
        exec("\n".join(lines), found)
        assert len([line for line in lines if line and not line.startswith(("import", "from", "chosen"))]) <= 10
        assert found["chosen"][0] == 598
        assert len(found["chosen"]) == 500
        module = ModuleType("somebodys")
        module.LongQuestions = found["LongQuestions"]  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "somebodys", module)
        assert isinstance(open_strategy("somebodys:LongQuestions"), found["LongQuestions"])


@pytest.mark.parametrize("name", ["leastconfidence", "nowhere:Class", "json:Nothing", "json:loads", ":", "..:x"])
def test_an_unknown_strategy_lists_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="there are random, least-confidence, margin, margin-as-printed, entropy"):
        strategy_class(name)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("class Own(", "cannot be imported (SyntaxError"),
        ("raise RuntimeError('mine')", "cannot be imported (RuntimeError: mine)"),
        ("from qa_edge.active.strategies import Strategy\nclass Own(Strategy): name = 'own'", "cannot be made"),
        (
            "from qa_edge.active.strategies import Strategy\nclass Own(Strategy):\n"
            "    def informativeness(self, pool, random): pass",
            "has no name: give its class one",
        ),
        (
            "from qa_edge.active.strategies import Random\nclass Own(Random):\n    def __init__(self, one): pass",
            "cannot be made without arguments",
        ),
    ],
)
def test_an_outsiders_broken_strategy_is_one_sentence(
    code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_strategy.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_strategy", raising=False)
    with pytest.raises(InputError, match=re.escape(sentence)):
        open_strategy("broken_strategy:Own")


def test_counts_that_cannot_be_met() -> None:
    pool = pool_of(best_five(0, 7))
    with pytest.raises(InputError, match="count 8 is more than the 7 questions"):
        choose(pool, open_strategy("margin"), 8)
    for count in (0, -1, 2.0):
        with pytest.raises(InputError, match="expected a whole number from 1"):
            choose(pool, open_strategy("margin"), count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a model's probabilities"):
        choose(Candidates(ids=["a"], questions=["b"], contexts=["c"]), open_strategy("entropy"), 1)
    with pytest.raises(InputError, match="compares a model with its teacher"):
        choose(Candidates(ids=["a"], questions=["b"], contexts=["c"]), open_strategy("disagreement"), 1)
    with pytest.raises(InputError, match="of different numbers"):
        Candidates(ids=["a"], questions=["b"], contexts=[])


def test_a_strategy_that_breaks_its_word_is_refused() -> None:
    class Wrong(Strategy):
        name = "wrong"

        def informativeness(self, pool: Candidates, random: np.random.Generator) -> np.ndarray:
            return np.full(len(pool), np.nan)

    class Twice(strategies.LeastConfidence):
        name = "twice"

        def draw(self, pool: Candidates, ranked: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
            return np.zeros(count, np.int64)

    class Text(strategies.Random):
        name = "text"

        def informativeness(self, pool: Candidates, random: np.random.Generator) -> Any:
            return ["much"] * len(pool)

    pool = pool_of(best_five(0, 7))
    with pytest.raises(InputError, match="strategy text gave no number for each question"):
        choose(pool, Text(), 2)
    with pytest.raises(InputError, match="strategy wrong gave numbers"):
        choose(pool, Wrong(), 2)
    with pytest.raises(InputError, match="strategy twice drew 2 questions"):
        choose(pool, Twice(), 2)


_LONG = "of the member states of the old union that {} signed the treaty in Rome"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (f"Which {_LONG.format('has')}?", f"Which {_LONG.format('hasn’t')}?", False),
        (f"Which {_LONG.format('should')}?", f"Which {_LONG.format('should not')}?", False),
        (f"Which {_LONG.format('isn’t')}?", f"Which {_LONG.format('is not')}?", True),
        (f"Which {_LONG.format('can')}?", f"Which {_LONG.format('cannot')}?", False),
        (f"Which {_LONG.format('can’t')}?", f"Which {_LONG.format('cannot')}?", True),
        (f"Who's the one {_LONG.format('has')}?", f"What's the one {_LONG.format('has')}?", False),
        (f"What’s the one {_LONG.format('has')}?", f"What is the one {_LONG.format('has')}?", True),
        (f"Which two {_LONG.format('have')}?", f"Which three {_LONG.format('have')}?", False),
        (f"Which {_LONG.format('have')} with locks?", f"Which {_LONG.format('have')} without locks?", False),
        ("Where is the old piano of Anna kept?", "where is Anna's old piano kept", False),  # annas, of: 4 of 7 words
        ("Where is the old piano of Anna kept?", "Where is  the old piano of Anna kept", True),
        (
            "Who built the tower in the old town of Malmö?",
            "Who built the tower in the old town of Malmö, Sweden?",
            True,
        ),
        ("When was the tower in the old town built?", "Where was the tower in the old town built?", False),
        ("How heavy is the tent of Anna, item 3?", "How heavy is the tent of Anna, item 4?", False),
        ("Which town did the king of the north not visit?", "Which town did the king of the north visit?", False),
        ("?", "!", True),
        ("?", "Who?", False),
    ],
)
def test_what_is_nearly_the_same(one: str, other: str, same: bool) -> None:
    assert nearly_same(one, other) is nearly_same(other, one) is same
    assert nearly_same(one, one)


def test_near_duplicates_are_not_chosen_twice() -> None:
    questions = ["What colour is the lamp?", "What colour is the lamp", "What colour is the lamp?", "Who has a boat?"]
    pool = pool_of(
        [[0.1, 0, 0, 0, 0], [0.2, 0, 0, 0, 0], [0.3, 0, 0, 0, 0], [0.9, 0, 0, 0, 0]], questions, ["A"] * 2 + ["B", "A"]
    )
    strategy = open_strategy("least-confidence")
    assert choose(pool, strategy, 3, duplicates=NearDuplicates()).tolist() == [0, 2, 3]
    assert choose(pool, strategy, 3).tolist() == [0, 1, 2]
    known = NearDuplicates(known=[("A", "what colour is the lamp ?")])
    assert choose(pool, strategy, 2, duplicates=known).tolist() == [2, 3]
    with pytest.raises(DataError, match=r"count 4 is more than the 3 different questions of the pool \(4 with"):
        choose(pool, strategy, 4, duplicates=NearDuplicates())
    with pytest.raises(InputError, match="similarity"):
        NearDuplicates(0)
