"""Which layer suffers from 8 bits: each quantised by itself, all others in float32."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial

import numpy as np

from qa_edge_export.calibrate import CoreInputs, limits, observe
from qa_edge_export.checkpoint import read_checkpoint
from qa_edge_export.graph import Graph
from qa_edge_export.graphs import layer_names, merged_form
from qa_edge_export.inputs import ExactInputs
from qa_edge_export.progress import Progress, no_progress
from qa_edge_export.verify import Question
from qa_edge_runtime.engine import load_engine
from qa_edge_runtime.errors import MissingExtraError

ALL = "all layers"


@dataclass(frozen=True, kw_only=True)
class LayerEffect:
    """What 8 bits in one layer do, and what it costs to do without them.

    :ivar layer: its name, as `keep_float` takes it; "all layers" for the whole graph.
    :ivar difference: root of the mean squared difference of the logits from the float32 graph's, with 8 bits in this
        layer alone.
    :ivar difference_without: the same with 8 bits in all other layers.
    :ivar size_bytes_without: size of that graph.
    """

    layer: str
    difference: float
    difference_without: float
    size_bytes_without: int


def layer_effects(
    run_folder: str | os.PathLike[str],
    questions: Sequence[Question],
    *,
    calibration: str = "max",
    progress: Progress = no_progress,
) -> list[LayerEffect]:
    """Quantise one layer after the other and compare the logits; the graph with all of them first, then the worst.

    :param questions: held-out ones, for the scales and for the comparison.
    :raises DataError: if the run folder cannot be used.
    :raises InputError: if there are no questions.
    :raises MissingExtraError: if onnx or ONNX Runtime is not installed.
    """
    try:
        from qa_edge_export.onnx_graph import core_graph
        from qa_edge_export.onnx_int8_layers import StaticInt8Layers
    except ImportError as error:
        raise MissingExtraError('sensitivity needs onnx: pip install "qa-edge[train]"') from error
    checkpoint = read_checkpoint(run_folder)
    form, exact = merged_form(checkpoint), ExactInputs(checkpoint)
    inputs = [exact(question.question, question.context)[0] for question in questions]
    found, names = limits(observe(form, inputs), calibration), layer_names(form)
    expected = _logits(core_graph(form), inputs)

    def measure(keep: AbstractSet[str]) -> tuple[float, int]:
        layers = partial(StaticInt8Layers, limits=found, keep_float=keep)
        graph = core_graph(form, layers, precision="int8")
        return float(np.sqrt(np.mean((_logits(graph, inputs) - expected) ** 2))), len(graph.content)

    every = frozenset(names)
    effects = []
    with progress("sensitivity", 1 + len(names)) as advance:
        whole, size = measure(frozenset())
        effects.append(LayerEffect(layer=ALL, difference=whole, difference_without=whole, size_bytes_without=size))
        advance(1)
        for name in names:
            alone, _ = measure(every - {name})
            without, size = measure(frozenset({name}))
            effects.append(
                LayerEffect(layer=name, difference=alone, difference_without=without, size_bytes_without=size)
            )
            advance(1)
    return [effects[0], *sorted(effects[1:], key=lambda effect: -effect.difference)]


def _logits(graph: Graph, inputs: Sequence[CoreInputs]) -> np.ndarray:
    """All logits of all questions, one after the other."""
    engine = load_engine(graph.content, graph.spec)
    return np.concatenate([np.concatenate(list(engine.run(one).values())) for one in inputs])
