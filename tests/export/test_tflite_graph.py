"""The TFLite graphs give the numbers of the form they were written from, at any length, in every precision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from form_reference import core_logits, token_states
from random_student import arrays_of, random_student, tiny_config

from qa_edge.student.config import StudentConfig, preset_config
from qa_edge_export.checkpoint import StudentSizes, array_shapes
from qa_edge_export.graph import Graph
from qa_edge_export.inference_form import InferenceForm, TokenForm, fold_norms, inference_form, merge_attention
from qa_edge_export.inference_form import token_form as make_token_form
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.positions import position_signal
from qa_edge_runtime.tflite_engine import TfliteEngine

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from qa_edge_export.tflite_graph import core_graph, token_graph

LENGTHS = [(1, 1), (2, 20), (7, 1), (384, 20), (50, 20), (7, 1)]
SIZES: list[dict[str, Any]] = [
    {},
    {"hidden": 32, "heads": 8},
    {"heads": 2, "encoder_convolutions": 0, "model_convolutions": 0},
    {"hidden": 24, "heads": 3, "model_blocks": 1, "encoder_kernel": 3},
]
STEPS = {
    "as trained": lambda form: form,
    "merged": merge_attention,
    "folded": lambda form: fold_norms(merge_attention(form)),
}


def sizes_of(config: StudentConfig) -> StudentSizes:
    return StudentSizes(**{name: getattr(config, name) for name in StudentSizes.__dataclass_fields__})


def small_form(seed: int = 0, **sizes: Any) -> InferenceForm:
    config = tiny_config(**sizes)
    return inference_form(sizes_of(config), arrays_of(random_student(config, seed)))


def small_token_form(**sizes: Any) -> TokenForm:
    config = tiny_config(**sizes)
    return make_token_form(sizes_of(config), arrays_of(random_student(config)))


def large_form(preset: str) -> InferenceForm:
    sizes, random = sizes_of(preset_config(preset, characters=100)), np.random.default_rng(0)
    arrays = {
        name: random.normal(size=shape, scale=0.1).astype(np.float32) for name, shape in array_shapes(sizes).items()
    }
    return fold_norms(merge_attention(inference_form(sizes, arrays)))


def states(form: InferenceForm, lengths: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng([seed, *lengths])
    return [random.normal(size=(tokens, form.sizes.hidden)).astype(np.float32) for tokens in lengths]


class Runner:
    """A core graph in the runtime's own engine."""

    def __init__(self, graph: Graph) -> None:
        self.engine = TfliteEngine(graph.content, graph.spec)

    def __call__(self, context: np.ndarray, question: np.ndarray) -> np.ndarray:
        inputs = {"context": context, "question": question}
        places = {f"{name}_position": position_signal(*values.shape) for name, values in inputs.items()}
        outputs = self.engine.run({**inputs, **places})
        return np.stack([outputs["start_logits"], outputs["end_logits"]])


