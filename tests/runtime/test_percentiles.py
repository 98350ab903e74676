from __future__ import annotations

import numpy as np
import pytest

from qa_edge_runtime.latency_samples import STAGES, LatencySamples
from qa_edge_runtime.percentiles import Bootstrap, by_length, interval, pass_medians, summarise_stages


def samples_of(infer: np.ndarray, *, passes: int = 1, tokens: np.ndarray | None = None) -> LatencySamples:
    """Queries whose other stages take 1, 2 and 1 ms."""
    count = len(infer)
    questions = count // passes
    ones = np.ones(count)
    return LatencySamples(
        pass_number=np.repeat(np.arange(passes), questions),
        question=np.tile(np.arange(questions), passes),
        context_tokens=np.full(count, 100) if tokens is None else tokens,
        question_tokens=np.full(count, 10),
        tokenise_ms=ones,
        look_up_ms=2 * ones,
        infer_ms=infer,
        decode_ms=ones,
    )


def test_percentiles_and_shares_worked_out_by_hand() -> None:
    stages = summarise_stages(samples_of(np.arange(101.0)))
    assert tuple(stages) == STAGES
    assert (stages["infer"].p50_ms, stages["infer"].p90_ms, stages["infer"].p99_ms) == (50.0, 90.0, 99.0)
    assert (stages["total"].p50_ms, stages["total"].share) == (54.0, 1.0)
    assert stages["look_up"].share == pytest.approx(2 / 54)
    assert sum(stages[stage].share for stage in STAGES[:-1]) == pytest.approx(1.0)
    # Where all times are the same there is nothing to be unsure of.
    assert stages["decode"].p99_interval_ms == (1.0, 1.0)


def test_the_interval_of_a_median_is_that_of_the_order_statistics() -> None:
    """One pass: the interval is the binomial one, of the 40th and 61st of 100 (any table of order statistics)."""
    values = np.random.default_rng(3).permutation(np.arange(1.0, 101.0))
    found = Bootstrap(np.zeros(100), np.arange(100)).percentiles(values, (50,))
    low, high = interval(found[:, 0], 50.5)
    assert 38 <= low <= 42 and 59 <= high <= 63


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 experiments of 60 questions in 4 passes, of which each question has a time of its own."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        times = np.tile(random.normal(20, 4, 60), 4) + random.normal(0, 0.2, 240)
        samples = samples_of(times, passes=4)
        found = Bootstrap(samples.pass_number, samples.question)
        found.resamples = 200
        low, high = interval(found.percentiles(times, (50,))[:, 0], float(np.median(times)))
        held += low <= 20 <= high
    assert 180 <= held <= 200


def test_questions_drawn_together_make_wider_intervals_than_queries_one_by_one() -> None:
    times = np.tile(np.random.default_rng(1).normal(20, 4, 50), 20)
    samples = samples_of(times, passes=20)
    clustered = Bootstrap(samples.pass_number, samples.question).percentiles(times, (50,))
    naive = Bootstrap(np.zeros(1000), np.arange(1000)).percentiles(times, (50,))
    assert np.std(clustered) > 2.5 * np.std(naive)


def test_two_series_see_the_same_draws() -> None:
    times = np.random.default_rng(2).uniform(5, 50, 200)
    bootstrap = Bootstrap(np.repeat([0, 1], 100), np.tile(np.arange(100), 2))
    one, other = bootstrap.percentiles(times, (50, 90)), bootstrap.percentiles(1.5 * times, (50, 90))
    np.testing.assert_allclose(other / one, 1.5)
    again = Bootstrap(np.repeat([0, 1], 100), np.tile(np.arange(100), 2)).percentiles(times, (50, 90))
    np.testing.assert_array_equal(one, again)


def test_many_queries_are_drawn_fewer_times_and_gaps_do_no_harm() -> None:
    assert Bootstrap(np.zeros(100), np.arange(100)).resamples == 1000
    assert Bootstrap(np.zeros(60_000), np.arange(60_000)).resamples == 200
    # Each question in one pass alone: a draw may miss all of them.
    found = Bootstrap(np.array([0, 1]), np.array([0, 1])).percentiles(np.array([1.0, 2.0]), (50,))
    assert 0 < len(found) < 1000 and set(found[:, 0]) == {1.0, 2.0}


def test_bins_of_length_are_fixed_and_grow_beyond_one_window() -> None:
    tokens = np.array([1, 64, 65, 400, 401, 800, 801, 5000])
    bins = by_length(samples_of(np.arange(8.0), tokens=tokens))
    assert [(found.from_tokens, found.to_tokens, found.queries) for found in bins] == [
        (1, 64, 2),
        (65, 128, 1),
        (257, 400, 1),
        (401, 800, 2),
        (801, 1600, 1),
        (3201, 6400, 1),
    ]
    assert (bins[0].p50_ms, bins[0].p90_ms) == (4.5, pytest.approx(4.9))


def test_medians_of_passes() -> None:
    assert pass_medians(np.array([1.0, 3.0, 5.0, 9.0]), np.array([0, 0, 1, 1])) == (2.0, 7.0)
