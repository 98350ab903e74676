"""What `make test` asks of the light installs, run by the Python of an environment that has nothing else in it.

    python tests/light_install.py wheel WHEEL             # after: pip wheel --no-deps ./runtime
    python tests/light_install.py models-wheel WHEEL      # after: pip wheel --no-deps ./models
    python tests/light_install.py host BUNDLE             # after: pip install ./runtime ./models .
    python tests/light_install.py runtime BUNDLE          # after: pip install WHEEL
    python tests/light_install.py onnx BUNDLE EXPECTED    # after: pip install WHEEL[onnx], and so with the others
    python tests/light_install.py tflite BUNDLE EXPECTED
    python tests/light_install.py tflite-runtime BUNDLE EXPECTED
    python tests/light_install.py models                  # where the runtime, an engine and qa-edge-models are
    python tests/light_install.py without-models qa_edge BUNDLE            # where all but qa-edge-models is
    python tests/light_install.py without-models qa_edge_runtime BUNDLE    # the same without the host side
    python tests/light_install.py numpy-2 BUNDLE          # after: pip install WHEEL[tflite-runtime], then "numpy>=2"
    python tests/light_install.py expect BUNDLE EXPECTED  # writes what the engines have to find, in any environment

An error ends it with a trace: this is a test, though pytest is not there to run it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[1] / "qa_edge" / "example"
TRAINING = ("torch", "transformers", "spacy", "onnx", "safetensors", "accelerate", "scipy", "tensorboard")
COMMANDS = (
    "active",
    "answer",
    "bench",
    "check",
    "compare",
    "distill",
    "evaluate",
    "experiment",
    "export",
    "info",
    "label",
    "labels",
    "pack",
    "prepare",
    "report",
    "select",
    "sensitivity",
    "teach",
    "vectors",
    "verify",
)


WHEEL_BYTES = 200_000
MODELS_WHEEL_BYTES = 10_000_000
INSTALLERS = {"pip", "setuptools", "wheel"}
# Extra -> the package that it adds, and what a plain Answerer.load takes there: engine and precision.
ENGINES = {
    "onnx": ("onnxruntime", ("onnx", "int8")),
    "tflite": ("ai-edge-litert", ("tflite", "int8")),
    "tflite-runtime": ("tflite-runtime", ("tflite", "fp32")),
}
# Logits of the fp32 graphs are some units: three engines, which add in other orders, differ by some millionths of that.
TOLERANCE = 1e-4
CASES = (
    ("Where is the switch?", "The switch is under the lid, beside the Zyxtronic-9 fuse."),
    ("What is beside the Zyxtronic-9?", "The switch is under the lid, beside the Zyxtronic-9 fuse."),
    ("Who opened it?", "In 1987 Anna Berg, an engineer from Malm\u00f6, opened the first of four valves. " * 8),
    ("When?", "Monday."),
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's Python away from the sources, so that what is installed is what is imported."""
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=elsewhere, capture_output=True, text=True, timeout=300
        )