def logits(run: Runner, form: InferenceForm) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits of the graph and of the form for each of the lengths."""
    pairs = []
    for lengths in LENGTHS:
        context, question = states(form, lengths)
        found = run(context, question)
        assert found.shape == (2, lengths[0])
        pairs.append((found, np.stack(core_logits(form, context, question))))
    return pairs


def largest_error(run: Runner, form: InferenceForm) -> float:
    """As a part of the largest logit of the same length."""
    return max(float(np.abs(found - expected).max() / np.abs(expected).max()) for found, expected in logits(run, form))


def typical_error(run: Runner, form: InferenceForm) -> float:
    """Root mean square of the worst length, as a part of the largest logit of all."""
    pairs = logits(run, form)
    scale = max(float(np.abs(expected).max()) for _, expected in pairs)
    return max(math.sqrt(np.square(found - expected).mean()) for found, expected in pairs) / scale


def attention_limits(form: InferenceForm, all_lengths: Sequence[tuple[int, int]] = LENGTHS) -> dict[str, float]:
    limits: Counter[str] = Counter()

    def observe(path: str, values: np.ndarray) -> None:
        limits[path] = max(limits[path], float(np.abs(values).max()))

    for lengths in all_lengths:
        core_logits(form, *states(form, lengths, seed=1), observe)
    return dict(limits)


def operators(content: bytes) -> Counter[str]:
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(content)
    return Counter(names[model.operatorCodes[made.opcodeIndex].builtinCode] for made in model.subgraphs[0].operators)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fp32_logits_are_those_of_the_form_at_any_length(sizes: dict[str, Any], step: str) -> None:
    form = STEPS[step](small_form(**sizes))
    assert largest_error(Runner(core_graph(form, precision="fp32", file="core.tflite")), form) < 1e-4


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_smaller_weights_stay_near_the_form(sizes: dict[str, Any]) -> None:
    """Tolerances are wide for int8, because a token of these students has few numbers to average over."""
    form = STEPS["folded"](small_form(**sizes))
    assert typical_error(Runner(core_graph(form, precision="fp16", file="core.tflite")), form) < 0.002
    assert typical_error(Runner(core_graph(form, precision="int8", file="core.tflite")), form) < 0.02
    static = core_graph(form, precision="int8", file="core.tflite", limits=attention_limits(form))
    assert typical_error(Runner(static), form) < 0.06


def test_a_form_in_float64_is_written_in_float32() -> None:
    config = tiny_config()
    arrays = {name: array.astype(np.float64) for name, array in arrays_of(random_student(config)).items()}
    form = STEPS["folded"](inference_form(sizes_of(config), arrays))
    assert largest_error(Runner(core_graph(form, precision="fp32", file="core.tflite")), form) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_resizing_back_and_forth_gives_the_same_numbers(precision: str) -> None:
    form = STEPS["folded"](small_form())
    run = Runner(core_graph(form, precision=precision, file="core.tflite"))
    first = {lengths: run(*states(form, lengths)) for lengths in LENGTHS}
    for lengths in reversed(LENGTHS):
        np.testing.assert_array_equal(run(*states(form, lengths)), first[lengths])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
@pytest.mark.parametrize("sizes", [{}, {"word_dim": 0}, {"character_kernel": 3, "characters_per_word": 7}], ids=str)
def test_token_states_are_those_of_the_form(sizes: dict[str, Any], precision: str, tolerance: float) -> None:
    form = small_token_form(**sizes)
    graph = token_graph(form, precision=precision, file="token.tflite")
    engine, random = TfliteEngine(graph.content, graph.spec), np.random.default_rng(0)
    for tokens in (1, 30, 2, 30):
        ids = random.integers(0, form.sizes.characters, (tokens, form.sizes.characters_per_word), dtype=np.int32)
        ids[: tokens // 2, 2:] = 0
        expected = token_states(form, ids)
        found = engine.run({"character_ids": ids})["states"]
        assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_tensors_have_the_names_and_open_lengths_of_the_contract() -> None:
    core = core_graph(small_form(), precision="int8", file="core.int8.tflite")
    token = token_graph(small_token_form(), file="token.tflite")
    assert (core.spec.role, core.spec.engine, core.spec.precision) == ("core", "tflite", "int8")
    assert (token.spec.role, token.spec.engine, token.spec.precision) == ("token", "tflite", "fp32")
    assert (core.spec.file, token.spec.file) == ("core.int8.tflite", "token.tflite")
    for graph in (core, token):
        interpreter = Interpreter(model_content=graph.content)
        signature = interpreter.get_signature_list()["serving_default"]
        for side, declared, details in (
            ("inputs", graph.spec.inputs, interpreter.get_input_details()),
            ("outputs", graph.spec.outputs, interpreter.get_output_details()),
        ):
            assert sorted(signature[side]) == sorted(tensor.name for tensor in declared)
            found = {detail["name"]: detail for detail in details}
            for tensor in declared:
                sizes = [-1 if isinstance(size, str) else size for size in tensor.shape]
                assert list(found[tensor.name]["shape_signature"]) == sizes
                assert np.dtype(found[tensor.name]["dtype"]).name == tensor.dtype


@pytest.mark.parametrize("heads", [1, 8])
def test_passes_share_their_weights(heads: int) -> None:
    form = STEPS["folded"](small_form(hidden=32, heads=heads, model_blocks=4))
    contents = {precision: core_graph(form, precision=precision, file="c").content for precision in ("fp32", "int8")}
    contents["fp16"] = core_graph(form, precision="fp16", file="c").content
    contents["static"] = core_graph(form, precision="int8", file="c", limits=attention_limits(form)).content
    dense = len(core_of(form)) * form.sizes.hidden**2
    for precision, size in (("fp32", 4), ("fp16", 2), ("int8", 1), ("static", 1)):
        model = schema.ModelT.InitFromPackedBuf(contents[precision])
        blobs = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
        matrices = [blob for blob in blobs if len(blob) >= form.sizes.hidden**2 * size]
        assert sum(map(len, matrices)) == dense * size
        assert len(set(matrices)) == len(matrices)


def core_of(form: InferenceForm) -> list[str]:
    """A name for every (hidden, hidden) matrix of a form; the fusion's projection holds four."""
    per_attention = 2 if form.sizes.heads == 1 else 4
    convolutions = form.sizes.encoder_convolutions + form.sizes.model_blocks * form.sizes.model_convolutions
    return ["matrix"] * (4 + convolutions + (per_attention + 2) * (1 + form.sizes.model_blocks))


