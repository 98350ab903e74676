"""Writes a TFLite graph operator by operator: stable names, open lengths, each weight stored once.

Made on the classes that flatc generates from TensorFlow Lite's schema (schema.fbs), which ai-edge-litert brings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_edge_export.quantise import quantise_weight, to_half
from qa_edge_runtime.errors import MissingExtraError
from qa_edge_runtime.manifest import TensorSpec

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    raise MissingExtraError('TFLite export needs: pip install "qa-edge[tflite]"') from error

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
# The schema says force_align: 16 for the data of buffers, which flatc's Python does not carry out.
BUFFER_ALIGNMENT = 16
NO_TENSOR = -1
PRECISIONS = ("fp32", "fp16", "int8")

DTYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
}
# Table of options of each operator that has one; its class in the schema has a T behind the name.
OPTIONS: Mapping[str, str] = {
    "ADD": "AddOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPLIT": "SplitOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
RELU = schema.ActivationFunctionType.RELU
VALID = schema.Padding.VALID
SAME = schema.Padding.SAME

Shape = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What int8 numbers of a tensor stand for: (number - zero) * step."""

    step: float
    zero: int = 0


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of the graph; an axis of no fixed size is a word. int8 where there is a scale, else float32 or int32."""

    number: int
    shape: Shape
    scale: Scale | None = None


class GraphBuilder:
    """A graph in the making.

    :param precision: how the arrays of `matrix` and `filter` are stored: "fp32"; "fp16", and made float32 again when
        the graph is loaded; "int8", matrices alone.
    """

    def __init__(self, name: str, precision: str = "fp32") -> None:
        self.precision = precision
        self._name = name
        self._scopes: list[str] = []
        self._counts: Counter[str] = Counter()
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # the first stands for "no data"
        self._codes: dict[tuple[str, int], int] = {}
        self._operators: list[Any] = []
        self._constants: dict[str, tuple[np.ndarray, Value]] = {}
        self._widened: dict[str, Value] = {}
        self._inputs: dict[str, Value] = {}
        self._outputs: dict[str, Value] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name/` before the names of the operators that are made inside."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def input(self, name: str, dtype: str, shape: Shape) -> Value:
        """Declare an input of the graph."""
        self._inputs[name] = self._tensor(name, dtype, shape)
        return self._inputs[name]

    def output(self, name: str, value: Value) -> None:
        """Declare an output of the graph: the value, which takes the name."""
        self._tensors[value.number].name = name
        self._outputs[name] = value

    def constant(self, array: np.ndarray, name: str) -> Value:
        """A constant under a name of its own; asked for twice it is still stored once. float64 becomes float32.

        :raises ValueError: if the name stands for another value already.
        """
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        known, value = self._constants.get(name, (None, None))
        if known is None:
            value = self._tensor(name, array.dtype.name, array.shape, data=array)
            self._constants[name] = array, value
        elif known.shape != array.shape or not np.array_equal(known, array):
            raise ValueError(f"the constant {name} was given two values")
        assert value is not None
        return value

    def matrix(self, array: np.ndarray, name: str) -> Value:
        """The weight of a dense layer, shape (out, in), stored in the graph's precision."""
        if self.precision == "int8":
            return self.int8_matrix(array, name)
        return self.filter(array, name)

    def int8_matrix(self, array: np.ndarray, name: str) -> Value:
        """A matrix as int8 with a step for each row (output) and no zero points; see `quantise_weight`."""
        numbers, steps = quantise_weight(array)
        return self._scaled(self.constant(numbers, name), steps)

    def int32_bias(self, array: np.ndarray, steps: np.ndarray, name: str) -> Value:
        """A bias as int32 for products of integers, whose step at each output is given."""
        return self._scaled(self.constant(np.round(array / steps).astype(np.int32), name), steps)

    def filter(self, array: np.ndarray, name: str) -> Value:
        """The weight of a convolution or a table of vectors, in float16 or float32.

        There are few of these numbers, so that int8 would save nothing here.
        """
        if self.precision != "fp16":
            return self.constant(array, name)
        stored = self.constant(to_half(array, name), name)
        if name not in self._widened:
            self._widened[name] = self.node("DEQUANTIZE", stored, shape=stored.shape, version=3)
        return self._widened[name]

    def path(self, name: str) -> str:
        """`name` with the scopes around it."""
        return "/".join([*self._scopes, name])

    def node(self, operator: str, *inputs: Value | None, shape: Shape, **settings: Any) -> Value:
        """Append an operator of one output and return that; see `nodes`."""
        return self.nodes(operator, *inputs, shapes=[shape], **settings)[0]

    def nodes(
        self,
        operator: str,
        *inputs: Value | None,
        shapes: Sequence[Shape],
        scale: Scale | None = None,
        version: int = 1,
        **options: Any,
    ) -> list[Value]:
        """Append an operator and return its outputs; None stands for an optional input left out.

        :param scale: the outputs are int8 with this scale; without one they are float32.
        :param version: the operator's version, which tells a runtime that is too old for it.
        :param options: fields of the operator's table of options.
        :raises ValueError: if the operator has no such option.
        """
        path = self.path(operator)
        self._counts[path] += 1
        name = path if self._counts[path] == 1 else f"{path}.{self._counts[path]}"
        outputs = [
            self._tensor(name if place == 0 else f"{name}:{place}", "int8" if scale else "float32", shape, scale=scale)
            for place, shape in enumerate(shapes)
        ]
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault((operator, version), len(self._codes))
        made.inputs = [NO_TENSOR if tensor is None else tensor.number for tensor in inputs]
        made.outputs = [value.number for value in outputs]
        if operator in OPTIONS:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[operator])
            made.builtinOptions = getattr(schema, f"{OPTIONS[operator]}T")()
        for option, setting in options.items():
            if not hasattr(made.builtinOptions, option):
                raise ValueError(f"the operator {operator} has no option {option}")
            setattr(made.builtinOptions, option, setting)
        self._operators.append(made)
        return outputs

    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The inputs and the outputs as a bundle's manifest declares them."""
        dtypes = {number: name for name, number in DTYPES.items()}
        inputs, outputs = (
            tuple(
                TensorSpec(name=name, shape=value.shape, dtype=dtypes[self._tensors[value.number].type])
                for name, value in side.items()
            )
            for side in (self._inputs, self._outputs)
        )
        return inputs, outputs

    def build(self) -> bytes:
        """The finished file."""
        graph = schema.SubGraphT(name=self._name, tensors=self._tensors, operators=self._operators)
        graph.inputs = [value.number for value in self._inputs.values()]
        graph.outputs = [value.number for value in self._outputs.values()]
        model = schema.ModelT(version=SCHEMA_VERSION, description="qa-edge", subgraphs=[graph], buffers=self._buffers)
        model.operatorCodes = [_operator_code(operator, version) for operator, version in self._codes]
        signature = schema.SignatureDefT(signatureKey=SIGNATURE, subgraphIndex=0)
        signature.inputs = _tensor_map(self._inputs)
        signature.outputs = _tensor_map(self._outputs)
        model.signatureDefs = [signature]
        file = _AligningBuilder(1 << 20)
        file.Finish(model.Pack(file), FILE_IDENTIFIER)
        return bytes(file.Output())

    def _scaled(self, value: Value, steps: np.ndarray) -> Value:
        self._tensors[value.number].quantization = _quantization(steps.tolist(), 0)
        return value

    def _tensor(
        self, name: str, dtype: str, shape: Shape, *, data: np.ndarray | None = None, scale: Scale | None = None
    ) -> Value:
        tensor = schema.TensorT(name=name, type=DTYPES[dtype], buffer=0)
        if scale is not None:
            tensor.quantization = _quantization([scale.step], scale.zero)
        # Shapes are known when a runtime has been told the inputs' (resize_tensor_input); until then one token each.
        tensor.shape = [1 if isinstance(size, str) else size for size in shape]
        if tensor.shape != list(shape):
            tensor.shapeSignature = [-1 if isinstance(size, str) else size for size in shape]
        if data is not None:
            little_endian = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
            tensor.buffer = len(self._buffers)
            self._buffers.append(schema.BufferT(data=np.frombuffer(little_endian.tobytes(), np.uint8)))
        self._tensors.append(tensor)
        return Value(number=len(self._tensors) - 1, shape=tuple(shape), scale=scale)


class _AligningBuilder(flatbuffers.Builder):
    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """The data of a buffer, its first byte at a multiple of `BUFFER_ALIGNMENT`."""
        self.Prep(BUFFER_ALIGNMENT, x.nbytes)
        return int(super().CreateNumpyVector(x))


def _operator_code(operator: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, operator)
    # The field of old files holds one byte; what does not fit there is 127.
    return schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)


def _quantization(steps: list[float], zero: int) -> Any:
    return schema.QuantizationParametersT(scale=steps, zeroPoint=[zero] * len(steps), quantizedDimension=0)


def _tensor_map(values: Mapping[str, Value]) -> Sequence[Any]:
    return [schema.TensorMapT(name=name, tensorIndex=value.number) for name, value in values.items()]
