"""ONNX Runtime behind the protocol of `engine.Engine`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qa_edge_runtime.errors import EngineError, MissingExtraError
from qa_edge_runtime.forked import abandon_when_forked, never_destroy
from qa_edge_runtime.graph_check import check_tensors, first_line
from qa_edge_runtime.graphs import GraphSpec, TensorSpec

# From 1.29 on ONNX Runtime reports to its makers over the network from every process that imports it, in a thread that
# keeps a forked child from ending. Who wants that sets this variable to 0.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"

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
        onnxruntime = import_onnxruntime()
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
        # A thread that waits for work must not eat a core of a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Our int8 core graphs leave nothing to fuse: the higher levels cost a quarter of the start and gain nothing.
        if spec.precision == "int8":
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no base class of its own errors
            raise EngineError(f"ONNX Runtime {self.version} refused {spec.file}: {first_line(error)}") from error
        check_tensors(spec.file, "input", _tensors(self._session.get_inputs()), spec.inputs)
        check_tensors(spec.file, "output", _tensors(self._session.get_outputs()), spec.outputs)
        self._outputs = [tensor.name for tensor in spec.outputs]
        abandon_when_forked(self)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph; see `Engine.run`."""
        session = self._session  # held: another thread may close the engine meanwhile
        if session is None:
            raise EngineError(f"the {self._role} graph was closed; load the bundle again")
        try:
            values = session.run(self._outputs, dict(inputs))
        except Exception as error:  # as above; out of memory on a very long context ends here too
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"the {self._role} graph failed on {shapes}: {first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Let go of the graph; see `Engine.close`."""
        self._session = None

    def abandon(self) -> None:
        """Leave the graph to its parent process; see `Engine.abandon`."""
        never_destroy(self._session)
        self._session = None


def import_onnxruntime() -> Any:
    """ONNX Runtime, which tells nobody that it runs unless the environment variable ORT_DISABLE_TELEMETRY asks for it.

    :raises MissingExtraError: if it is not installed.
    """
    silent = os.environ.setdefault(_NO_TELEMETRY, "1") != "0"  # read when the library is first imported
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError('this bundle needs ONNX Runtime: pip install "qa-edge-runtime[onnx]"') from error
    if silent and hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # for the case that somebody else imported it first
    return onnxruntime


def _tensors(nodes: Sequence[Any]) -> list[TensorSpec]:
    """ONNX Runtime's description of tensors, "tensor(float)" and None for open sizes, in the manifest's words."""
    tensors = []
    for node in nodes:
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size or "any") for size in node.shape)
        tensors.append(TensorSpec(name=node.name, shape=shape, dtype=_DTYPES.get(dtype, dtype)))
    return tensors
