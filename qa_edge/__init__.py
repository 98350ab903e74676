"""qa-edge: distil an extractive question answerer into a small QANet, export it, measure it.

    >>> from pathlib import Path
    >>> import qa_edge
    >>> example = Path(qa_edge.__file__).parent / "example" / "dev.json"
    >>> report = qa_edge.check_squad(qa_edge.read_squad(example))
    >>> report.questions, report.misplaced
    (52, 0)

The steps are `qa_edge.prepare`, `qa_edge.labels`, `qa_edge.distill` and `qa_edge_export`; a device needs
`qa_edge_runtime` alone. What is named here loads when it is first used, torch with it where it must.
"""

from __future__ import annotations

# Not typing's: what runs before the program can catch Ctrl-C is kept short.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qa_edge.check import check_squad
    from qa_edge.features import Features
    from qa_edge.labels import Labels
    from qa_edge.squad import Squad, read_squad
    from qa_edge.teacher import Teacher
    from qa_edge.trained import TrainedStudent
    from qa_edge_runtime.errors import QaEdgeError

__all__ = ["Features", "Labels", "QaEdgeError", "Squad", "Teacher", "TrainedStudent", "check_squad", "read_squad"]

_HOMES = {
    "Features": "qa_edge.features",
    "Labels": "qa_edge.labels",
    "QaEdgeError": "qa_edge_runtime.errors",
    "Squad": "qa_edge.squad",
    "Teacher": "qa_edge.teacher",
    "TrainedStudent": "qa_edge.trained",
    "check_squad": "qa_edge.check",
    "read_squad": "qa_edge.squad",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
