from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny_bundle import (
    CHARACTER_TABLE,
    CONTEXT,
    HIDDEN,
    QUESTION,
    UNKNOWN,
    WIDTH,
    core_graph,
    core_inputs,
    graph_spec,
    graph_specs,
    write_tiny_bundle,
)

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.engine import load_engine
from qa_edge_runtime.errors import BundleError, EngineError, MissingExtraError
from qa_edge_runtime.latency import measure_latency
from qa_edge_runtime.onnx_engine import OnnxEngine
from qa_edge_runtime.tflite_engine import TfliteEngine

pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("flatbuffers")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from tiny_tflite import TinyWriter, core_tflite, token_tflite

CORE, TOKEN = graph_spec("core", "tflite"), graph_spec("token", "tflite")


@pytest.fixture(scope="module")
def both_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for both engines, in two precisions that can be told apart by the size of the logits."""
    path = tmp_path_factory.mktemp("both") / "both.qab"
    files = {
        "core.int8.onnx": core_graph(scale=2.0),
        "core.fp32.tflite": core_tflite(),
        "core.int8.tflite": core_tflite(scale=2.0),
        "token.tflite": token_tflite(),
    }
    both = ["fp32", "int8"]
    write_tiny_bundle(path, files=files, graphs=graph_specs(onnx=both, tflite=both))
    return path


def test_outputs_are_those_of_the_other_engine_at_any_length() -> None:
    lite, onnx = TfliteEngine(core_tflite(), CORE), OnnxEngine(core_graph(), graph_spec("core"))
    for seed, (context_tokens, question_tokens) in enumerate(((1, 1), (7, 3), (400, 20), (7, 3), (2, 30), (3000, 1))):
        inputs = core_inputs(context_tokens, question_tokens, seed)
        found, expected = lite.run(inputs), onnx.run(inputs)
        assert set(found) == set(expected) == {"start_logits", "end_logits"}
        for name, logits in expected.items():
            assert found[name].shape == (context_tokens,)
            np.testing.assert_allclose(found[name], logits, atol=1e-4)


def test_token_graph() -> None:
    ids = np.random.default_rng(1).integers(0, len(CHARACTER_TABLE), size=(9, WIDTH), dtype=np.int32)
    states = TfliteEngine(token_tflite(), TOKEN).run({"character_ids": ids})["states"]
    np.testing.assert_allclose(states, UNKNOWN + CHARACTER_TABLE[ids].mean(axis=1), atol=1e-6)


def test_inputs_of_any_layout() -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    inputs = core_inputs(8, 4)
    whole = engine.run(inputs)
    wide = {name: np.asfortranarray(value) for name, value in inputs.items()}
    for value in wide.values():
        value.flags.writeable = False
    np.testing.assert_array_equal(engine.run(wide)["end_logits"], whole["end_logits"])


def test_what_was_returned_does_not_change_with_the_next_call() -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    first = engine.run(core_inputs(5, 2, seed=1))
    kept = {name: value.copy() for name, value in first.items()}
    engine.run(core_inputs(5, 2, seed=2))
    engine.run(core_inputs(50, 2, seed=3))
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_tensors_are_laid_out_anew_only_when_lengths_change(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    resized: list[Any] = []
    resize = engine._resize
    monkeypatch.setattr(engine, "_resize", lambda shapes: (resized.append(shapes), resize(shapes)))
    for lengths in ((5, 2), (5, 2), (6, 2), (6, 3), (6, 3), (5, 2)):
        engine.run(core_inputs(*lengths))
    lengths_seen = [(shapes["context"][0], shapes["question"][0]) for shapes in resized]
    assert lengths_seen == [(5, 2), (6, 2), (6, 3), (5, 2)]


def test_a_failed_call_does_not_spoil_the_next() -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    inputs = core_inputs(5, 2)
    expected = engine.run(inputs)
    wrong = {name: np.zeros((3, HIDDEN + 1), np.float32) for name in inputs}
    with pytest.raises(EngineError, match=r"core graph failed on context \[3, 7\]") as caught:
        engine.run(wrong)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(engine.run(inputs)["start_logits"], expected["start_logits"])
    with pytest.raises(EngineError, match="core graph failed on context"):
        engine.run({"context": inputs["context"]})
    with pytest.raises(EngineError, match="core graph failed on"):
        engine.run({name: value.astype(np.float64) for name, value in inputs.items()})
    np.testing.assert_array_equal(engine.run(inputs)["start_logits"], expected["start_logits"])


def test_the_models_bytes_live_as_long_as_the_engine() -> None:
    engine = TfliteEngine(bytes(bytearray(core_tflite())), CORE)
    inputs = core_inputs(5, 2)
    expected = engine.run(inputs)["end_logits"]
    for _ in range(3):
        gc.collect()
        ballast = [bytes(4096) for _ in range(1000)]
        del ballast
        np.testing.assert_array_equal(engine.run(core_inputs(5, 2))["end_logits"], expected)


def test_threads_take_turns() -> None:
    engine = TfliteEngine(core_tflite(), CORE, threads=2)
    cases = [core_inputs(1 + number % 7, 1 + number % 3, number) for number in range(60)]
    expected = [engine.run(inputs)["start_logits"] for inputs in cases]
    barrier = threading.Barrier(6)

    def ask(offset: int) -> list[np.ndarray]:
        barrier.wait()
        return [engine.run(inputs)["start_logits"] for inputs in cases[offset:] + cases[:offset]]

    with ThreadPoolExecutor(6) as pool:
        for offset, found in enumerate(pool.map(ask, range(6))):
            for logits, wanted in zip(found, expected[offset:] + expected[:offset], strict=True):
                np.testing.assert_array_equal(logits, wanted)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_tensors_are_bound_by_name_and_not_by_place(side: str) -> None:
    model = schema.ModelT.InitFromPackedBuf(core_tflite(), 0)
    (graph,), (definition,) = model.subgraphs, model.signatureDefs
    order = [entry.name for entry in getattr(definition, side)]
    setattr(graph, side, getattr(graph, side)[::-1])
    setattr(definition, side, getattr(definition, side)[::-1])
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert [entry.name for entry in getattr(definition, side)] != order
    inputs = core_inputs(7, 3)
    expected = TfliteEngine(core_tflite(), CORE).run(inputs)
    found = TfliteEngine(bytes(builder.Output()), CORE).run(dict(reversed(inputs.items())))
    assert not np.array_equal(expected["start_logits"], expected["end_logits"])
    for name, logits in expected.items():
        np.testing.assert_array_equal(found[name], logits)


def test_closed_engine_says_so() -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    inputs = core_inputs(3, 2)
    found = engine.run(inputs)
    kept = found["start_logits"].copy()
    for let_go in (engine.close, engine.close, engine.abandon):
        let_go()
        with pytest.raises(EngineError, match=r"^the core graph was closed; load the bundle again$"):
            engine.run(inputs)
    np.testing.assert_array_equal(found["start_logits"], kept)


def test_closing_waits_for_the_call_that_runs() -> None:
    engine = TfliteEngine(core_tflite(), CORE)
    running, gone_on = threading.Event(), threading.Event()
    invoke = engine._interpreter.invoke

    def slow() -> None:
        running.set()
        gone_on.wait(10)
        invoke()

    engine._interpreter.invoke = slow
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(engine.run, core_inputs(3, 2))
        assert running.wait(10)
        closing = pool.submit(engine.close)
        gone_on.set()
        assert answer.result()["start_logits"].shape == (3,)
        closing.result()


def unnamed() -> bytes:
    return core_tflite(signature="other")


def renamed() -> bytes:
    return core_tflite(end_name="other")


@pytest.mark.parametrize(
    ("make", "role", "message"),
    [
        (unnamed, "core", "has no signature serving_default"),
        (renamed, "core", "has the outputs other, start_logits; the manifest declares start_logits, end_logits"),
        (token_tflite, "core", "has the inputs character_ids; the manifest declares context, question"),
        (lambda: token_tflite(dtype="int64"), "token", "input character_ids is int64 ['any', 16]; the manifest"),
        (lambda: token_tflite(opened=False), "token", "input character_ids is int32 [1, 16]; the manifest declares"),
        (lambda: token_tflite(hidden=4), "token", "output states is float32 ['any', 4]; the manifest declares float32"),
    ],
)
def test_graph_that_is_not_as_declared(make: Callable[[], bytes], role: str, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        TfliteEngine(make(), graph_spec(role, "tflite"))
    assert message in str(caught.value)


def test_rank_is_compared_too() -> None:
    writer = TinyWriter()
    ids = writer.tensor([1, WIDTH], "int32")
    gathered = writer.operator("GATHER", [writer.constant(CHARACTER_TABLE), ids], [1, WIDTH, HIDDEN], axis=0)
    model = writer.model({"character_ids": ids}, {"states": gathered})
    with pytest.raises(BundleError, match=r"output states is float32 \['any', 16, 6\]"):
        TfliteEngine(model, TOKEN)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\0" * 100, core_graph()])
def test_bytes_that_are_no_model(content: bytes) -> None:
    with pytest.raises(EngineError, match=r"refused core\.fp32\.tflite: it is not a TFLite model"):
        TfliteEngine(content, CORE)


def test_answers_with_both_engines_and_precisions(both_path: Path) -> None:
    with Answerer.load(both_path, engine="onnx", precision="fp32") as reference:
        expected = reference.logits(QUESTION, CONTEXT)
        answers = reference.answers(QUESTION, CONTEXT)
    for precision, scale in (("fp32", 1.0), ("int8", 2.0), (None, 2.0)):
        with Answerer.load(both_path, engine="tflite", precision=precision) as answerer:
            assert (answerer.engine, answerer.engine_name) == ("tflite", "ai-edge-litert")
            assert answerer.engine_version[0].isdigit()
            assert answerer.precision == (precision or "int8")
            logits = answerer.logits(QUESTION, CONTEXT)
            np.testing.assert_allclose(logits.start, scale * expected.start, atol=1e-3)
            np.testing.assert_allclose(logits.end, scale * expected.end, atol=1e-3)
            found = answerer.answers(QUESTION, CONTEXT)
            assert [answer.text for answer in found] == [answer.text for answer in answers]


def test_latency_report_names_engine_and_precision(both_path: Path) -> None:
    report = measure_latency(
        both_path, [(QUESTION, CONTEXT)], engine="tflite", precision="int8", repeat=2, minimum=1, cold_starts=1
    )
    assert (report.engine, report.precision) == ("ai-edge-litert", "int8")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError) as caught:
        TfliteEngine(core_tflite(), CORE)
    assert str(caught.value) == 'this bundle needs LiteRT: pip install "qa-edge-runtime[tflite]"'


def old_package(monkeypatch: pytest.MonkeyPatch, interpreter: Any) -> None:
    """Have only a tflite-runtime whose Interpreter is the one given."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)  # type: ignore[arg-type]
    package, module = ModuleType("tflite_runtime"), ModuleType("tflite_runtime.interpreter")
    package.__version__ = "2.14.0"  # type: ignore[attr-defined]
    module.Interpreter = interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)


