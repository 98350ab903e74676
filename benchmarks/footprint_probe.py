"""One fresh process of `footprint.py`: imports the runtime, loads a bundle, answers; run by an environment's Python.

Reads {"bundle", "first": [question, context], "then": [[question, context], ...]} from standard input, and writes what
each step took, by the clock and of the processor's time, and the most memory that was resident after it.
"""

import time

began = time.perf_counter(), time.process_time()

import json  # noqa: E402
import sys  # noqa: E402

steps: dict[str, dict[str, float]] = {}


def done(step: str) -> None:
    """Note what was spent since the step before."""
    global began
    now = time.perf_counter(), time.process_time()
    steps[step] = {"wall_ms": 1e3 * (now[0] - began[0]), "cpu_ms": 1e3 * (now[1] - began[1])}
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - pathlib would be imported for this
        for line in status:
            if line.startswith("VmHWM:"):
                steps[step]["peak_mb"] = int(line.split()[1]) * 1024 / 1e6
    began = time.perf_counter(), time.process_time()


asked = json.load(sys.stdin)
done("started")
import numpy  # noqa: E402, F401

done("numpy")
from qa_edge_runtime import Answerer  # noqa: E402

done("import")
with Answerer.load(asked["bundle"]) as answerer:
    done("load")
    question, context = asked["first"]
    answerer.answer(question, context)
    done("first_answer")
    for question, context in asked["then"]:
        answerer.answer(question, context)
    done("more_answers")
    found = {
        "steps": steps,
        "engine": [answerer.engine_name, answerer.engine_version],
        "precision": answerer.precision,
        "words": answerer.bundle.manifest.table.rows - 1,
        "table": answerer.bundle.manifest.table.dtype,
    }
sys.stdout.write(json.dumps(found))
