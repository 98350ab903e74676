"""A bundle of a few nodes with the tensor names of format 1: its logits can be worked out in plain numpy."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qa_edge_runtime.bundle import GraphSpec, Manifest, TableSpec, TensorSpec, write_bundle

HIDDEN = 6
COLUMNS = 4
WIDTH = 16
WORDS = ("where", "is", "the", "main", "switch", "panel", "behind", "grey", "Paris")
CHARACTERS = tuple("abcdefghijklmnopqrstuvwxyz.")

_RANDOM = np.random.default_rng(7)
TABLE = _RANDOM.normal(size=(len(WORDS) + 1, COLUMNS)).astype(np.float16)
PROJECTION = _RANDOM.normal(size=(COLUMNS, HIDDEN)).astype(np.float32)
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
CASES = [
    {"question": "Where is the main switch?", "context": "The main switch is behind the grey panel."},
    {"question": "What is grey?", "context": "The panel in the hall is grey, the switch is not."},
]


def token_graph(*, hidden: int = HIDDEN, state_type: int = TensorProto.FLOAT) -> bytes:
    """states = word_vectors @ PROJECTION + mean over the width of CHARACTER_TABLE[character_ids]."""
    nodes = [
        helper.make_node("MatMul", ["word_vectors", "projection"], ["projected"]),
        helper.make_node("Gather", ["characters", "character_ids"], ["gathered"]),
        helper.make_node("ReduceMean", ["gathered"], ["feature"], axes=[1], keepdims=0),
        helper.make_node("Add", ["projected", "feature"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["states"], to=state_type),
    ]
    inputs = [
        helper.make_tensor_value_info("word_vectors", TensorProto.FLOAT, ["tokens", COLUMNS]),
        helper.make_tensor_value_info("character_ids", TensorProto.INT64, ["tokens", WIDTH]),
    ]
    outputs = [helper.make_tensor_value_info("states", state_type, ["tokens", hidden])]
    weights = [
        numpy_helper.from_array(PROJECTION[:, :hidden], "projection"),
        numpy_helper.from_array(CHARACTER_TABLE[:, :hidden], "characters"),
    ]
    return _model(nodes, inputs, outputs, weights)


def core_graph(*, end_name: str = "end_logits", scale: float = 1.0) -> bytes:
    """start_logits = context @ mean(question); end_logits = (context @ END) @ mean(question)."""
    nodes = [
        helper.make_node("ReduceMean", ["question"], ["unscaled"], axes=[0], keepdims=0),
        helper.make_node("Mul", ["unscaled", "scale"], ["asked"]),
        helper.make_node("MatMul", ["context", "asked"], ["start_logits"]),
        helper.make_node("MatMul", ["context", "end"], ["turned"]),
        helper.make_node("MatMul", ["turned", "asked"], [end_name]),
    ]
    inputs = [
        helper.make_tensor_value_info("context", TensorProto.FLOAT, ["context_tokens", HIDDEN]),
        helper.make_tensor_value_info("question", TensorProto.FLOAT, ["question_tokens", HIDDEN]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["context_tokens"])
        for name in ("start_logits", end_name)
    ]
    weights = [numpy_helper.from_array(END, "end"), numpy_helper.from_array(np.float32(scale), "scale")]
    return _model(nodes, inputs, outputs, weights)


def graph_specs() -> dict[str, GraphSpec]:
    def tensor(name: str, dtype: str, *shape: int | str) -> TensorSpec:
        return TensorSpec(name=name, shape=shape, dtype=dtype)

    return {
        "token": GraphSpec(
            file="token.onnx",
            inputs=(
                tensor("word_vectors", "float32", "tokens", COLUMNS),
                tensor("character_ids", "int64", "tokens", WIDTH),
            ),
            outputs=(tensor("states", "float32", "tokens", HIDDEN),),
        ),
        "core": GraphSpec(
            file="core.onnx",
            inputs=(
                tensor("context", "float32", "context_tokens", HIDDEN),
                tensor("question", "float32", "question_tokens", HIDDEN),
            ),
            outputs=(
                tensor("start_logits", "float32", "context_tokens"),
                tensor("end_logits", "float32", "context_tokens"),
            ),
        ),
    }


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def tiny_files() -> dict[str, bytes]:
    vocabulary = {"format_version": 1, "words": WORDS, "characters": CHARACTERS}
    return {
        "tokenizer.json": json.dumps(TOKENIZER).encode(),
        "vocabulary.json": json.dumps(vocabulary).encode(),
        "cases.json": json.dumps(CASES).encode(),
        "vectors.npy": npy(TABLE),
        "token.onnx": token_graph(),
        "core.onnx": core_graph(),
    }


def write_tiny_bundle(path: Path, *, files: dict[str, bytes] | None = None, **fields: Any) -> Manifest:
    """A whole bundle; `files` replace those of the same name, `fields` the manifest's."""
    return write_bundle(
        path,
        {**tiny_files(), **(files or {})},
        **{
            "graphs": graph_specs(),
            "table": TableSpec(file="vectors.npy", shape=TABLE.shape, dtype="float16"),
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
