"""The graphs of `tiny_bundle` as TFLite files, written with the official schema classes; needs ai_edge_litert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tiny_bundle import CHARACTER_TABLE, END, HIDDEN, UNKNOWN, WIDTH

TYPES = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32, "int64": schema.TensorType.INT64}
OPERATOR = schema.BuiltinOperator


class TinyWriter:
    """One subgraph, its tensors by number; the first axis of inputs and results is open where `signature` says so."""

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.buffers = [schema.BufferT()]
        self.codes: list[int] = []

    def tensor(
        self, shape: Sequence[int], dtype: str = "float32", data: np.ndarray | None = None, opened: bool = True
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        tensor.shape, tensor.type, tensor.buffer = list(shape), TYPES[dtype], 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype=dtype).tobytes(), dtype=np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        elif opened:
            tensor.shapeSignature = [-1, *shape[1:]]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, data: Any, dtype: str = "float32") -> int:
        array = np.asarray(data, dtype=dtype)
        return self.tensor(array.shape, dtype, array)

    def operator(self, name: str, inputs: Sequence[int], shape: Sequence[int], **settings: Any) -> int:
        """One operator with one result; its options class is named after it."""
        code = getattr(OPERATOR, name)
        if code not in self.codes:
            self.codes.append(code)
        kind = {"MEAN": "Reducer", "BATCH_MATMUL": "BatchMatMul"}.get(name, name.title()) + "Options"
        options = getattr(schema, kind + "T")()
        for setting, value in settings.items():
            setattr(options, setting, value)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs = self.codes.index(code), list(inputs)
        operator.outputs = [self.tensor(shape)]
        operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, kind), options
        self.graph.operators.append(operator)
        return operator.outputs[0]

    def model(self, inputs: dict[str, int], outputs: dict[str, int], signature: str = "serving_default") -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())
        definition = schema.SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = signature.encode(), 0
        definition.inputs, definition.outputs = _names(inputs), _names(outputs)
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [self.graph], self.buffers
        model.signatureDefs, model.operatorCodes = [definition], []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def token_tflite(*, hidden: int = HIDDEN, dtype: str = "int32", opened: bool = True) -> bytes:
    """`tiny_bundle.token_graph`."""
    writer = TinyWriter()
    ids = writer.tensor([1, WIDTH], dtype, opened=opened)
    table = writer.constant(CHARACTER_TABLE[:, :hidden])
    gathered = writer.operator("GATHER", [table, ids], [1, WIDTH, hidden], axis=0)
    feature = writer.operator("MEAN", [gathered, writer.constant([1], "int32")], [1, hidden], keepDims=False)
    states = writer.operator("ADD", [feature, writer.constant(UNKNOWN[:hidden])], [1, hidden])
    return writer.model({"character_ids": ids}, {"states": states})


def core_tflite(*, end_name: str = "end_logits", scale: float = 1.0, signature: str = "serving_default") -> bytes:
    """`tiny_bundle.core_graph`."""
    writer = TinyWriter()
    names = ("context", "question", "context_position", "question_position")
    inputs = {name: writer.tensor([1, HIDDEN]) for name in names}
    placed = writer.operator("ADD", [inputs["question"], inputs["question_position"]], [1, HIDDEN])
    unscaled = writer.operator("MEAN", [placed, writer.constant([0], "int32")], [1, HIDDEN], keepDims=True)
    asked = writer.operator("MUL", [unscaled, writer.constant([[scale]])], [1, HIDDEN])
    read = writer.operator("ADD", [inputs["context"], inputs["context_position"]], [1, HIDDEN])
    turned = writer.operator("BATCH_MATMUL", [read, writer.constant(END)], [1, HIDDEN])
    outputs = {}
    for name, side in (("start_logits", read), (end_name, turned)):
        column = writer.operator("BATCH_MATMUL", [side, asked], [1, 1], adjY=True)
        outputs[name] = writer.operator("RESHAPE", [column, writer.constant([-1], "int32")], [1], newShape=[-1])
    return writer.model(inputs, outputs, signature)


def _names(tensors: dict[str, int]) -> list[Any]:
    entries = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        entries.append(entry)
    return entries
