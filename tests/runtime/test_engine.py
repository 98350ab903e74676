from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from damage import put, refusal
from tiny_bundle import HIDDEN, core_graph, core_inputs, graph_spec, graph_specs, token_graph, write_tiny_bundle

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import choose_engine, open_engine
from qa_edge_runtime.errors import BundleError, EngineError, InputError, MissingExtraError, QaEdgeError
from qa_edge_runtime.onnx_engine import OnnxEngine

ALL = {"onnx": ["fp32", "int8"], "tflite": ["fp32", "fp16", "int8"]}
ONNX, LITERT, OLD = "onnxruntime", "ai_edge_litert", "tflite_runtime"


def bundle_of(path: Path, precisions: dict[str, Sequence[str]]) -> Bundle:
    """A bundle whose graphs are declared but empty: enough to choose among them."""
    specs = graph_specs(**precisions)
    write_tiny_bundle(path, files={spec.file: b"" for spec in specs}, graphs=specs)
    return Bundle.open(path)


def install(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Have only these engines installed."""
    for name in (ONNX, LITERT, OLD):
        if name not in modules:
            monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
        else:
            module = ModuleType(name)
            module.__spec__ = sys.__spec__
            monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("held", "installed", "named", "expected"),
    [
        (ALL, [ONNX, LITERT, OLD], {}, ("tflite", "int8")),
        (ALL, [ONNX, OLD], {}, ("onnx", "int8")),
        (ALL, [ONNX], {}, ("onnx", "int8")),
        (ALL, [LITERT, OLD], {}, ("tflite", "int8")),
        (ALL, [OLD], {}, ("tflite", "fp32")),
        (ALL, [ONNX, OLD], {"engine": "tflite"}, ("tflite", "fp32")),
        (ALL, [ONNX, LITERT], {"engine": "tflite"}, ("tflite", "int8")),
        (ALL, [ONNX, LITERT], {"engine": "onnx"}, ("onnx", "int8")),
        (ALL, [ONNX, LITERT], {"engine": "tflite", "precision": "fp32"}, ("tflite", "fp32")),
        (ALL, [OLD], {"precision": "fp16"}, ("tflite", "fp16")),
        (ALL, [ONNX, OLD], {"precision": "fp16"}, ("tflite", "fp16")),
        (ALL, [LITERT, OLD], {"precision": "int8"}, ("tflite", "int8")),
        ({"onnx": ["int8"], "tflite": ["int8"]}, [ONNX, OLD], {}, ("onnx", "int8")),
        (ALL, [ONNX, LITERT], {"precision": "fp16"}, ("tflite", "fp16")),
        (ALL, [ONNX, LITERT], {"precision": "fp32"}, ("tflite", "fp32")),
        ({"tflite": ["fp16", "int8"]}, [ONNX, LITERT], {}, ("tflite", "int8")),
        ({"tflite": ["fp16", "int8"]}, [OLD], {}, ("tflite", "fp16")),
        ({"tflite": ["int8"]}, [LITERT], {}, ("tflite", "int8")),
        ({"tflite": ["fp16", "fp32"]}, [LITERT], {}, ("tflite", "fp16")),
        ({"onnx": ["fp32"]}, [ONNX, LITERT], {}, ("onnx", "fp32")),
    ],
)
def test_choice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: dict[str, Sequence[str]],
    installed: list[str],
    named: dict[str, str],
    expected: tuple[str, str],
) -> None:
    bundle = bundle_of(tmp_path / "new.qab", held)
    install(monkeypatch, *installed)
    assert choose_engine(bundle, **named) == expected


NEEDS_ONNX = 'ONNX Runtime: pip install "qa-edge-runtime[onnx]"'
NEEDS_LITERT = 'LiteRT: pip install "qa-edge-runtime[tflite]"'
NO_INT8 = "tflite-runtime cannot run int8 graphs, of which its kernels make wrong numbers: "
OR_LITERT = ', or install ai-edge-litert (pip install "qa-edge-runtime[tflite]")'


@pytest.mark.parametrize(
    ("held", "installed", "named", "kind", "message"),
    [
        (ALL, [], {}, MissingExtraError, f"this bundle needs {NEEDS_LITERT}, or {NEEDS_ONNX}"),
        (ALL, [ONNX], {"precision": "fp16"}, MissingExtraError, f"graph for fp16 needs {NEEDS_LITERT}"),
        (ALL, [LITERT], {"engine": "onnx"}, MissingExtraError, f"graph for onnx needs {NEEDS_ONNX}"),
        ({"onnx": ["fp32"]}, [LITERT], {}, MissingExtraError, f"this bundle needs {NEEDS_ONNX}"),
        ({"onnx": ["int8"]}, [ONNX], {"engine": "tflite"}, InputError, "no graph for tflite, it has onnx in int8"),
        (ALL, [ONNX], {"engine": "onnx", "precision": "fp16"}, InputError, "no graph for onnx in fp16, it has onnx in"),
        ({"onnx": ["fp32"]}, [ONNX], {"precision": "int8"}, InputError, "no graph for int8, it has onnx in fp32: name"),
        (ALL, [OLD], {"precision": "int8"}, MissingExtraError, f"{NO_INT8}take precision fp32{OR_LITERT}"),
        ({"tflite": ["int8"]}, [OLD], {}, MissingExtraError, f"{NO_INT8}export the bundle with --fp32{OR_LITERT}"),
        ({"onnx": ["int8"], "tflite": ["int8"]}, [OLD], {"precision": "int8"}, MissingExtraError, NO_INT8),
        ({"onnx": ["fp32"], "tflite": ["int8"]}, [ONNX, OLD], {"engine": "tflite"}, MissingExtraError, NO_INT8),
        (ALL, [ONNX], {"engine": "abacus"}, InputError, "engine is 'abacus', expected onnx or tflite"),
        (ALL, [ONNX], {"precision": "fp64"}, InputError, "precision is 'fp64', expected int8, fp16 or fp32"),
        (ALL, [ONNX], {"precision": ["int8"]}, InputError, "precision is ['int8']"),
    ],
)
def test_choice_that_cannot_be_met(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: dict[str, Sequence[str]],
    installed: list[str],
    named: dict[str, Any],
    kind: type[QaEdgeError],
    message: str,
) -> None:
    bundle = bundle_of(tmp_path / "new.qab", held)
    install(monkeypatch, *installed)
    with pytest.raises(kind) as caught:
        choose_engine(bundle, **named)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answerer_says_what_it_runs(tmp_path: Path) -> None:
    import onnxruntime

    graphs = graph_specs(onnx=["fp32", "int8"])
    write_tiny_bundle(tmp_path / "two.qab", files={"core.int8.onnx": core_graph(scale=2.0)}, graphs=graphs)
    logits = {}
    for precision in ("fp32", "int8", None):
        with Answerer.load(tmp_path / "two.qab", precision=precision) as answerer:
            assert (answerer.engine, answerer.engine_name) == ("onnx", "onnxruntime")
            assert answerer.engine_version == onnxruntime.__version__
            assert answerer.precision == (precision or "int8")
            logits[precision] = answerer.logits("Where is it?", "The main switch is here.").start
    np.testing.assert_allclose(logits["int8"], 2 * logits["fp32"], rtol=1e-5)
    np.testing.assert_array_equal(logits[None], logits["int8"])


def test_graph_that_is_not_as_declared(copied_path: Path) -> None:
    put(copied_path, "core.fp32.onnx", core_graph(end_name="other"))
    assert "core.fp32.onnx has the outputs start_logits, other" in refusal(copied_path)


@pytest.mark.parametrize("graph", [{"hidden": 5}, {"state_type": 10}])
def test_graph_of_another_size_or_dtype(copied_path: Path, graph: dict[str, int]) -> None:
    put(copied_path, "token.onnx", token_graph(**graph))
    assert "token.onnx: output states is" in refusal(copied_path)


def test_graph_that_the_engine_refuses(copied_path: Path) -> None:
    put(copied_path, "core.fp32.onnx", b"not a graph")
    with pytest.raises(EngineError, match=r"refused core\.fp32\.onnx") as caught:
        Answerer.load(copied_path)
    assert "\n" not in str(caught.value)


def test_graph_that_went_away(copied_path: Path) -> None:
    bundle = Bundle.open(copied_path)
    (copied_path / "core.fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"core\.fp32\.onnx is missing"):
        open_engine(bundle, "core")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_tensors_are_bound_by_name_and_not_by_place(side: str) -> None:
    model = onnx.load_from_string(core_graph())
    nodes = {"inputs": model.graph.input, "outputs": model.graph.output}[side]
    turned = list(reversed(nodes))
    assert [node.name for node in turned] != [node.name for node in nodes]
    del nodes[:]
    nodes.extend(turned)
    inputs = core_inputs(7, 3)
    expected = OnnxEngine(core_graph(), graph_spec("core")).run(inputs)
    found = OnnxEngine(model.SerializeToString(), graph_spec("core")).run(dict(reversed(inputs.items())))
    assert not np.array_equal(expected["start_logits"], expected["end_logits"])
    for name, logits in expected.items():
        np.testing.assert_array_equal(found[name], logits)


def test_closed_engine_says_so() -> None:
    engine = OnnxEngine(core_graph(), graph_spec("core"))
    engine.run(core_inputs(3, 2))
    for _ in range(2):
        engine.close()
        with pytest.raises(EngineError, match="core graph was closed; load the bundle again"):
            engine.run(core_inputs(3, 2))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("asked", [None, "0", "1"])
def test_onnxruntime_reports_nothing_unless_asked_to(tmp_path: Path, asked: str | None) -> None:
    (tmp_path / "core.onnx").write_bytes(core_graph())
    program = (
        "import os, sys\n"
        "from tiny_bundle import graph_spec\n"
        "from qa_edge_runtime.onnx_engine import OnnxEngine\n"
        "OnnxEngine(open('core.onnx', 'rb').read(), graph_spec('core'))\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], len(os.listdir('/proc/self/task')))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {} if asked is None else {"ORT_DISABLE_TELEMETRY": asked}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    setting, threads = done.stdout.split()
    assert setting == (asked or "1")
    if asked != "0":
        assert threads == "1"  # ours alone: none that reports


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("engine", ["onnx", "tflite"])
@pytest.mark.parametrize("threads", [1, 2])
def test_forked_child_opens_its_own_and_ends(tmp_path: Path, engine: str, threads: int) -> None:
    if engine == "tflite":
        pytest.importorskip("ai_edge_litert.interpreter")
        from tiny_tflite import core_tflite

        model = core_tflite()
    else:
        model = core_graph()
    (tmp_path / "core").write_bytes(model)
    program = f"""if True:
        import os, sys
        import numpy as np
        from tiny_bundle import core_inputs, graph_spec
        from qa_edge_runtime.engine import load_engine
        def load():
            return load_engine(open("core", "rb").read(), graph_spec("core", "{engine}"), threads={threads})
        engine, inputs = load(), core_inputs(40, 5)
        expected = engine.run(inputs)["end_logits"]
        child = os.fork()
        if not child:
            again = load()
            assert np.array_equal(again.run(inputs)["end_logits"], expected)
            try:
                engine.run(inputs)
            except Exception as error:
                assert "was closed" in str(error)
            else:
                raise AssertionError
            sys.exit(7)  # as a server's worker does: all destructors are run
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert np.array_equal(engine.run(inputs)["end_logits"], expected)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_engine_failure_names_graph_and_shapes() -> None:
    engine = OnnxEngine(core_graph(), graph_spec("core"))
    wrong = np.zeros((3, HIDDEN + 1), np.float32)
    with pytest.raises(EngineError, match=r"core graph failed on context \[3, 7\]"):
        engine.run({"context": wrong, "question": wrong, "context_position": wrong, "question_position": wrong})


def test_missing_engine_names_the_extra(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError) as caught:
        Answerer.load(tiny_path)
    assert str(caught.value) == 'this bundle needs ONNX Runtime: pip install "qa-edge-runtime[onnx]"'
    with pytest.raises(MissingExtraError, match="needs ONNX Runtime"):
        OnnxEngine(core_graph(), graph_spec("core"))


@pytest.mark.parametrize("threads", [0, -1, 65, 10**10, 1.5, True, "2"])
def test_threads_out_of_range(tiny_path: Path, threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        Answerer.load(tiny_path, threads=threads)
