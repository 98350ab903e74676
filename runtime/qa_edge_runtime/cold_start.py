"""Cold start and memory: one answer in a process of its own, run by `measure_cold_start`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.errors import EngineError, QaEdgeError
from qa_edge_runtime.machine import peak_memory_bytes

LIMIT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Medians over fresh processes: the whole, and within it loading the bundle and the first answer.

    The rest of the whole is starting the interpreter, its imports and its end.

    :ivar totals_ms: the whole of each process.
    """

    processes: int
    total_ms: float
    load_ms: float
    first_answer_ms: float
    totals_ms: tuple[float, ...]
    peak_memory_bytes: int | None


def measure_cold_start(
    path: Path, questions: Sequence[tuple[str, str]], *, engine: str, precision: str, threads: int, processes: int
) -> ColdStart:
    """Time fresh processes, each on another question, and take the memory of one more on the longest text.

    :param questions: (question, context) pairs, one at least.
    :param engine: of the bundle, "onnx" or "tflite", with the precision of its core graph.
    :raises EngineError: if a process fails or does not end.
    """
    settings = (str(path), engine, precision, str(threads))
    runs = [_fresh_process(settings, questions[index % len(questions)]) for index in range(processes)]
    longest = max(questions, key=lambda pair: len(pair[0]) + len(pair[1]))
    peaks = [run["peak_memory_bytes"] for run in (*runs, _fresh_process(settings, longest))]
    known = [peak for peak in peaks if peak is not None]
    totals = tuple(round(run["total_ms"], 3) for run in runs)
    return ColdStart(
        processes=processes,
        total_ms=float(np.median(totals)),
        load_ms=float(np.median([run["load_ms"] for run in runs])),
        first_answer_ms=float(np.median([run["first_answer_ms"] for run in runs])),
        totals_ms=totals,
        peak_memory_bytes=max(known) if known else None,
    )


def _fresh_process(settings: Sequence[str], pair: tuple[str, str]) -> dict[str, Any]:
    """Times and peak memory of one answer in a process of its own."""
    command = [sys.executable, "-m", "qa_edge_runtime.cold_start", *settings]
    # As JSON on standard input: an argument can hold neither U+0000 nor a lone surrogate.
    text = json.dumps(pair).encode("ascii")
    began = time.perf_counter()
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=LIMIT_SECONDS)
        total_ms = 1e3 * (time.perf_counter() - began)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"a fresh process could not be timed: {error}") from error
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"a fresh process could not answer (exit code {done.returncode}): {last:.300}")
    return {"total_ms": total_ms, **json.loads(done.stdout)}


def _answer_once(path: str, engine: str, precision: str, threads: str) -> int:
    """What the fresh process does: the pair from standard input, times to standard output."""
    question, context = json.loads(sys.stdin.buffer.read())
    began = time.perf_counter()
    try:
        with Answerer.load(path, engine=engine, precision=precision, threads=int(threads)) as answerer:
            loaded = time.perf_counter()
            answerer.answer(question, context)
            answered = time.perf_counter()
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    times = {"load_ms": 1e3 * (loaded - began), "first_answer_ms": 1e3 * (answered - loaded)}
    sys.stdout.write(json.dumps({**times, "peak_memory_bytes": peak_memory_bytes()}))
    return 0


if __name__ == "__main__":
    sys.exit(_answer_once(*sys.argv[1:]))
