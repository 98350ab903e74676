"""The trained bundle that qa-edge ships, as a file that a runtime opens where it lies.

    >>> import qa_edge_models
    >>> from qa_edge_runtime import Answerer
    >>> context = "The main switch is behind the grey panel."
    >>> with Answerer.load(qa_edge_models.path()) as answerer:
    ...     answer = answerer.answer("Where is the main switch?", context)
    >>> context[answer.start : answer.end] == answer.text
    True

`Answerer.load()` without a path does the same. Nothing is imported here but the standard library.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"
__all__ = ["path"]


def path() -> Path:
    """Folder of the bundle: int8 graphs for LiteRT and ONNX Runtime, with its conformance cases."""
    return Path(__file__).resolve().with_name("edge.qab")
