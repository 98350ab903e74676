"""ONNX graphs in ONNX Runtime's own format (.ort), which its small builds for mobile devices read."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from qa_edge_export.graph import Graph
from qa_edge_runtime.onnx_engine import import_onnxruntime


def to_ort(graph: Graph) -> Graph:
    """The same graph in the other format, its optimisations kept to those that suit every processor.

    :raises MissingExtraError: if ONNX Runtime is not installed.
    """
    onnxruntime = import_onnxruntime()
    file = f"{Path(graph.spec.file).stem}.ort"
    with tempfile.TemporaryDirectory(prefix="qa-edge-export.") as folder:
        target = Path(folder) / file
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
        return Graph(content=target.read_bytes(), spec=replace(graph.spec, file=file))
