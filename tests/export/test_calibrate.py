"""Limits of 8-bit numbers: histograms lose nothing, and numpy on the values themselves finds the same limits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from form_reference import core_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from random_student import random_inputs, small_form

from qa_edge_export.calibrate import BINS, METHODS, PERCENTILE, STEPS, Histogram, limits, observe
from qa_edge_export.inference_form import merge_attention
from qa_edge_export.onnx_graph import write_core
from qa_edge_export.onnx_layers import FloatLayers
from qa_edge_runtime.errors import InputError

RANDOM = np.random.default_rng(7)
VALUES: dict[str, Any] = {
    "normal": RANDOM.normal(size=200_000),
    "uniform": RANDOM.uniform(-3, 3, 200_000),
    "heavy tails": RANDOM.laplace(size=200_000),
    "outliers": np.concatenate([RANDOM.normal(size=200_000), [60.0, -80.0]]),
    "one sign": np.maximum(RANDOM.normal(size=200_000), 0),
    "small": RANDOM.normal(size=200_000, scale=1e-4),
}


def histogram_of(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def rounding_error(values: np.ndarray, limit: float) -> float:
    step = limit / STEPS
    return float(np.mean((np.clip(np.round(values / step), -STEPS, STEPS) * step - values) ** 2))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=40), min_size=1, max_size=8))
def test_no_count_is_lost_when_the_range_grows(parts: list[list[float]]) -> None:
    histogram = histogram_of(*(np.array(part, np.float32) for part in parts))
    every = np.abs(np.concatenate([np.array(part, np.float32) for part in parts]))
    assert histogram.counts.sum() == len(every)
    assert histogram.largest == every.max(initial=0.0) <= histogram.range
    # A value lies in the bin that its magnitude belongs to, or is on the edge of it.
    ordered, edges = np.sort(every.astype(np.float64)), np.linspace(0, histogram.range, BINS + 1)[:-1]
    above = len(ordered) - np.searchsorted(ordered, edges)
    near = np.searchsorted(ordered, edges * (1 + 1e-5), side="right") - np.searchsorted(ordered, edges * (1 - 1e-5))
    off = np.abs(np.cumsum(histogram.counts[::-1])[::-1] - above)
    assert (off <= near).all()


@pytest.mark.parametrize("name", VALUES)
def test_the_parts_and_their_order_change_no_limit_by_more_than_the_bins(name: str) -> None:
    values = VALUES[name]
    ways = [histogram_of(values), histogram_of(*np.array_split(np.sort(np.abs(values)), 50))]
    for method in METHODS:
        first, second = (way.limit(method) for way in ways)
        assert abs(first - second) <= max(way.range for way in ways) / 64


@pytest.mark.parametrize("name", VALUES)
def test_max_is_the_largest_and_percentile_the_one_of_numpy(name: str) -> None:
    values, histogram = VALUES[name], histogram_of(*np.array_split(VALUES[name], 7))
    assert histogram.limit("max") == np.abs(values).max()
    expected = np.percentile(np.abs(values), PERCENTILE, method="inverted_cdf")
    assert expected - 1e-9 <= histogram.limit("percentile") <= expected + 1.01 * histogram.range / BINS
    kept = np.mean(np.abs(values) <= histogram.limit("percentile"))
    assert kept >= PERCENTILE / 100 - 1e-9


@pytest.mark.parametrize("name", VALUES)
def test_error_is_as_good_as_the_best_limit_that_was_tried(name: str) -> None:
    values, histogram = VALUES[name], histogram_of(*np.array_split(VALUES[name], 7))
    found = rounding_error(values, histogram.limit("error"))
    tried = [rounding_error(values, limit) for limit in np.geomspace(0.02, 1, 60) * np.abs(values).max()]
    assert found <= 1.1 * min(tried)
    assert found <= 1.001 * rounding_error(values, histogram.limit("max"))


def test_methods_differ_where_there_are_outliers() -> None:
    histogram = histogram_of(VALUES["outliers"])
    assert histogram.limit("max") == 80 and histogram.limit("percentile") < 6
    assert histogram.limit("error") <= 80


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_all_zero_have_the_limit_zero(method: str) -> None:
    assert histogram_of(np.zeros((3, 4), np.float32), np.zeros(0, np.float32)).limit(method) == 0


@pytest.mark.parametrize("heads", [1, 2])
def test_points_have_the_magnitudes_that_the_form_has_there(heads: int) -> None:
    form = merge_attention(small_form(heads=heads))
    inputs = [random_inputs(16, lengths) for lengths in ((40, 9), (5, 3), (1, 1))]
    advanced: list[int] = []
    found = observe(form, inputs, advance=advanced.append)
    largest: dict[str, float] = {}
    counted: dict[str, int] = {}

    def note(path: str, values: np.ndarray) -> None:
        largest[path] = max(largest.get(path, 0.0), float(np.abs(values).max()))
        counted[path] = counted.get(path, 0) + values.size

    for one in inputs:
        core_logits(form, one["context"], one["question"], note)
    points = [path for path in largest if path in found]
    parts = ("normed", "query", "value", "scores") if heads == 1 else ("normed", "query", "key", "value", "scores")
    assert {path.rsplit("/", 1)[1] for path in points} == set(parts)
    assert len(points) == len(parts) * (2 + 3 * len(form.blocks))
    for path in points:
        assert found[path].largest == pytest.approx(largest[path], rel=1e-4)
        assert found[path].counts.sum() == counted[path]
    assert advanced == [1, 1, 1]
    assert found.keys() == write_core(form, FloatLayers).observed.keys()
    assert limits(found, "max") == {point: histogram.largest for point, histogram in found.items()}


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_never_cut_off(method: str) -> None:
    histogram = histogram_of(VALUES["outliers"])
    found = limits(
        {"pass.0/blocks.0.attention/scores": histogram, "pass.0/blocks.0.attention/value": histogram}, method
    )
    assert found["pass.0/blocks.0.attention/scores"] == 80
    assert found["pass.0/blocks.0.attention/value"] == histogram.limit(method)


def test_nothing_to_calibrate_on_and_an_unknown_method_are_refused() -> None:
    form = small_form()
    with pytest.raises(InputError, match="no held-out questions to calibrate on"):
        observe(form, [])
    with pytest.raises(InputError, match="unknown calibration 'entropy'; there are max, percentile, error"):
        limits({}, "entropy")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_its_libraries_it_says_what_to_install(missing: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from qa_edge_export.calibrate import observe
from qa_edge_runtime.errors import MissingExtraError
try:
    observe(None, [])
except MissingExtraError as error:
    assert "qa-edge[train]" in str(error)
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
