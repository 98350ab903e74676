"""Graphs of a bundle: their roles, engines and precisions, and the tensors that each role takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from qa_edge_runtime.entries import (
    MAX_CHARACTERS,
    MAX_HIDDEN,
    check_figures,
    check_plain_name,
    expect,
    expect_known,
    expect_one_of,
    list_names,
    printable,
)
from qa_edge_runtime.errors import BundleError

ROLES = ("core", "token")
ENGINES = ("onnx", "tflite")
PRECISIONS = ("int8", "fp16", "fp32")

# Name -> (dtype, rank) of every tensor that the runtime binds, the same for each engine. A first axis counts tokens and
# has no fixed size.
GRAPH_INPUTS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "token": {"character_ids": ("int32", 2)},
    "core": {
        "context": ("float32", 2),
        "question": ("float32", 2),
        "context_position": ("float32", 2),
        "question_position": ("float32", 2),
    },
}
GRAPH_OUTPUTS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "token": {"states": ("float32", 2)},
    "core": {"start_logits": ("float32", 1), "end_logits": ("float32", 1)},
}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of a graph's input or output; an axis of no fixed size is a word, such as "tokens"."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """A graph: its file, the engine and precision it was written for, and the tensors that it takes and gives.

    :ivar role: "core" or "token".
    :ivar engine: "onnx" or "tflite".
    :ivar precision: "fp32", "fp16" or "int8".
    :ivar verification: what export found when it compared this graph with the trained student.
    :raises BundleError: if the tensors are not those of the role.
    """

    role: str
    engine: str
    precision: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    verification: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry, known in (("role", ROLES), ("engine", ENGINES), ("precision", PRECISIONS)):
            expect_one_of(getattr(self, entry), known, f"a graph's {entry}")
        check_plain_name(self.file)
        _check_tensors(self.role, "input", self.inputs, GRAPH_INPUTS[self.role])
        _check_tensors(self.role, "output", self.outputs, GRAPH_OUTPUTS[self.role])
        check_figures("verification", self.verification)

    def tensor(self, name: str) -> TensorSpec:
        """The declared input or output `name`; KeyError if there is none."""
        return {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}[name]


def parse_graph(entry: str, graph: Any) -> GraphSpec:
    """A graph out of a manifest's JSON.

    :param entry: where it stands, for messages: "graphs[0]".
    :raises BundleError: if an entry is missing or of another kind.
    """
    expect(graph, dict, entry)
    expect_known(graph, [one.name for one in fields(GraphSpec)], entry)
    inputs, outputs = (
        tuple(_tensor_spec(f"{entry}.{side}", tensor) for tensor in expect(graph.get(side), list, f"{entry}.{side}"))
        for side in ("inputs", "outputs")
    )
    return GraphSpec(
        **{key: graph.get(key) for key in ("role", "engine", "precision", "file")},
        inputs=inputs,
        outputs=outputs,
        verification=expect(graph.get("verification", {}), dict, f"{entry}.verification"),
    )


def _tensor_spec(entry: str, tensor: Any) -> TensorSpec:
    expect(tensor, dict, entry)
    expect_known(tensor, [one.name for one in fields(TensorSpec)], entry)
    shape = expect(tensor.get("shape"), list, f"{entry}.shape")
    return TensorSpec(
        name=expect(tensor.get("name"), str, f"{entry}.name"),
        shape=tuple(shape),
        dtype=expect(tensor.get("dtype"), str, f"{entry}.dtype"),
    )


def _check_tensors(
    role: str, side: str, declared: tuple[TensorSpec, ...], expected: Mapping[str, tuple[str, int]]
) -> None:
    found = {tensor.name: tensor for tensor in declared}
    if set(found) != set(expected) or len(found) != len(declared):
        names = list_names(sorted(tensor.name for tensor in declared))
        raise BundleError(f"the {role} graph has the {side}s {names}; expected {', '.join(expected)}")
    for name, (dtype, rank) in expected.items():
        tensor = found[name]
        most = MAX_CHARACTERS if name == "character_ids" else MAX_HIDDEN
        fixed = all(type(size) is int and 1 <= size <= most for size in tensor.shape[1:])
        if tensor.dtype != dtype or len(tensor.shape) != rank or not isinstance(tensor.shape[0], str) or not fixed:
            raise BundleError(
                f"the {role} graph's {side} {name} is {printable(tensor.dtype):.20} {list(tensor.shape)!s:.80};"
                f" expected {dtype} with {rank} axes, the first of any size"
                + (f", the other up to {most}" if rank > 1 else "")
            )
