"""Tests of a difference: against scipy, against drawing question by question, and on systems with known scores."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge.question_scores import QuestionScores, score_questions
from qa_edge.significance import bootstrap, mcnemar, resampled_sums, sample_bootstrap, toss_up
from qa_edge.squad import read_squad, references
from qa_edge.system_comparison import compare_scores, score_prediction_file
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.scoring import score_predictions


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None)
# Beyond 1e-250 scipy's own value underflows: 400 throws a side stay above it.
@given(st.integers(0, 400), st.integers(0, 400))
def test_the_toss_up_is_scipys_binomial_test(heads: int, tails: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(heads, heads + tails).pvalue if heads + tails else 1.0
    assert toss_up(heads, tails) == pytest.approx(expected, rel=1e-9, abs=0)


def test_the_toss_up_is_exact_and_ends() -> None:
    assert toss_up(0, 10) == 2 / 2**10 and toss_up(10, 0) == 2 / 2**10 and toss_up(3, 3) == 1
    assert toss_up(1, 3) == (1 + 4) * 2 / 16
    assert toss_up(0, 5000) == 0.0


def test_mcnemar_counts_the_questions_that_one_system_alone_has_right() -> None:
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.p_value) == (2, 1, 1.0)


@pytest.mark.parametrize("kinds", [2, 40, 700])
def test_resampling_by_numbers_is_resampling_question_by_question(kinds: int) -> None:
    values = np.round(rng(1).normal(0.1, 1, kinds), 6)
    differences = np.concatenate([np.zeros(900), values, values])
    expected = rng(2).choice(differences, (8_000, len(differences))).sum(1)
    found = resampled_sums(differences, 8_000, rng(3))
    from scipy.stats import ks_2samp

    assert found.mean() == pytest.approx(expected.mean(), abs=6 * expected.std() / 8_000**0.5)
    assert found.std() == pytest.approx(expected.std(), rel=0.05)
    assert ks_2samp(found, expected).pvalue > 1e-4


def test_resampling_of_rare_values_alone_and_of_one_question() -> None:
    assert set(resampled_sums(np.array([0.5]), 10, rng())) == {0.5}
    # Now and then nothing is drawn of the few rare ones.
    sums = resampled_sums(np.append(np.zeros(500), 1.0), 5000, rng())
    assert sums.min() == 0 and sums.mean() == pytest.approx(1, abs=0.1) and set(sums) <= set(range(20))


def test_the_interval_and_p_value_agree_with_scipy_where_the_normal_holds() -> None:
    from scipy.stats import norm, ttest_1samp

    differences = rng(5).choice([-1.0, 0.0, 1.0], 4000, p=[0.1, 0.78, 0.12])
    found = bootstrap(differences, resamples=50_000, rng=rng())
    error = differences.std() / len(differences) ** 0.5
    assert found.difference == pytest.approx(differences.mean())
    assert [found.low, found.high] == pytest.approx(norm.interval(0.95, differences.mean(), error), abs=0.05 * error)
    assert found.p_value == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.01)


def test_under_the_null_hypothesis_p_values_are_uniform() -> None:
    from scipy.stats import kstest

    draws = [rng(seed).choice([-1.0, 0.0, 0.5, 1.0], 400, p=[0.15, 0.6, 0.1, 0.15]) - 0.05 for seed in range(150)]
    both = [bootstrap(draw, resamples=1000, rng=rng()).p_value for draw in draws]
    one = [sample_bootstrap(draw, share=1, resamples=1000, rng=rng()).p_value for draw in draws[:25]]
    assert kstest(both, "uniform").pvalue > 0.001 and kstest(one, "uniform").pvalue > 0.001
    assert np.mean(np.array(both) < 0.05) < 0.1


def test_the_papers_test_asks_about_one_direction_and_one_sample() -> None:
    better = np.array([1.0] * 60 + [-1.0] * 20 + [0.0] * 920)
    found = sample_bootstrap(better, share=0.1, resamples=2000, rng=rng())
    assert found.questions == 100 and found.others == 100
    # A tenth of the questions cannot tell for sure what all of them tell.
    assert 0 < found.others_significant < 100 and found.others_lowest < 0.05 < found.others_highest
    assert sample_bootstrap(better, share=1, resamples=2000, rng=rng()).p_value < 0.001
    assert sample_bootstrap(-better, share=1, resamples=2000, rng=rng()).p_value > 0.99


def scores(exact: list[int]) -> QuestionScores:
    right = np.array(exact, bool)
    return QuestionScores(ids=tuple(map(str, range(len(exact)))), exact=right, f1=right.astype(float))


def test_a_system_against_itself_is_no_difference() -> None:
    found = compare_scores(scores([1, 0] * 50), scores([1, 0] * 50), resamples=100)
    for test in (found.exact_match, found.f1, found.sample):
        assert (test.difference, test.p_value) == (0, 1)
    assert (found.exact_match.low, found.exact_match.high, found.mcnemar.p_value) == (0, 0, 1)
    assert found.sample.others_significant == 0


def test_a_seed_gives_the_same_numbers_and_the_sides_change_places() -> None:
    one, other = scores([1, 0] * 50), scores([1, 1, 0, 0, 0] * 20)
    assert compare_scores(one, other, resamples=500, seed=3) == compare_scores(one, other, resamples=500, seed=3)
    there, back = compare_scores(one, other), compare_scores(other, one)
    assert there.f1.difference == pytest.approx(-0.1) and back.f1.difference == pytest.approx(0.1)
    assert there.mcnemar.only_first == back.mcnemar.only_second
    assert there.exact_match.p_value == pytest.approx(back.exact_match.p_value, abs=0.01)


def test_what_cannot_be_tested_is_refused() -> None:
    one = scores([1, 0, 1])
    with pytest.raises(InputError, match=r"on different questions \(3 and 2, 2 of them the same\)"):
        compare_scores(one, scores([1, 0]))
    for wrong in ({"resamples": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"share": 1.5}):
        with pytest.raises(InputError, match="expected"):
            compare_scores(one, one, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a sample of 0\.1 of 3 questions is empty"):
        compare_scores(one, one)
    with pytest.raises(InputError, match="no question"):
        score_questions({}, {})


def test_scores_of_each_question_are_the_official_total() -> None:
    truths = {"a": ["the red fox"], "b": ["one", "one two"], "c": ["x"], "d": ["y"]}
    answers = {"a": "red fox!", "b": "two", "c": "z", "e": "?"}
    found, expected = score_questions(truths, answers), score_predictions(truths, answers)
    assert (found.exact_match_percent, found.f1_percent) == (expected.exact_match, expected.f1)
    assert (found.unanswered, found.extra) == (expected.unanswered, expected.extra) == (1, 1)
    assert found.exact.tolist() == [True, False, False, False]


@pytest.mark.slow
def test_known_systems() -> None:
    folder = os.environ.get("QA_EDGE_DATA")
    if not folder:
        pytest.skip("QA_EDGE_DATA is not set")
    squad = read_squad(Path(folder, "squad", "dev-v1.1.json"))
    names, known = ("match-lstm-ensemble", "bert-ensemble"), Path(folder, "squad", "predictions")
    first, second = (score_prediction_file(known / f"{name}.json", squad) for name in names)
    assert first.exact_match_percent == pytest.approx(67.635, abs=5e-4)
    assert second.f1_percent == pytest.approx(92.196, abs=5e-4)
    found = compare_scores(first, second, resamples=10_000)
    assert found.exact_match.difference == pytest.approx(0.18571, abs=1e-5) and found.exact_match.low > 0.17
    assert max(found.exact_match.p_value, found.f1.p_value, found.sample.p_value, found.mcnemar.p_value) < 0.001
    # A simpler test of another kind has the same interval.
    from scipy.stats import norm

    gains = second.f1 - first.f1
    interval = norm.interval(0.95, gains.mean(), gains.std() / len(gains) ** 0.5)
    assert [found.f1.low, found.f1.high] == pytest.approx(interval, abs=3e-4)
    altered = read_squad(Path(folder, "adversarial", "AddOneSent.json"))
    with pytest.raises(DataError, match="answers 1,000 of the 1,787 questions"):
        score_prediction_file(known / "bert-ensemble.json", altered)
    assert len(references(altered)) == 1787
