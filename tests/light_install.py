"""What `make test` asks of the light installs, run by the Python of an environment that has nothing else in it.

    python tests/light_install.py host BUNDLE       # after: pip install ./runtime .
    python tests/light_install.py runtime BUNDLE    # after: pip install ./runtime

An error ends it with a trace: this is a test, though pytest is not there to run it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "qa_edge" / "example"
TRAINING = ("torch", "transformers", "spacy", "onnx", "safetensors", "accelerate", "scipy", "tensorboard")
COMMANDS = (
    "answer",
    "bench",
    "check",
    "distill",
    "evaluate",
    "export",
    "info",
    "label",
    "prepare",
    "sensitivity",
    "teach",
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


def check_host(bundle: str) -> None:
    """A plain install is enough for a bundle: answer, evaluate and info run, training names its extra."""
    for name in TRAINING:
        assert importlib.util.find_spec(name) is None, f"{name} is installed: this is no light environment"
    script = Path(sys.executable).with_name("qa-edge")
    usage = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not [command for command in COMMANDS if command not in usage], usage
    assert json.loads(output("qa_edge", "info", bundle, "--json"))["format_version"] == 2
    first = json.loads((EXAMPLE / "dev.json").read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]
    asked = ("--question", first["qas"][0]["question"], "--context", first["context"])
    answered = json.loads(output("qa_edge", "answer", bundle, *asked, "--json"))
    answer = answered[0] if isinstance(answered, list) else answered
    assert first["context"][answer["start"] : answer["end"]] == answer["text"] != "", answered
    scores = json.loads(output("qa_edge", "evaluate", bundle, "--squad", str(EXAMPLE / "dev.json"), "--json"))
    assert scores["total"] == 52, scores
    assert 0 <= scores["exact_match"] <= scores["f1"] <= 100, scores
    assert "299" in output("qa_edge", "check", str(EXAMPLE / "train.json"))
    refused = run("qa_edge", "prepare", "--squad", str(EXAMPLE / "train.json"), "--vectors", "none", "-o", "features")
    assert refused.returncode == 1, refused
    assert "qa-edge[train]" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr, refused.stderr


def check_runtime(bundle: str) -> None:
    """The runtime alone, with numpy alone: all but inference works, and inference names its extra."""
    installed = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    assert installed - {"pip", "setuptools", "wheel"} == {"numpy", "qa-edge-runtime"}, installed
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


def main() -> int:
    """Run the checks of one environment."""
    kind, bundle = sys.argv[1], str(Path(sys.argv[2]).resolve())
    {"host": check_host, "runtime": check_runtime}[kind](bundle)
    sys.stdout.write(f"light install ({kind}): all as expected\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
