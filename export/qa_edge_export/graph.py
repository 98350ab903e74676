"""A graph on its way into a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from qa_edge_runtime.manifest import GraphSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A graph as it goes into a bundle: its bytes and the tensors that it takes and gives."""

    content: bytes
    spec: GraphSpec
