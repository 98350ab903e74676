"""What a bundle is to hold: engines, precisions, table, calibration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from qa_edge_export.calibrate import METHODS
from qa_edge_export.verify import F1_MARGIN
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.graphs import ENGINES, PRECISIONS
from qa_edge_runtime.table import TABLE_DTYPES

DYNAMIC = "dynamic"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of an export.

    :param engines: of "onnx" and "tflite"; each gets a core graph in every precision and a token graph.
    :param precisions: of "int8", "fp16" and "fp32".
    :param table: dtype of the token table: "int4", "int8", "float16" or "float32".
    :param words: rows of the token table; None keeps every word of the text that has a vector.
    :param max_size_bytes: instead: as many words as fit into a bundle of this size.
    :param calibration: how the scales of int8 are found: "max", "percentile", "error", or "dynamic", at each call.
    :param keep_float: layers that stay in float32 in ONNX int8, by name: "blocks.3.attention", "encoder.feedforward",
        "blocks.0.convolutions.1".
    :param ort: write ONNX graphs in ONNX Runtime's own format, which its builds for mobile devices read; weights of 16
        bits are of 32 there.
    :param f1_margin: points of F1 on the verification questions that a smaller graph or table may cost.
    :raises InputError: naming the setting that cannot be.
    """

    engines: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("int8",)
    table: str = "int4"
    words: int | None = None
    max_size_bytes: int | None = None
    calibration: str = "max"
    keep_float: frozenset[str] = frozenset()
    ort: bool = False
    f1_margin: float = F1_MARGIN

    def __post_init__(self) -> None:
        _some_of("engines", self.engines, ENGINES)
        _some_of("precisions", self.precisions, PRECISIONS)
        _some_of("table", (self.table,), TABLE_DTYPES)
        _some_of("calibration", (self.calibration,), (*METHODS, DYNAMIC))
        if self.words is not None and self.max_size_bytes is not None:
            raise InputError("a number of words and a size of the bundle were both given; expected one of them")
        for name, value in (("words", self.words), ("max_size_bytes", self.max_size_bytes)):
            if value is not None and (type(value) is not int or value < 0):
                raise InputError(f"{name} is {value!r:.40}, expected a whole number from 0")
        static = "onnx" in self.engines and self.static_int8
        if self.keep_float and not static:
            raise InputError(
                "keep_float names layers of the ONNX int8 graph with fixed scales, which was not asked for: leave it"
                " out, or ask for onnx and int8 without dynamic calibration"
            )
        if self.ort and "onnx" not in self.engines:
            raise InputError("ort is a format of ONNX graphs, but the engine onnx is not among those asked for")
        if not self.f1_margin >= 0:
            raise InputError(f"f1_margin is {self.f1_margin!r:.40}, expected points of F1 from 0")

    @property
    def static_int8(self) -> bool:
        """Whether there are int8 graphs with scales that calibration fixes."""
        return "int8" in self.precisions and self.calibration != DYNAMIC


def _some_of(name: str, found: Collection[str], known: Collection[str]) -> None:
    for value in found:
        if value not in known:
            raise InputError(f"unknown {name} {value!r:.40}; there are {', '.join(known)}")
    if not found or len(set(found)) != len(found):
        raise InputError(f"{name} is {', '.join(found) or 'empty'}; expected some of {', '.join(known)}, each once")