def output(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def check_answer(said: str, context: str) -> None:
    """What `answer --json` printed: the characters that it names are the answer."""
    found = json.loads(said)
    for answer in found.get("answers", [found]):
        assert context[answer["start"] : answer["end"]] == answer["text"] != "", said


def check_host(bundle: str) -> None:
    """A plain install is enough for a bundle: answer, evaluate and info run, training names its extra."""
    for name in TRAINING:
        assert importlib.util.find_spec(name) is None, f"{name} is installed: this is no light environment"
    script = Path(sys.executable).with_name("qa-edge")
    usage = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not [command for command in COMMANDS if command not in usage], usage
    assert json.loads(output("qa_edge", "info", bundle, "--json"))["format_version"] == 2
    check_unnamed("qa_edge")
    first = json.loads((EXAMPLE / "dev.json").read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]
    asked = ("--question", first["qas"][0]["question"], "--context", first["context"])
    check_answer(output("qa_edge", "answer", bundle, *asked, "--json"), first["context"])
    scores = json.loads(output("qa_edge", "evaluate", bundle, "--squad", str(EXAMPLE / "dev.json"), "--json"))
    assert scores["total"] == 52, scores
    assert 0 <= scores["exact_match"] <= scores["f1"] <= 100, scores
    assert "299" in output("qa_edge", "check", str(EXAMPLE / "train.json"))
    refused = run("qa_edge", "prepare", "--squad", str(EXAMPLE / "train.json"), "--vectors", "none", "-o", "features")
    assert refused.returncode == 1, refused
    assert "qa-edge[train]" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr, refused.stderr


def check_unnamed(module: str) -> None:
    """Without a bundle named, the one of qa-edge-models answers, and so it does for a program."""
    question, context = "Which colour has the main switch?", "The main switch is red. The lamp beside it is green."
    asked = ("answer", "--question", question, "--context", context, "--json")
    said = json.loads(output(module, *asked))
    assert said.get("answers", [said])[0]["text"] == "red", said
    assert json.loads(output(module, "info", "--json"))["name"] == "edge"
    verified = output(module, "verify").splitlines()
    assert any(" as trained: " in line for line in verified), verified


def check_models() -> None:
    """qa-edge-models beside the runtime: `Answerer.load()` answers, and one sentence says if its files are damaged."""
    wanted = {"numpy", "qa-edge-runtime", "qa-edge-models"} | required_by("ai-edge-litert")
    assert installed() == wanted, installed() ^ wanted
    import qa_edge_models
    from qa_edge_runtime import Answerer

    with Answerer.load() as answerer:
        assert answerer.bundle.path == qa_edge_models.path()
        assert answerer.answer("Which colour has the main switch?", "The main switch is red.").text == "red"
    check_unnamed("qa_edge_runtime")
    graph = qa_edge_models.path() / "core.int8.tflite"
    whole = graph.read_bytes()
    try:
        graph.write_bytes(whole[:-1])
        refuse("qa_edge_runtime", "info", says=f"{graph.name} ")
    finally:
        graph.write_bytes(whole)


def check_without_models(module: str, bundle: str) -> None:
    """A named bundle is all that is needed; where none is named, one sentence says what to do."""
    module = Path(module).name
    assert "qa-edge-models" not in installed(), installed()
    asked = ("--question", "Where?", "--context", "The switch is under the lid.")
    check_answer(output(module, "answer", bundle, *asked, "--json"), asked[-1])
    for command in (("answer", *asked), ("info",), ("verify",), ("bench",)):
        refuse(module, *command, says="name a bundle, or pip install qa-edge-models")


def refuse(*arguments: str, says: str) -> None:
    """A command that ends with one line on standard error, which says so."""
    refused = run(*arguments)
    assert refused.returncode == 1, refused
    assert not refused.stdout, refused.stdout
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert says in refused.stderr, refused.stderr


def installed() -> set[str]:
    """Names of the distributions of this environment, less those that install others."""
    return {canonical(str(found.metadata["Name"])) for found in metadata.distributions()} - INSTALLERS


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required_by(name: str) -> set[str]:
    """A distribution and all that it requires, by its own metadata."""
    from pip._vendor.packaging.requirements import Requirement  # no other is there

    names, waiting = set(), [name]
    while waiting:
        name = canonical(waiting.pop())
        if name not in names:
            names.add(name)
            for text in metadata.requires(name) or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    return names


def check_wheel(path: str) -> None:
    """The wheel is small, and holds the package and nothing else."""
    size = Path(path).stat().st_size
    assert size < WHEEL_BYTES, f"{path} has {size} bytes, expected fewer than {WHEEL_BYTES}"
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        required = re.findall(r"^Requires-.*$", wheel.read(about).decode("utf-8"), re.MULTILINE)
    strangers = [name for name in names if not re.match(r"qa_edge_runtime(/[\w/]+\.py|-[^/]+\.dist-info/)", name)]
    assert not strangers, strangers
    assert "Requires-Python: >=3.10" in required, required
    assert [line for line in required if "Dist:" in line and "extra" not in line] == ["Requires-Dist: numpy>=1.23"]
    sys.stdout.write(f"wheel of the runtime: {size / 1e3:.0f} kB\n")


def check_models_wheel(path: str) -> None:
    """The wheel holds the bundle, whole, and the few lines that name it; it requires nothing."""
    size = Path(path).stat().st_size
    assert size <= MODELS_WHEEL_BYTES, f"{path} has {size} bytes, expected at most {MODELS_WHEEL_BYTES}"
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        required = re.findall(r"^Requires-Dist.*$", wheel.read(about).decode("utf-8"), re.MULTILINE)
        folder = "qa_edge_models/edge.qab"
        manifest = json.loads(wheel.read(f"{folder}/manifest.json"))
        for name, record in manifest["files"].items():
            found = hashlib.sha256(wheel.read(f"{folder}/{name}")).hexdigest()
            assert found == record["sha256"], f"{name} is not the one that the manifest lists"
    assert names == {
        "qa_edge_models/__init__.py",
        *(f"{folder}/{name}" for name in ("manifest.json", *manifest["files"])),
    }
    assert {(graph["engine"], graph["precision"]) for graph in manifest["graphs"] if graph["role"] == "core"} == {
        ("onnx", "int8"),
        ("tflite", "int8"),
    }
    assert not required, required
    sys.stdout.write(f"wheel of the models: {size / 1e6:.2f} MB\n")


def check_runtime(bundle: str) -> None:
    """The runtime alone, with numpy alone: all but inference works, and inference names its extra."""
    assert installed() == {"numpy", "qa-edge-runtime"}, installed()
    from qa_edge_runtime import Answerer, Tokenizer
    from qa_edge_runtime.errors import MissingExtraError

    text = "Press the switch (it isn't red) twice."
    tokens = Tokenizer.load(bundle)(text)
    assert [token.text for token in tokens[:3]] == ["Press", "the", "switch"]
    assert all(text[token.start : token.end] == token.text for token in tokens)
    assert "format" in output("qa_edge_runtime", "info", bundle)
    try:
        Answerer.load(bundle)
    except MissingExtraError as error:
        assert "qa-edge-runtime[onnx]" in str(error), error
    else:
        raise AssertionError("a bundle was loaded without an engine")


def answers(bundle: str, **named: str) -> dict[str, Any]:
    """What this environment makes of the cases with the bundle's fp32 graph, or another that is named."""
    from qa_edge_runtime import Answerer

    cases = []
    with Answerer.load(bundle, **{"precision": "fp32", **named}) as answerer:
        for question, context in CASES:
            answer, logits = answerer.answer(question, context), answerer.logits(question, context)
            assert context[answer.start : answer.end] == answer.text != ""
            cases.append({"answer": answer.text, "start": logits.start.tolist(), "end": logits.end.tolist()})
        return {"engine": answerer.engine_name, "cases": cases}


def write_expected(bundle: str, path: str) -> None:
    """The fp32 answers of an environment that has ONNX Runtime, for the others to be compared with."""
    Path(path).write_text(json.dumps(answers(bundle, engine="onnx")), encoding="utf-8")


def check_engine(extra: str, bundle: str, expected: str) -> None:
    """The extra brings its engine and what that requires; it is taken unasked, and answers as the others do."""
    package, chosen = ENGINES[extra]
    wanted = {"numpy", "qa-edge-runtime"} | required_by(package)
    assert installed() == wanted, installed() ^ wanted
    from qa_edge_runtime import Answerer

    with Answerer.load(bundle) as answerer:
        assert (answerer.engine_name, answerer.engine, answerer.precision) == (package, *chosen)
    found, others = answers(bundle), json.loads(Path(expected).read_text(encoding="utf-8"))
    assert found["engine"] == package, found["engine"]
    furthest = 0.0
    for (question, _), mine, theirs in zip(CASES, found["cases"], others["cases"], strict=True):
        for side in ("start", "end"):
            assert len(mine[side]) == len(theirs[side])
            differences = [abs(one - other) for one, other in zip(mine[side], theirs[side], strict=True)]
            furthest = max(furthest, *differences)
        assert mine["answer"] == theirs["answer"], (question, mine["answer"], theirs["answer"])
    assert furthest < TOLERANCE, f"logits differ by {furthest} from those of {others['engine']}"
    context = CASES[0][1]
    asked = ("--question", "Where?", "--context", context)
    check_answer(output("qa_edge_runtime", "answer", bundle, *asked, "--json"), context)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in sorted(wanted))
    sys.stdout.write(f"{extra} brings {versions}; logits within {furthest:.0e} of {others['engine']}'s\n")


def check_numpy_2(bundle: str) -> None:
    """tflite-runtime beside a numpy that it cannot work with: one sentence, no trace and no crash."""
    assert int(metadata.version("numpy").partition(".")[0]) >= 2, metadata.version("numpy")
    refused = run("qa_edge_runtime", "answer", bundle, "--question", "Where?", "--context", "The switch is here.")
    assert refused.returncode == 1, refused
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert "needs numpy below 2, found 2." in refused.stderr, refused.stderr
    assert 'pip install "qa-edge-runtime[tflite-runtime]"' in refused.stderr, refused.stderr


def main() -> int:
    """Run the checks of one environment."""
    kind, *paths = sys.argv[1], *(str(Path(path).resolve()) for path in sys.argv[2:])
    if kind in ENGINES:
        check_engine(kind, *paths)
    else:
        checks: dict[str, Callable[..., None]] = {
            "wheel": check_wheel,
            "models-wheel": check_models_wheel,
            "models": check_models,
            "without-models": check_without_models,
            "host": check_host,
            "runtime": check_runtime,
            "expect": write_expected,
            "numpy-2": check_numpy_2,
        }
        checks[kind](*paths)
    sys.stdout.write(f"light install ({kind}): all as expected\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
