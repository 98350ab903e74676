"""The kept bundle for hours, in miniature: many threads, many questions, and an end from outside."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle

BUNDLE = Path(__file__).resolve().parents[2] / "models" / "qa_edge_models" / "edge.qab"
ENGINES = [engine for engine, module in (("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")) if find_spec(module)]


def questions() -> list[tuple[str, str]]:
    """Ordinary questions and contexts of the bundle's own cases, shortened so that thousands take minutes."""
    return [(case["question"], case["context"][:300]) for case in Bundle.open(BUNDLE).cases()][:40]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_eight_threads_of_two_thousand_questions_get_the_answers_of_one(engine: str) -> None:
    """Takes minutes, no data."""
    pairs = questions()
    with Answerer.load(BUNDLE, engine=engine) as answerer:
        expected = [answerer.answer(*pair) for pair in pairs]
        answerer.forget()

        def ask(thread: int) -> int:
            order = itertools.islice(itertools.cycle(range(len(pairs))), thread * 5, thread * 5 + 2_000)
            return sum(answerer.answer(*pairs[number]) == expected[number] for number in order)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == [2_000] * 8


_TEN_THOUSAND = """
import itertools, json, sys
from qa_edge_runtime import Answerer
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

pairs = json.load(open(sys.argv[3]))
with Answerer.load(sys.argv[1], engine=sys.argv[2]) as answerer:
    sizes = []
    for number, (question, context) in enumerate(itertools.islice(itertools.cycle(pairs), 10_000)):
        # Lengths and words that never came before, as in a life.
        answerer.answer(f"{question} w{number}?", f"{context} x{number} " + "and so on " * (number % 30))
        if number % 1_000 == 999:
            sizes.append(resident())
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_ten_thousand_questions_do_not_grow_the_process(engine: str, tmp_path: Path) -> None:
    """Takes minutes, no data. The cache of unknown words fills (10 MB) and the tokenizer's with it."""
    (tmp_path / "pairs.json").write_text(json.dumps(questions()))
    command = [sys.executable, "-c", _TEN_THOUSAND, str(BUNDLE), engine, str(tmp_path / "pairs.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)
    assert sizes[-1] - sizes[1] < 16e6, sizes
    assert sizes[-1] - sizes[-4] < 4e6, sizes


_UNTIL_KILLED = """
import sys
from qa_edge_runtime import Answerer
answerer = Answerer.load(sys.argv[1], engine=sys.argv[2])
while True:
    answerer.answer("Where is the main switch?", "The main switch is behind the grey panel. " * 20)
    print("answered", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_sigterm_ends_it_at_once(engine: str) -> None:
    command = [sys.executable, "-c", _UNTIL_KILLED, str(BUNDLE), engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "answered\n"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert time.monotonic() - began < 10
