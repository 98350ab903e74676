"""Inference engines behind one small protocol: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import BundleError, EngineError, InputError, MissingExtraError
from qa_edge_runtime.manifest import GraphSpec, TensorSpec

# No engine gains from more, and waiting threads take so much of a small machine that an answer takes minutes.
MAX_THREADS = 64


class Engine(Protocol):
    """One graph, loaded and checked; `run` may be called from several threads at once."""

    name: str
    version: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph on inputs given by name and return all of its outputs by name.

        :raises EngineError: if the engine fails; the message names the graph and the shapes that it was given.
        """
        ...


class OnnxEngine:
    """A graph run by ONNX Runtime on the CPU.

    :param model: the graph's bytes, so that what runs is what was checked.
    :param role: the noun for messages: "token" or "core".
    :param spec: the tensors that the manifest declares.
    :param threads: threads within an operator; operators run one after another. One is the default because two are
        slower as soon as anything else runs.
    :raises MissingExtraError: if ONNX Runtime is not installed.
    :raises EngineError: if ONNX Runtime refuses the graph.
    :raises BundleError: if the graph's tensors are not those that the manifest declares.
    """

    name = "onnxruntime"

    def __init__(self, model: bytes, *, role: str, spec: GraphSpec, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            message = 'this bundle needs ONNX Runtime: pip install "qa-edge-runtime[onnx]"'
            raise MissingExtraError(message) from error
        self.version: str = onnxruntime.__version__
        self.role = role
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
            raise EngineError(f"ONNX Runtime {self.version} refused {spec.file}: {_first_line(error)}") from error
        check_tensors(spec.file, "input", _tensors(self._session.get_inputs()), spec.inputs)
        check_tensors(spec.file, "output", _tensors(self._session.get_outputs()), spec.outputs)
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph; see `Engine.run`."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # as above; out of memory on a very long context ends here too
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"the {self.role} graph failed on {shapes}: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))


def open_engine(bundle: Bundle, role: str, *, threads: int = 1) -> Engine:
    """Load one of a bundle's graphs into the engine that the bundle is made for.

    :param role: "token" or "core".
    :raises InputError: if `threads` is not from 1 to 64.
    :raises BundleError: if this runtime has no such engine, or the graph is not as declared.
    :raises MissingExtraError: if the engine is not installed.
    """
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads!r:.40}, expected a whole number from 1 to {MAX_THREADS}")
    if bundle.manifest.engine != "onnx":
        raise BundleError(
            f"bundle {bundle.path} needs the engine {bundle.manifest.engine!r:.40}, which this runtime does not have"
            " (onnx): upgrade qa-edge-runtime"
        )
    spec = bundle.manifest.graphs[role]
    try:
        return OnnxEngine(bundle.graph_bytes(role), role=role, spec=spec, threads=threads)
    except (BundleError, EngineError) as error:
        raise type(error)(f"bundle {bundle.path}: {error}") from error


def check_tensors(file: str, side: str, found: Sequence[TensorSpec], declared: Sequence[TensorSpec]) -> None:
    """Compare a loaded graph's inputs or outputs with the manifest: names, dtypes, ranks and fixed sizes.

    A size that the manifest leaves open must be open in the graph; one that it fixes may be either.

    :raises BundleError: naming the file and the tensor.
    """
    names = {tensor.name: tensor for tensor in found}
    if set(names) != {tensor.name for tensor in declared}:
        expected = ", ".join(tensor.name for tensor in declared)
        raise BundleError(f"{file} has the {side}s {', '.join(names) or 'none'}; the manifest declares {expected}")
    for tensor in declared:
        other = names[tensor.name]
        fits = len(other.shape) == len(tensor.shape) and all(
            isinstance(theirs, str) or theirs == ours for theirs, ours in zip(other.shape, tensor.shape, strict=True)
        )
        if not fits or other.dtype != tensor.dtype:
            raise BundleError(
                f"{file}: {side} {tensor.name} is {other.dtype} {list(other.shape)};"
                f" the manifest declares {tensor.dtype} {list(tensor.shape)}"
            )


_DTYPES = {"float": "float32", "float16": "float16", "double": "float64"}


def _tensors(nodes: Sequence[Any]) -> list[TensorSpec]:
    """ONNX Runtime's description of tensors, "tensor(float)" and None for open sizes, in the manifest's words."""
    tensors = []
    for node in nodes:
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else str(size or "any") for size in node.shape)
        tensors.append(TensorSpec(name=node.name, shape=shape, dtype=_DTYPES.get(dtype, dtype)))
    return tensors


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
