"""Inference engines behind one small protocol: named arrays in, named arrays out; and which of them a bundle gets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import BundleError, EngineError, InputError, MissingExtraError
from qa_edge_runtime.graphs import ENGINES, PRECISIONS, GraphSpec
from qa_edge_runtime.onnx_engine import OnnxEngine
from qa_edge_runtime.tflite_engine import TfliteEngine

# No engine gains from more, and waiting threads take so much of a small machine that an answer takes minutes.
MAX_THREADS = 64

# Modules that run graphs, and the engine of the format that they are, the preferred ones first: LiteRT takes half of
# ONNX Runtime's time on the int8 graphs, starts sooner and takes less memory (docs/footprint.md).
_MODULES = {"ai_edge_litert": "tflite", "onnxruntime": "onnx", "tflite_runtime": "tflite"}
_NEEDS = {
    "tflite": 'LiteRT: pip install "qa-edge-runtime[tflite]"',
    "onnx": 'ONNX Runtime: pip install "qa-edge-runtime[onnx]"',
}
# Its int8 kernels of matrix products give wrong numbers without a word. Our int8 graphs therefore ask for
# FULLY_CONNECTED in version 12, which tflite-runtime does not know, so that it refuses them rather than runs them.
_WITHOUT_INT8 = "tflite_runtime"


class Engine(Protocol):
    """One graph, loaded and checked; `run` may be called from several threads at once.

    :ivar name: the package that runs it: "onnxruntime", "ai-edge-litert" or "tflite-runtime".
    :ivar version: of that package.
    """

    name: str
    version: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph on inputs given by name and return all of its outputs by name.

        :raises EngineError: if the engine fails or was closed; the message names the graph, and the shapes that it was
            given.
        """
        ...

    def close(self) -> None:
        """Let go of the graph and of the memory that it took; running it afterwards is an EngineError."""
        ...

    def abandon(self) -> None:
        """In a forked child, where it is called at once (see `forked`): never touch the graph again, nor destroy it.

        Running it there is an EngineError. Opening the graph again is safe, and costs the child the memory of one more.
        """
        ...


class EngineChoice(NamedTuple):
    """Engine ("onnx" or "tflite") and precision ("int8", "fp16" or "fp32") of a bundle's core graph."""

    engine: str
    precision: str


def choose_engine(bundle: Bundle, *, engine: str | None = None, precision: str | None = None) -> EngineChoice:
    """Engine and precision for a bundle: those named, else the best that is installed and in the bundle.

    Of engines LiteRT before ONNX Runtime before tflite-runtime, whichever is the first that is installed and has graphs
    in the bundle; of precisions int8, then fp16, then fp32, but fp32, then fp16 under tflite-runtime, which cannot run
    int8.

    :raises InputError: if what is named does not exist, or is not in the bundle.
    :raises MissingExtraError: if no engine is installed that would do, tflite-runtime for int8 among them; the message
        names what is missing.
    """
    for noun, named, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if named is not None and named not in known:
            raise InputError(f"{noun} is {named!r:.40}, expected {', '.join(known[:-1])} or {known[-1]}")
    manifest = bundle.manifest
    candidates = [
        candidate
        for candidate in _NEEDS
        if candidate in manifest.engines
        and engine in (candidate, None)
        and (precision is None or precision in manifest.precisions(candidate))
    ]
    wanted = " in ".join(part for part in (engine, precision) if part)
    if not candidates:
        held = "; ".join(f"{name} in {', '.join(manifest.precisions(name))}" for name in manifest.engines)
        raise InputError(f"bundle {bundle.path} has no graph for {wanted}, it has {held}: name one of these")
    for module, candidate in _MODULES.items():
        if candidate not in candidates or not _is_installed(module):
            continue
        runnable = manifest.precisions(candidate)
        if module == _WITHOUT_INT8:
            runnable = tuple(held for held in reversed(runnable) if held != "int8")
            if not runnable or precision == "int8":
                instead = f"take precision {runnable[0]}" if runnable else "export the bundle with --fp32"
                raise MissingExtraError(
                    "tflite-runtime cannot run int8 graphs, of which its kernels make wrong numbers:"
                    f' {instead}, or install ai-edge-litert (pip install "qa-edge-runtime[tflite]")'
                )
        return EngineChoice(candidate, precision or runnable[0])
    needing = f"this bundle's graph for {wanted} needs" if wanted else "this bundle needs"
    raise MissingExtraError(f"{needing} {', or '.join(_NEEDS[candidate] for candidate in candidates)}")


def open_engine(
    bundle: Bundle, role: str, *, engine: str | None = None, precision: str | None = None, threads: int = 1
) -> Engine:
    """Load one of a bundle's graphs.

    :param role: "token" or "core"; an engine's token graph serves its core graphs of all precisions.
    :param engine: as for `choose_engine`, and `precision` too.
    :raises InputError: if `threads` is not from 1 to 64, or as `choose_engine`.
    :raises BundleError: if the graph is not as the manifest declares it.
    :raises EngineError: if the engine refuses the graph.
    :raises MissingExtraError: if no engine is installed that would do.
    """
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads!r:.40}, expected a whole number from 1 to {MAX_THREADS}")
    choice = choose_engine(bundle, engine=engine, precision=precision)
    spec = bundle.manifest.graph(role, choice.engine, choice.precision if role == "core" else None)
    model = bundle.graph_bytes(spec)
    try:
        return load_engine(model, spec, threads=threads)
    except (BundleError, EngineError) as error:
        raise type(error)(f"bundle {bundle.path}: {error}") from error


def load_engine(model: bytes, spec: GraphSpec, *, threads: int = 1) -> Engine:
    """Load a graph that is in no bundle yet into the engine that it was written for.

    :param model: the graph's bytes.
    :raises BundleError: if the graph is not as the spec declares it.
    :raises EngineError: if the engine refuses the graph.
    :raises MissingExtraError: if the engine is not installed.
    """
    engine_class: type[OnnxEngine] | type[TfliteEngine] = OnnxEngine if spec.engine == "onnx" else TfliteEngine
    return engine_class(model, spec, threads=threads)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # something in the way of it, which says that it is not to be had
        return False
