"""ONNX Runtime behind the protocol of `engine.Engine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qa_edge_runtime.errors import EngineError, MissingExtraError
from qa_edge_runtime.graph_check import check_tensors, first_line
from qa_edge_runtime.graphs import GraphSpec, TensorSpec

_DTYPES = {"float": "float32", "float16": "float16", "double": "float64"}


class OnnxEngine:
    """A graph run by ONNX Runtime on the CPU.

    :param model: the graph's bytes, so that what runs is what was checked.
    :param spec: the graph as the manifest declares it.
    :param threads: threads within an operator; operators run one after another. One is the default because two are
        slower as soon as anything else runs.
    :raises MissingExtraError: if ONNX Runtime is not installed.
    :raises EngineError: if ONNX Runtime refuses the graph.
    :raises BundleError: if the graph's tensors are not those that the manifest declares.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes, spec: GraphSpec, *, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            message = 'this bundle needs ONNX Runtime: pip install "qa-edge-runtime[onnx]"'
            raise MissingExtraError(message) from error
        self.version: str = onnxruntime.__version__
        self._role = spec.role
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # A memory pattern is kept for each combination of lengths: with texts of all lengths that only grows, and
        # graphs of this size run no slower without.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no base class of its own errors
            raise EngineError(f"ONNX Runtime {self.version} refused {spec.file}: {first_line(error)}") from error
        check_tensors(spec.file, "input", _tensors(self._session.get_inputs()), spec.inputs)
        check_tensors(spec.file, "output", _tensors(self._session.get_outputs()), spec.outputs)
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph; see `Engine.run`."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # as above; out of memory on a very long context ends here too
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"the {self._role} graph failed on {shapes}: {first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))


def _tensors(nodes: Sequence[Any]) -> list[TensorSpec]:
    """ONNX Runtime's description of tensors, "tensor(float)" and None for open sizes, in the manifest's words."""
    tensors = []
    for node in nodes:
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size or "any") for size in node.shape)
        tensors.append(TensorSpec(name=node.name, shape=shape, dtype=_DTYPES.get(dtype, dtype)))
    return tensors
