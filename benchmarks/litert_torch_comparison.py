"""The student converted to TFLite by litert-torch, timed in LiteRT beside the graphs that qa_edge_export writes.

    python benchmarks/litert_torch_comparison.py runs/first -o docs/benchmarks

writes litert-torch.md and litert-torch.json (every sample, the machine, versions). Needed, beside the extras train and
tflite of qa-edge, in an environment of its own of 2.3 GB: `pip install torch==2.13.0 litert-torch==0.10.0`. It is in
none of the extras, because qa_edge_export writes TFLite graphs without it. Two minutes, most of them litert-torch's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Before anything that would start threads is imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np

from contenders import Contender
from interleave import run_rounds
from litert_torch_graphs import (
    CONTEXT_TOKENS,
    LOGITS,
    QUESTION_TOKENS,
    Arrays,
    convert,
    import_litert_torch,
    open_graph,
    read_inputs,
    reference_logits,
    write_core,
)
from qa_edge_runtime.errors import InputError, QaEdgeError
from qa_edge_runtime.files import atomic_write, sha256_file
from qa_edge_runtime.machine import describe_machine

PACKAGES = ("litert-torch", "litert-converter", "torch", "ai-edge-litert", "onnxruntime", "numpy")
PEER = "litert-torch"


def compare(run: Path, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Make the three graphs, compare their logits with torch's, and time them in one interleaved run.

    :return: what is written as JSON; times by the clock ("wall") and of the process's own use of the processor ("cpu").
    :raises QaEdgeError: one sentence on what is missing or cannot be read.
    """
    import_litert_torch()  # some seconds, which are not in the time of its conversion
    machine = describe_machine()
    checkpoint, timed, calibration = read_inputs(run)
    expected = reference_logits(run, timed)
    makers: dict[tuple[str, str], Callable[[Path], None]] = {
        (PEER, "fp32"): partial(convert, run, timed[0]),
        ("qa_edge_export", "fp32"): partial(write_core, checkpoint, "fp32", ()),
        ("qa_edge_export", "int8"): partial(write_core, checkpoint, "int8", calibration),
    }
    rows, contenders = [], []
    with tempfile.TemporaryDirectory() as folder:
        for (writer, precision), make in makers.items():
            path = Path(folder) / f"{writer}.{precision}.tflite"
            clock, processor = time.perf_counter(), time.process_time()
            make(path)
            row = {
                "writer": writer,
                "precision": precision,
                "made_wall_s": time.perf_counter() - clock,
                "made_cpu_s": time.process_time() - processor,
                "size_bytes": path.stat().st_size,
            }
            graph = open_graph(path)
            row["largest_difference"] = max(
                _difference(graph(inputs), logits) for inputs, logits in zip(timed, expected, strict=True)
            )
            rows.append(row)
            contenders.append(_contender(row, graph, timed))
    for row, samples in zip(rows, run_rounds(contenders, rounds=rounds, seed=seed), strict=True):
        row.update({name: [round(value, 4) for value in values] for name, values in samples._asdict().items()})
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "student": dict(checkpoint.config),
        "weights_sha256": sha256_file(run / "model.safetensors"),
        "context_tokens": CONTEXT_TOKENS,
        "question_tokens": QUESTION_TOKENS,
        "threads": 1,
        "inputs": len(timed),
        "calibration_questions": len(calibration),
        "largest_logit": max(float(np.abs(logits[name]).max()) for logits in expected for name in LOGITS),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {**machine, "load_1_minute_after": describe_machine()["load_1_minute"]},
        "rows": rows,
    }


def format_table(found: Mapping[str, Any]) -> str:
    """What was found as a Markdown table with its caption, without a line end; ratios are of processor time."""
    rows, machine = found["rows"], found["machine"]
    medians = [{name: float(np.median(row[name])) for name in ("wall_ms", "cpu_ms")} for row in rows]
    (peer,) = (median["cpu_ms"] for row, median in zip(rows, medians, strict=True) if row["writer"] == PEER)
    lines = [
        "| written by | precision | made in s | MB | processor ms | clock ms | lowest ms | x litert-torch | off by |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row, median in zip(rows, medians, strict=True):
        lines.append(
            f"| {row['writer']} | {row['precision']} | {row['made_cpu_s']:.1f} | {row['size_bytes'] / 1e6:.2f}"
            f" | {median['cpu_ms']:.1f} | {median['wall_ms']:.1f} | {min(row['cpu_ms']):.1f}"
            f" | {peer / median['cpu_ms']:.2f} | {row['largest_difference']:.2g} |"
        )
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    busy = max(median["wall_ms"] / median["cpu_ms"] for median in medians)
    caption = (
        f"The trained `{found['student']['preset']}` student in LiteRT, from states of {found['context_tokens']}"
        f" context and {found['question_tokens']} question tokens to logits, one thread; no graph has the embedding"
        f" stage. Inputs: {found['inputs']} held-out questions whose contexts have as many tokens or more, cut to that"
        " length, the question cut or repeated. litert-torch was given the student's own torch module at these fixed"
        " lengths, without padding. qa_edge_export first merges the matrices of attention and folds gains of layer"
        " norms, which is part of its gain; its graphs take any length, and the time to size one is not in the table."
        f" Medians of {len(rows[0]['cpu_ms'])} interleaved rounds: the process's own processor time, and the clock,"
        f" which showed up to {busy:.2f} times as much (load {machine['load_1_minute']} before,"
        f" {machine['load_1_minute_after']} after: other work may have run beside it); lowest and ratio are of"
        " processor time. Made in: processor time, without litert-torch's import; int8 includes the reading of"
        f" {found['calibration_questions']} calibration questions. Off by: largest difference of a logit from torch's"
        f" on all inputs; the largest logit is {found['largest_logit']:.0f}. {machine['cpu']}, {machine['cores']}"
        f" cores; {packages}; {found['date']}."
    )
    return "\n".join([*lines, "", caption])


def _difference(found: Arrays, expected: Arrays) -> float:
    return max(float(np.abs(found[name] - expected[name]).max()) for name in LOGITS)


def _contender(row: Mapping[str, Any], graph: Callable[[Arrays], Any], timed: Sequence[Arrays]) -> Contender:
    return Contender(
        name=row["writer"],
        ours=row["writer"] != PEER,
        precision=row["precision"],
        detail="LiteRT",
        kind="network",
        length=CONTEXT_TOKENS,
        parameters=None,
        model_bytes=row["size_bytes"],
        device_bytes=row["size_bytes"],
        call=lambda number: graph(timed[number % len(timed)]),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a trained run")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table and the JSON")
    arguments = parser.parse_args(argv)
    try:
        if arguments.rounds < 1:
            raise InputError(f"--rounds is {arguments.rounds}, expected a whole number from 1")
        found = compare(arguments.run, arguments.rounds)
        table = format_table(found)
        arguments.output.mkdir(parents=True, exist_ok=True)
        atomic_write(arguments.output / "litert-torch.md", table + "\n")
        atomic_write(arguments.output / "litert-torch.json", json.dumps(found) + "\n")
        sys.stdout.write(table + "\n")
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
