"""Settings that cannot be are refused when they are made, by their name."""

from __future__ import annotations

from typing import Any

import pytest

from qa_edge_export.settings import ExportSettings
from qa_edge_runtime.errors import InputError


def test_defaults_are_one_int8_graph_for_onnx() -> None:
    settings = ExportSettings()
    assert (settings.engines, settings.precisions, settings.table) == (("onnx",), ("int8",), "int4")
    assert settings.words is None and settings.max_size_bytes is None and settings.f1_margin == 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {"engines": ("tflite", "onnx"), "precisions": ("fp32", "int8", "fp16")},
        {"table": "int4", "words": 0},
        {"max_size_bytes": 0, "calibration": "dynamic"},
        {"calibration": "error", "keep_float": frozenset({"blocks.0.attention"}), "f1_margin": 0},
        {"f1_margin": float("inf")},
    ],
)
def test_what_can_be_is_taken(settings: dict[str, Any]) -> None:
    assert all(getattr(ExportSettings(**settings), name) == value for name, value in settings.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engines": ("coreml",)}, "unknown engines 'coreml'; there are onnx, tflite"),
        ({"engines": ()}, "engines is empty"),
        ({"engines": ("onnx", "onnx")}, "engines is onnx, onnx; expected .* each once"),
        ({"precisions": ("int4",)}, "unknown precisions 'int4'; there are int8, fp16, fp32"),
        ({"precisions": ()}, "precisions is empty"),
        ({"table": "fp16"}, "unknown table 'fp16'; there are float32, float16, int8, int4"),
        ({"calibration": "entropy"}, "unknown calibration 'entropy'; there are max, percentile, error, dynamic"),
        ({"words": 10, "max_size_bytes": 10}, "both given; expected one of them"),
        ({"words": -1}, "words is -1, expected a whole number from 0"),
        ({"words": 2.5}, "words is 2.5"),
        ({"words": True}, "words is True"),
        ({"max_size_bytes": -1}, "max_size_bytes is -1"),
        ({"max_size_bytes": 6e6}, "max_size_bytes is 6000000.0"),
        (
            {"keep_float": frozenset({"blocks.0.attention"}), "calibration": "dynamic"},
            "keep_float names layers of the ONNX",
        ),
        ({"keep_float": frozenset({"blocks.0.attention"}), "precisions": ("fp32",)}, "which was not asked for"),
        ({"keep_float": frozenset({"blocks.0.attention"}), "engines": ("tflite",)}, "which was not asked for"),
        ({"f1_margin": -0.1}, "f1_margin is -0.1, expected points of F1 from 0"),
        ({"f1_margin": float("nan")}, "f1_margin is nan"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ExportSettings(**settings)
    assert "\n" not in str(caught.value)