def test_sizes_of_the_edge_preset() -> None:
    form = large_form("edge")
    sizes = {
        precision: len(core_graph(form, precision=precision, file="c").content)
        for precision in ("fp32", "fp16", "int8")
    }
    assert sizes["int8"] <= 1_600_000
    assert sizes["fp16"] <= 2_200_000
    assert sizes["fp32"] <= 4_000_000


@pytest.mark.parametrize("preset", ["edge", "paper"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8 attention"])
def test_xnnpack_takes_every_operator_in_one_piece(preset: str, precision: str) -> None:
    form = large_form(preset)
    limits = attention_limits(form, LENGTHS[:1]) if precision == "int8 attention" else None
    content = core_graph(form, precision=precision.split()[0], file="c", limits=limits).content
    interpreter = Interpreter(model_content=content)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [9, form.sizes.hidden], strict=True)
    interpreter.allocate_tensors()
    kinds = [made["op_name"] for made in interpreter._get_ops_details()]
    if "DELEGATE" not in kinds:
        pytest.skip("this build of LiteRT has no XNNPACK")
    assert kinds.count("DELEGATE") == 1
    found = operators(content)
    assert sum(found.values()) == len(kinds) - 1
    assert found["RESHAPE"] == 6 + (4 * 23 if preset == "paper" else 0)  # inputs, outputs, heads of 23 attention layers


def test_writing_again_gives_the_same_bytes_and_names_are_distinct() -> None:
    form, token_form = small_form(heads=4), small_token_form()
    for precision in ("fp32", "fp16", "int8"):
        content = core_graph(form, precision=precision, file="c").content
        assert core_graph(form, precision=precision, file="c").content == content
        graph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
        names = [tensor.name for tensor in graph.tensors]
        assert len(set(names)) == len(names)
        assert b"pass.2/blocks.1.attention/SOFTMAX" in names
    assert token_graph(token_form, file="t").content == token_graph(token_form, file="t").content


def test_int8_asks_for_a_runtime_that_reads_a_scale_for_each_row() -> None:
    """tflite-runtime 2.14 loads version 9 of FULLY_CONNECTED and takes the first row's scale for all."""
    content = core_graph(small_form(), precision="int8", file="c").content
    codes = schema.ModelT.InitFromPackedBuf(content).operatorCodes
    dense = {code.version for code in codes if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED}
    assert dense == {5, 12}


def test_extreme_weights_and_inputs_stay_finite() -> None:
    form = STEPS["folded"](small_form())
    zeros = replace(form.fusion.projection, weight=np.zeros_like(form.fusion.projection.weight))
    form = replace(form, fusion=replace(form.fusion, projection=zeros))
    for precision in ("fp32", "fp16", "int8"):
        run = Runner(core_graph(form, precision=precision, file="c"))
        context, question = states(form, (12, 3))
        assert np.isfinite(run(context * 1e4, question * 0)).all()
        assert math.isfinite(largest_error(run, form))


def test_what_cannot_be_written_is_said_in_a_sentence() -> None:
    form = STEPS["folded"](small_form())
    with pytest.raises(InputError, match="core graph cannot be in 'int4', expected fp32, fp16, int8"):
        core_graph(form, precision="int4", file="c")
    with pytest.raises(InputError, match="token graph cannot be in 'int8', expected fp32, fp16"):
        token_graph(small_token_form(), precision="int8", file="t")
    with pytest.raises(InputError, match="limits are for a graph in int8, not in fp32"):
        core_graph(form, precision="fp32", file="c", limits={})
    limits = attention_limits(form)
    del limits["pass.1/blocks.0.attention/scores"]
    with pytest.raises(DataError, match=r"no limit for pass\.1/blocks\.0\.attention/scores"):
        core_graph(form, precision="int8", file="c", limits=limits)
