"""A bundle of a few nodes with the tensor names of format 2: its logits can be worked out in plain numpy."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qa_edge_runtime.bundle import GraphSpec, Manifest, TableSpec, TensorSpec, write_bundle
from qa_edge_runtime.table import quantise_rows

HIDDEN = 6
WIDTH = 16
WORDS = ("where", "is", "the", "main", "switch", "panel", "behind", "grey", "Paris")
CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyz.")

_RANDOM = np.random.default_rng(7)
# States of the words, row 0 zeros; others than the token graph would give, so that a test sees which of them it got.
TABLE = np.vstack([np.zeros(HIDDEN), _RANDOM.normal(size=(len(WORDS), HIDDEN))]).astype(np.float32)
UNKNOWN = _RANDOM.normal(size=HIDDEN).astype(np.float32)
CHARACTER_TABLE = _RANDOM.normal(size=(len(CHARACTERS) + 2, HIDDEN)).astype(np.float32)
END = _RANDOM.normal(size=(HIDDEN, HIDDEN)).astype(np.float32)

# Shaped as the tables that export writes for spaCy, but short enough to be checked by eye.
TOKENIZER = {
    "format_version": 1,
    "spacy_version": "3.8.0",
    "language": "en",
    "prefix": r"""^[("'\[]""",
    "suffix": r"""[)"'\].,?!]$""",
    "infix": r"(?<=[a-z])-(?=[a-z])",
    "url": None,
    "token_match": None,
    "exceptions": {"can't": ["ca", "n't"], ":)": [":)"]},
}
QUESTION = "Where is the main switch?"
CONTEXT = "The main switch is behind the grey panel. The panel is in the hall, next to the stairs."
CASES = [
    {"question": "Where is the main switch?", "context": "The main switch is behind the grey panel."},
    {"question": "What is grey?", "context": "The panel in the hall is grey, the switch is not."},
]


def token_graph(*, hidden: int = HIDDEN, state_type: int = TensorProto.FLOAT) -> bytes:
    """states = UNKNOWN + mean over the width of CHARACTER_TABLE[character_ids]."""
    nodes = [
        helper.make_node("Gather", ["characters", "character_ids"], ["gathered"]),
        helper.make_node("ReduceMean", ["gathered"], ["feature"], axes=[1], keepdims=0),
        helper.make_node("Add", ["feature", "unknown"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["states"], to=state_type),
    ]
    inputs = [helper.make_tensor_value_info("character_ids", TensorProto.INT32, ["tokens", WIDTH])]
    outputs = [helper.make_tensor_value_info("states", state_type, ["tokens", hidden])]
    weights = [
        numpy_helper.from_array(CHARACTER_TABLE[:, :hidden], "characters"),
        numpy_helper.from_array(UNKNOWN[:hidden], "unknown"),
    ]
    return _model(nodes, inputs, outputs, weights)


def core_inputs(context_tokens: int, question_tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a core graph, by name."""
    random = np.random.default_rng(seed)
    sizes = {"context": context_tokens, "question": question_tokens}
    return {
        name: random.normal(size=(sizes[name.partition("_")[0]], HIDDEN)).astype(np.float32)
        for name in ("context", "question", "context_position", "question_position")
    }


def core_graph(*, end_name: str = "end_logits", scale: float = 1.0) -> bytes:
    """c = context + context_position, q likewise: start_logits = c @ mean(q); end_logits = (c @ END) @ mean(q)."""
    nodes = [
        helper.make_node("Add", ["question", "question_position"], ["placed"]),
        helper.make_node("ReduceMean", ["placed"], ["unscaled"], axes=[0], keepdims=0),
        helper.make_node("Mul", ["unscaled", "scale"], ["asked"]),
        helper.make_node("Add", ["context", "context_position"], ["read"]),
        helper.make_node("MatMul", ["read", "asked"], ["start_logits"]),
        helper.make_node("MatMul", ["read", "end"], ["turned"]),
        helper.make_node("MatMul", ["turned", "asked"], [end_name]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name.partition('_')[0]}_tokens", HIDDEN])
        for name in ("context", "question", "context_position", "question_position")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["context_tokens"])
        for name in ("start_logits", end_name)
    ]
    weights = [numpy_helper.from_array(END, "end"), numpy_helper.from_array(np.float32(scale), "scale")]
    return _model(nodes, inputs, outputs, weights)


def graph_spec(role: str, engine: str = "onnx", precision: str = "fp32") -> GraphSpec:
    """As export declares a graph; its file is named as the format's documentation names it."""

    def tensor(name: str, dtype: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, shape=shape, dtype=dtype)

    if role == "token":
        inputs = [tensor("character_ids", "int32", "tokens", WIDTH)]
        outputs = [tensor("states", "float32", "tokens", HIDDEN)]
    else:
        sides = ("context", "question", "context_position", "question_position")
        inputs = [tensor(name, "float32", f"{name.partition('_')[0]}_tokens", HIDDEN) for name in sides]
        outputs = [tensor(f"{end}_logits", "float32", "context_tokens") for end in ("start", "end")]
    file = f"token.{engine}" if role == "token" else f"core.{precision}.{engine}"
    return GraphSpec(
        role=role, engine=engine, precision=precision, file=file, inputs=tuple(inputs), outputs=tuple(outputs)
    )


def graph_specs(**precisions: Sequence[str]) -> list[GraphSpec]:
    """Core graphs of each engine in these precisions, and a token graph each: `graph_specs(onnx=["fp32", "int8"])`."""
    specs = []
    for engine, several in precisions.items():
        specs += [graph_spec("core", engine, precision) for precision in several]
        specs.append(graph_spec("token", engine))
    return specs


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def table_files(dtype: str, group_size: int) -> dict[str, bytes]:
    rows, scales = quantise_rows(TABLE, dtype, group_size)
    return {"table.npy": npy(rows), **({} if scales is None else {"table_scales.npy": npy(scales)})}


def table_spec(dtype: str, group_size: int) -> TableSpec:
    scales_file = "table_scales.npy" if dtype in ("int8", "int4") else None
    return TableSpec(dtype=dtype, scales_file=scales_file, rows=len(TABLE), hidden=HIDDEN, group_size=group_size)


def tiny_files(dtype: str = "int8", group_size: int = 3) -> dict[str, bytes]:
    vocabulary = {"format_version": 1, "words": WORDS, "characters": CHARACTERS}
    return {
        "tokenizer.json": json.dumps(TOKENIZER).encode(),
        "vocabulary.json": json.dumps(vocabulary).encode(),
        "cases.json": json.dumps(CASES).encode(),
        **table_files(dtype, group_size),
        "token.onnx": token_graph(),
        "core.fp32.onnx": core_graph(),
    }


def write_tiny_bundle(
    path: Path,
    *,
    files: dict[str, bytes] | None = None,
    dtype: str = "int8",
    group_size: int = 3,
    **fields: Any,
) -> Manifest:
    """A whole bundle; `files` replace those of the same name or are added, `fields` replace the manifest's."""
    return write_bundle(
        path,
        {**tiny_files(dtype, group_size), **(files or {})},
        **{
            "graphs": graph_specs(onnx=["fp32"]),
            "table": table_spec(dtype, group_size),
            "student": {"hidden": HIDDEN},
            "qa_edge_version": "0.1.0",
            "spacy_version": "3.8.0",
            "max_answer_tokens": 5,
            "licences": {"data": "none"},
            **fields,
        },
    )


def _model(nodes: list, inputs: list, outputs: list, weights: list) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
