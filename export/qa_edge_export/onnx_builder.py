"""Writes an ONNX graph node by node: stable names, each constant stored once however often it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qa_edge_export.quantise import to_half

# LayerNormalization came with opset 17, which is of IR version 8: ONNX Runtime reads both from 1.12 on.
OPSET = 17
IR_VERSION = 8
MICROSOFT = "com.microsoft"
DTYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


# Smaller constants (biases, gains) take little room.
HALF_FROM = 1024


class GraphBuilder:
    """A graph in the making. A value is the name of a tensor in it.

    :param half: store the larger float32 constants in 16 bits; the engine turns them back when it loads the graph.
    :ivar observed: values by the noun that a layer gave them with `observe`.
    """

    def __init__(self, name: str, *, half: bool = False) -> None:
        self.observed: dict[str, str] = {}
        self._name = name
        self._half = half
        self._scopes: list[str] = []
        self._counts: Counter[str] = Counter()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, np.ndarray] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name/` before the names of the nodes that are made inside."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def path(self, name: str) -> str:
        """`name` with the scopes around it."""
        return "/".join([*self._scopes, name])

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input of the graph; an axis of no fixed size is a word."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def output(self, name: str, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare an output of the graph: the value `value`, under the name `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))

    def constant(self, value: Any, name: str, dtype: str | None = None) -> str:
        """A constant of the graph under a name of its own.

        :raises ValueError: if the name stands for another value already.
        """
        array = np.asarray(value, dtype=dtype)
        known = self._initializers.setdefault(name, array)
        if known is not array and (known.shape != array.shape or not np.array_equal(known, array)):
            raise ValueError(f"the constant {name} was given two values")
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator and return its one output; an operator of `MICROSOFT` is given `domain`."""
        return self.nodes(operator, *inputs, outputs=1, **attributes)[0]

    def nodes(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Append an operator of several outputs."""
        path = self.path(operator)
        self._counts[path] += 1
        name = path if self._counts[path] == 1 else f"{path}.{self._counts[path]}"
        values = [name, *(f"{name}:{number}" for number in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), values, name=name, **attributes))
        return values

    def observe(self, name: str, value: str) -> str:
        """Remember a value that calibration looks at, under the scopes' path, and return it."""
        self.observed[self.path(name)] = value
        return value

    def build(self, extra_outputs: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The finished model, checked.

        :param extra_outputs: float32 values to give out beside the declared ones, by name.
        :raises onnx.checker.ValidationError: if a layer was written wrongly.
        """
        nodes, outputs = list(self._nodes), list(self._outputs)
        for name, value in (extra_outputs or {}).items():
            nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        initializers, casts = [], []
        for name, array in self._initializers.items():
            if self._half and array.dtype == np.float32 and array.size >= HALF_FROM:
                stored = f"{name}.half"
                initializers.append(numpy_helper.from_array(to_half(array, name), stored))
                casts.append(helper.make_node("Cast", [stored], [name], name=f"cast/{name}", to=TensorProto.FLOAT))
            else:
                initializers.append(numpy_helper.from_array(array, name))
        nodes = casts + nodes
        graph = helper.make_graph(nodes, self._name, self._inputs, outputs, initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, producer_name="qa-edge", opset_imports=opsets)
        model.ir_version = IR_VERSION
        if extra_outputs:  # of shapes that are not declared, which the checker does not pass
            return model
        onnx.checker.check_model(model, full_check=not any(node.domain == MICROSOFT for node in nodes))
        return model
