"""Writes an ONNX graph node by node: stable names, each weight stored once under its name in the checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# LayerNormalization came with opset 17, which is of IR version 8: ONNX Runtime reads both from 1.12 on.
OPSET = 17
IR_VERSION = 8
DTYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class GraphBuilder:
    """A graph in the making. A value is the name of a tensor in it.

    :param arrays: the weights that `weight` finds by name.
    """

    def __init__(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self._name = name
        self._arrays = arrays
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

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input of the graph; an axis of no fixed size is a word."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def output(self, name: str, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare an output of the graph: the value `value`, under the name `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))

    def weight(self, name: str, shape: Sequence[int] | None = None) -> str:
        """An array of the checkpoint, in another shape if one is given; asked for twice it is still stored once."""
        array = self._arrays[name]
        return self.constant(array if shape is None else array.reshape(shape), name)

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
        """Append an operator and return its one output."""
        path = "/".join([*self._scopes, operator])
        self._counts[path] += 1
        name = path if self._counts[path] == 1 else f"{path}.{self._counts[path]}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def build(self) -> onnx.ModelProto:
        """The finished model, checked.

        :raises onnx.checker.ValidationError: if a layer was written wrongly.
        """
        initializers = [numpy_helper.from_array(array, name) for name, array in self._initializers.items()]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)
        model = helper.make_model(graph, producer_name="qa-edge", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model
