"""LiteRT, or the older tflite-runtime, behind the protocol of `engine.Engine`."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from qa_edge_runtime.errors import BundleError, EngineError, MissingExtraError
from qa_edge_runtime.forked import abandon_when_forked, never_destroy
from qa_edge_runtime.graph_check import check_tensors, first_line
from qa_edge_runtime.graphs import GraphSpec, TensorSpec

SIGNATURE = "serving_default"
# Module -> the name under which it is installed, in the order in which they are tried.
PACKAGES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
# Packs the weights again whenever the lengths change, and keeps the packed ones of before: 196 MB after some questions,
# where an interpreter made anew takes 95 and 3 ms more (docs/footprint.md).
_MADE_ANEW = "tflite-runtime"


class TfliteEngine:
    """A graph run by LiteRT on the CPU, or by tflite-runtime where only that is installed.

    An interpreter is not thread-safe and holds one set of tensors: calls from several threads follow each other.

    :param model: the graph's bytes, so that what runs is what was checked; the interpreter reads them in place.
    :param spec: the graph as the manifest declares it.
    :param threads: threads within an operator.
    :raises MissingExtraError: if neither package is installed.
    :raises EngineError: if the package cannot work here or refuses the graph.
    :raises BundleError: if the graph's signature is not what the manifest declares.
    """

    def __init__(self, model: bytes, spec: GraphSpec, *, threads: int = 1) -> None:
        self.name, self.version, interpreter_class = _find_interpreter()
        self._role = spec.role
        self._lock = threading.Lock()
        self._shapes: dict[str, tuple[int, ...]] = {}
        if model[4:8] != b"TFL3":  # what follows is read without checks, and an interpreter may crash on it
            raise EngineError(f"{self.name} {self.version} refused {spec.file}: it is not a TFLite model")
        self._make = partial(interpreter_class, model_content=model, num_threads=threads)
        try:
            self._interpreter: Any = self._make()
        except Exception as error:  # no base class of its own errors
            raise EngineError(f"{self.name} {self.version} refused {spec.file}: {first_line(error)}") from error
        self._allocated = self._closed = False
        self._inputs, self._outputs = _bind(self._interpreter, spec)
        abandon_when_forked(self)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph; see `Engine.run`."""
        shapes = {name: value.shape for name, value in inputs.items()}
        with self._lock:
            if self._closed:
                raise EngineError(f"the {self._role} graph was closed; load the bundle again")
            try:
                if shapes != self._shapes:
                    self._resize(shapes)
                for name, index in self._inputs.items():
                    self._interpreter.set_tensor(index, inputs[name])
                self._interpreter.invoke()
                # get_tensor copies, so that the next call does not change what was returned.
                return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
            except Exception as error:  # as above; out of memory on a very long context ends here too
                given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
                raise EngineError(f"the {self._role} graph failed on {given}: {first_line(error)}") from error

    def close(self) -> None:
        """Let go of the graph, when the call that runs it has ended; see `Engine.close`."""
        with self._lock:
            if not self._closed:
                self._let_go()

    def abandon(self) -> None:
        """Leave the graph to its parent process; see `Engine.abandon`."""
        self._lock = threading.Lock()  # another thread may have held it, which is not in this process
        if not self._closed:
            never_destroy(self._interpreter)
            self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        self._interpreter = None
        del self._make  # holds the model's bytes

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = {}  # until it has succeeded: after a failure the next call begins anew
        if self._allocated and self.name == _MADE_ANEW:
            self._interpreter = None  # first, so that there are never two
            self._interpreter = self._make()
        self._allocated = True
        for name, index in self._inputs.items():
            # Strict: only an axis that the graph leaves open changes its size.
            self._interpreter.resize_tensor_input(index, shapes[name], strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _find_interpreter() -> tuple[str, str, Any]:
    """Name and version of the package that is installed, and its class."""
    for module, package in PACKAGES.items():
        try:
            version = str(getattr(import_module(module), "__version__", "of unknown version"))
        except ImportError:
            continue
        # Asked before it is tried: it would not raise an error but write a trace, or end the process.
        if package == "tflite-runtime" and _release(version) <= (2, 14) and _release(np.__version__) >= (2, 0):
            raise EngineError(
                f"tflite-runtime {version} needs numpy below 2, found {np.__version__}:"
                ' pip install "qa-edge-runtime[tflite-runtime]"'
            )
        try:
            return package, version, import_module(f"{module}.interpreter").Interpreter
        except (ImportError, AttributeError) as error:
            raise EngineError(f"{package} {version} cannot be loaded: {first_line(error)}") from error
    raise MissingExtraError('this bundle needs LiteRT: pip install "qa-edge-runtime[tflite]"')


def _release(version: str) -> tuple[int, ...]:
    """First two numbers of a version; none of one that has no such numbers."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _bind(interpreter: Any, spec: GraphSpec) -> tuple[dict[str, int], dict[str, int]]:
    """Indices of inputs and outputs by their names in the signature, checked against the manifest."""
    if SIGNATURE not in interpreter.get_signature_list():
        raise BundleError(f"{spec.file} has no signature {SIGNATURE}; export the bundle again")
    signature = interpreter.get_signature_runner(SIGNATURE)
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    check_tensors(spec.file, "input", _tensors(inputs), spec.inputs)
    check_tensors(spec.file, "output", _tensors(outputs), spec.outputs)
    return {name: int(inputs[name]["index"]) for name in inputs}, {
        name: int(outputs[name]["index"]) for name in outputs
    }


def _tensors(details: Mapping[str, Mapping[str, Any]]) -> list[TensorSpec]:
    """The interpreter's description of tensors, with -1 for open sizes, in the manifest's words."""
    return [
        TensorSpec(
            name=name,
            shape=tuple("any" if size < 0 else int(size) for size in detail["shape_signature"]),
            dtype=np.dtype(detail["dtype"]).name,
        )
        for name, detail in details.items()
    ]
