"""Calibration: how large the values at the observed points of the core network get, on held-out questions.

A static 8-bit graph has one scale for each point. The largest value seen is often a rare one, and a scale made for it
leaves the others few steps: a limit below it, beyond which values are cut off, can lose less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from qa_edge_export.inference_form import InferenceForm
from qa_edge_runtime.errors import InputError, MissingExtraError
from qa_edge_runtime.onnx_engine import import_onnxruntime

BINS = 2048
STEPS = 127
METHODS = ("max", "percentile", "error")
PERCENTILE = 99.99

CoreInputs = Mapping[str, np.ndarray]
"""The four inputs of the core graph, by name."""


class Histogram:
    """Counts of magnitudes in bins of equal width; its range doubles when a larger value comes."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.range = 0.0
        self.largest = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape and sign."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if self.range == 0.0:
            self.range = max(largest, 1e-6)
        while largest > self.range:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.range *= 2
        bins = (magnitudes * np.float32(BINS / self.range)).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def limit(self, method: str) -> float:
        """The magnitude beyond which values are cut off.

        :param method: "max", the largest value seen; "percentile", the smallest limit that keeps 99.99 % of the values;
            "error", the limit with the least mean squared error of rounding and cutting off together.
        """
        if method == "max":
            return self.largest
        edges = np.linspace(0.0, self.range, BINS + 1)
        if method == "percentile":
            kept = np.cumsum(self.counts) / max(int(self.counts.sum()), 1)
            return min(float(edges[1 + np.searchsorted(kept, PERCENTILE / 100)]), self.largest)
        centres, candidates = (edges[:-1] + edges[1:]) / 2, edges[BINS // 64 :: BINS // 128]
        beyond = np.maximum(centres[None] - candidates[:, None], 0.0)
        rounding = np.where(beyond == 0, (candidates[:, None] / STEPS) ** 2 / 12, 0.0)
        errors = ((beyond**2 + rounding) * self.counts).sum(axis=1)
        return min(float(candidates[np.argmin(errors)]), self.largest)


def observe(
    form: InferenceForm, inputs: Iterable[CoreInputs], *, advance: Callable[[int], None] | None = None
) -> dict[str, Histogram]:
    """Run the float32 core network and count the values at every observed point, by the point's path.

    :param inputs: those of one question each; some hundred are enough.
    :param advance: called with 1 after each question.
    :raises InputError: if there are no inputs.
    :raises MissingExtraError: if onnx or ONNX Runtime is not installed.
    """
    try:
        onnxruntime = import_onnxruntime()
        from qa_edge_export.onnx_graph import write_core
        from qa_edge_export.onnx_layers import FloatLayers
    except (ImportError, MissingExtraError) as error:
        raise MissingExtraError('calibration needs onnx and ONNX Runtime: pip install "qa-edge[train]"') from error
    graph = write_core(form, FloatLayers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = graph.build(extra_outputs=graph.observed).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    points = list(graph.observed)
    histograms = {point: Histogram() for point in points}
    seen = 0
    for one in inputs:
        for point, values in zip(points, session.run(points, dict(one)), strict=True):
            histograms[point].add(values)
        seen += 1
        if advance is not None:
            advance(1)
    if not seen:
        raise InputError(
            "no held-out questions to calibrate on: take scales that are found at each call (--calibration dynamic), or"
            " another precision than int8"
        )
    return histograms


def limits(histograms: Mapping[str, Histogram], method: str) -> dict[str, float]:
    """The limit of every point.

    :raises InputError: if there is no such method.
    """
    if method not in METHODS:
        raise InputError(f"unknown calibration {method!r:.40}; there are {', '.join(METHODS)}")
    # Where scores are cut off, the tokens that are looked at most become alike: there the largest counts.
    return {
        point: histogram.limit("max" if point.endswith("/scores") else method)
        for point, histogram in histograms.items()
    }