def test_the_older_package_takes_the_place_of_the_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert.interpreter import Interpreter

    monkeypatch.setattr(np, "__version__", "1.26.4")
    made: list[dict[str, Any]] = []

    def make(**settings: Any) -> Any:
        made.append(settings)
        return Interpreter(**settings)

    old_package(monkeypatch, make)
    engine = load_engine(core_tflite(), CORE)
    assert (engine.name, engine.version) == ("tflite-runtime", "2.14.0")
    newer = TfliteEngine(core_tflite(), CORE)
    newer.name = "ai-edge-litert"
    made.clear()
    for lengths, interpreters in (((3, 2), 0), ((3, 2), 0), ((4, 2), 1), ((4, 2), 1), ((3, 2), 2)):
        inputs = core_inputs(*lengths)
        found, expected = engine.run(inputs), newer.run(inputs)
        assert len(made) == interpreters  # one anew for new lengths: it does not give back what it laid out for others
        np.testing.assert_array_equal(found["start_logits"], expected["start_logits"])


def test_the_older_package_beside_numpy_2_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(**settings: Any) -> None:
        raise AssertionError("it must not be tried: it may end the process")

    monkeypatch.setattr(np, "__version__", "2.4.6")
    old_package(monkeypatch, crash)
    with pytest.raises(EngineError) as caught:
        TfliteEngine(core_tflite(), CORE)
    expected = 'needs numpy below 2, found 2.4.6: pip install "qa-edge-runtime[tflite-runtime]"'
    assert str(caught.value) == f"tflite-runtime 2.14.0 {expected}"


def test_a_package_that_cannot_be_loaded_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    old_package(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"^tflite-runtime 2\.14\.0 cannot be loaded: .*halted"):
        TfliteEngine(core_tflite(), CORE)


def test_refusal_names_the_bundle(both_path: Path, tmp_path: Path) -> None:
    files = {"core.fp32.tflite": core_tflite(end_name="other"), "token.tflite": token_tflite()}
    write_tiny_bundle(tmp_path / "new.qab", files=files, graphs=[CORE, TOKEN])
    with pytest.raises(BundleError, match=r"^bundle .*new\.qab: core\.fp32\.tflite has the outputs"):
        Answerer.load(tmp_path / "new.qab")
