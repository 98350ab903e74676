"""All graphs of a bundle: for each engine a token graph and a core graph in each precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from qa_edge_export.calibrate import CoreInputs, limits, observe
from qa_edge_export.checkpoint import Checkpoint
from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import (
    InferenceForm,
    TokenForm,
    fold_norms,
    inference_form,
    merge_attention,
    token_form,
)
from qa_edge_export.settings import ExportSettings
from qa_edge_runtime.errors import InputError, MissingExtraError


def merged_form(checkpoint: Checkpoint) -> InferenceForm:
    """The core network with merged attention, its layer norms as they are.

    In ONNX a gain and a shift cost nothing. Folded into the weights the gains would make their columns less alike,
    which costs 8-bit weights a third more error.
    """
    return merge_attention(inference_form(checkpoint.sizes, checkpoint.arrays))


def layer_names(form: InferenceForm) -> list[str]:
    """Names of the layers that an 8-bit graph may keep in float32."""
    names = []
    for block in (form.encoder, *form.blocks):
        names += [f"{block.name}.convolutions.{number}" for number in range(len(block.convolutions))]
        names += [f"{block.name}.attention", f"{block.name}.feedforward"]
    return names


def write_graphs(
    checkpoint: Checkpoint,
    settings: ExportSettings,
    calibration: Iterable[CoreInputs],
    *,
    advance: Callable[[int], None] | None = None,
) -> list[Graph]:
    """Write every graph that the settings ask for.

    :param calibration: inputs of held-out questions; read only where int8 wants fixed scales.
    :param advance: called with 1 after each reading of a calibration question; see `calibration_runs`.
    :raises InputError: if a layer to keep in float32 does not exist, or there is nothing to calibrate on.
    :raises MissingExtraError: if the library that writes an engine's graphs is not installed.
    """
    form, tokens = merged_form(checkpoint), token_form(checkpoint.sizes, checkpoint.arrays)
    for name in sorted(settings.keep_float):
        if name not in layer_names(form):
            raise InputError(f"there is no layer {name!r:.60}; there are {', '.join(layer_names(form))}")
    questions = list(calibration) if settings.static_int8 else []
    observed = _Observer(settings.calibration, questions, advance)
    graphs: list[Graph] = []
    if "onnx" in settings.engines:
        graphs += _onnx_graphs(form, tokens, settings, observed)
    if "tflite" in settings.engines:
        graphs += _tflite_graphs(form, tokens, settings, observed)
    return graphs


def calibration_runs(settings: ExportSettings) -> int:
    """How often `write_graphs` reads each calibration question: once for each engine whose int8 has fixed scales."""
    return len(settings.engines) if settings.static_int8 else 0


class _Observer:
    """Limits of a form's points on the calibration questions."""

    def __init__(self, method: str, questions: Sequence[CoreInputs], advance: Callable[[int], None] | None) -> None:
        self._method, self._questions, self._advance = method, questions, advance

    def __call__(self, form: InferenceForm) -> dict[str, float]:
        return limits(observe(form, self._questions, advance=self._advance), self._method)


def _token_precision(settings: ExportSettings) -> str:
    """Weights of 16 bits lose less than rows of 8 bits do."""
    return "fp32" if settings.table == "float32" else "fp16"


def _onnx_graphs(form: InferenceForm, tokens: TokenForm, settings: ExportSettings, observed: _Observer) -> list[Graph]:
    try:
        from qa_edge_export.onnx_graph import MakeLayers, core_graph, token_graph
        from qa_edge_export.onnx_int8_layers import DynamicInt8Layers, StaticInt8Layers
        from qa_edge_export.onnx_layers import FloatLayers
        from qa_edge_export.ort_format import to_ort
    except ImportError as error:
        raise MissingExtraError('ONNX export needs onnx: pip install "qa-edge[train]"') from error
    graphs = [token_graph(tokens, precision=_token_precision(settings), file="token.onnx")]
    for precision in settings.precisions:
        make_layers: MakeLayers = FloatLayers
        if precision == "int8" and settings.static_int8:
            make_layers = partial(StaticInt8Layers, limits=observed(form), keep_float=settings.keep_float)
        elif precision == "int8":
            make_layers = DynamicInt8Layers
        graphs.append(core_graph(form, make_layers, precision=precision, file=f"core.{precision}.onnx"))
    return [to_ort(graph) for graph in graphs] if settings.ort else graphs


def _tflite_graphs(
    form: InferenceForm, tokens: TokenForm, settings: ExportSettings, observed: _Observer
) -> list[Graph]:
    try:
        from qa_edge_export.tflite_graph import core_graph, token_graph
    except ImportError as error:
        raise MissingExtraError('TFLite export needs LiteRT: pip install "qa-edge[tflite]"') from error
    # Here a layer norm is seven operators, and nine with a gain and a shift.
    folded = fold_norms(form)
    graphs = [token_graph(tokens, precision=_token_precision(settings), file="token.tflite")]
    for precision in settings.precisions:
        scales = observed(folded) if precision == "int8" and settings.static_int8 else None
        graphs.append(core_graph(folded, precision=precision, limits=scales, file=f"core.{precision}.tflite"))
    return graphs
