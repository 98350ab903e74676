"""What the device runtime brings and takes: installed packages and their size, time of import and to the first answer,
memory.

    python benchmarks/footprint.py first.qab other.qab -o docs/benchmarks/footprint

From nothing: builds the wheel, makes an environment for each engine, installs the wheel and the engine, and measures
each bundle in fresh processes, a process of each in turn. A bundle without a graph for an engine is left out there.
Writes NAME.json with every sample and NAME.md. Needs the repository, pip's registry and Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import DataError, QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "qa_edge" / "example" / "dev.json"
PROBE = Path(__file__).with_name("footprint_probe.py")
# Extra -> its name for people, and the precisions that it runs.
EXTRAS = {
    "tflite": ("LiteRT", {"int8", "fp16", "fp32"}),
    "onnx": ("ONNX Runtime", {"int8", "fp16", "fp32"}),
    "tflite-runtime": ("tflite-runtime", {"fp16", "fp32"}),
}
# Issue 5: what is asked of the runtime.
LIMITS = {"wheel_kb": 200, "import_ms": 60, "tflite_ms": 500, "onnx_ms": 1000, "peak_mb": 100}
INSTALLERS = {"pip", "setuptools", "wheel"}
MEGABYTE = 1e6
LISTING = """
import json, sys
from importlib import metadata
found = {}
for distribution in metadata.distributions():
    sizes = [file.locate().stat().st_size for file in distribution.files or () if file.locate().is_file()]
    found[distribution.metadata["Name"]] = [distribution.version, sum(sizes)]
json.dump(found, sys.stdout)
"""


def build_wheel(folder: Path) -> Path:
    """The runtime's wheel."""
    _call(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT / "runtime")
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extra: str, folder: Path) -> Path | None:
    """The Python of a new environment with the wheel and an engine; None if there is no such engine for this Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", f"{wheel}[{extra}]"]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode == 0:
        return python
    if "No matching distribution" in done.stderr:
        return None
    raise DataError(f"installing {extra} failed: {done.stderr.strip().splitlines()[-1]:.300}")


def list_installed(python: Path) -> dict[str, tuple[str, int]]:
    """Version and bytes of every distribution of an environment, less those that install others."""
    found = json.loads(_call(str(python), "-c", LISTING))
    return {name: (version, size) for name, (version, size) in sorted(found.items()) if name not in INSTALLERS}


def import_ms(python: Path) -> float:
    """Milliseconds of `import qa_edge_runtime` after numpy's, as -X importtime has it in a fresh process."""
    command = [str(python), "-X", "importtime", "-c", "import numpy; import qa_edge_runtime"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment()).stderr
    (cumulative,) = re.findall(r"^import time: +\d+ \| +(\d+) \| qa_edge_runtime$", said, re.MULTILINE)
    return int(cumulative) / 1e3


def answer_once(python: Path, bundle: Path, first: tuple[str, str], then: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a fresh process says of itself; see `footprint_probe.py`."""
    asked = {"bundle": str(bundle.resolve()), "first": first, "then": list(then)}
    return dict(json.loads(_call(str(python), str(PROBE), given=json.dumps(asked))))


def read_texts() -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """A question with its paragraph; and more, the last of them on all paragraphs of the example in one text."""
    articles = json.loads(EXAMPLE.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    pairs = [(asked["question"], paragraph["context"]) for paragraph in paragraphs for asked in paragraph["qas"]]
    document = "\n\n".join(paragraph["context"] for paragraph in paragraphs)
    return pairs[0], [*pairs[1:6], *((question, document) for question, _ in pairs[6:9])]


def measure(pythons: dict[str, Path], bundles: Sequence[Path], repeat: int) -> list[dict[str, Any]]:
    """Rows of every engine with every bundle that has a graph for it, their samples taken in turn."""
    first, then = read_texts()
    rows: list[dict[str, Any]] = []
    for extra, bundle in itertools.product(pythons, bundles):
        manifest = Bundle.open(bundle).manifest
        engine = "onnx" if extra == "onnx" else "tflite"
        if engine in manifest.engines and EXTRAS[extra][1] & set(manifest.precisions(engine)):
            rows.append({"extra": extra, "bundle": bundle.name, "path": bundle, "import_ms": [], "processes": []})
    for done in range(repeat + 1):
        for row in rows:
            python = pythons[row["extra"]]
            imported, found = import_ms(python), answer_once(python, row["path"], first, then)
            if done:  # the first round brings files into the system's cache and compiles the modules
                row["import_ms"].append(imported)
                row["processes"].append(found["steps"])
            row |= {key: found[key] for key in ("engine", "precision", "words", "table")}
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {done} of {repeat}")
    return [{key: value for key, value in row.items() if key != "path"} for row in rows]


def summarise(row: dict[str, Any]) -> dict[str, float]:
    """Medians of a row's times, and the most memory."""

    def median(*steps: str, clock: str = "wall_ms") -> float:
        return statistics.median(sum(process[step][clock] for step in steps) for process in row["processes"])

    def peak(step: str) -> float:
        return max(process[step]["peak_mb"] for process in row["processes"])

    answered = ("load", "first_answer")
    whole = ("started", "numpy", "import", *answered)
    return {
        "import_ms": statistics.median(row["import_ms"]),
        "import_cpu_ms": median("import", clock="cpu_ms"),
        "answer_ms": median(*answered),
        "answer_cpu_ms": median(*answered, clock="cpu_ms"),
        "whole_ms": median(*whole),
        "whole_cpu_ms": median(*whole, clock="cpu_ms"),
        "first_mb": peak("first_answer"),
        "peak_mb": peak("more_answers"),
    }


def render(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    machine, wheel = found["machine"], found["wheel"]
    lines = [
        "# Footprint of the runtime",
        "",
        f"Wheel: {wheel['size_bytes'] / 1e3:.0f} kB (limit {LIMITS['wheel_kb']}).",
        "",
        "| extra | installs | MB on disk |",
        "|---|---|---|",
    ]
    for extra, packages in found["installed"].items():
        if packages is None:
            lines.append(f"| `{extra}` | no wheel for Python {machine['python']} | |")
            continue
        names = ", ".join(f"{name} {version}" for name, (version, _) in packages.items())
        lines.append(f"| `{extra}` | {names} | {sum(size for _, size in packages.values()) / MEGABYTE:.0f} |")
    lines += [
        "",
        "| engine, graph | bundle | import beyond numpy, ms | load to first answer, ms | process to first answer, ms |"
        " peak after it, MB | peak after a long text, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        figures = summarise(row)
        limit = LIMITS.get(f"{row['extra']}_ms")
        cells = [
            f"{EXTRAS[row['extra']][0]} {row['engine'][1]}, {row['precision']}",
            f"{row['bundle']}: {row['words']:,} words, {row['table']}",
            _against(figures["import_ms"], LIMITS["import_ms"], figures["import_cpu_ms"]),
            _against(figures["answer_ms"], limit, figures["answer_cpu_ms"]),
            _against(figures["whole_ms"], None, figures["whole_cpu_ms"]),
            f"{figures['first_mb']:.0f}",
            _against(figures["peak_mb"], LIMITS["peak_mb"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rounds = len(found["rows"][0]["processes"]) if found["rows"] else 0
    lines += [
        "",
        f"Medians of {rounds} fresh processes each, taken in turn; in brackets the processor's own time and the limit"
        " that was set. Memory is the most that any of them had resident, in 10^6 bytes. The import is what"
        " -X importtime says. The first answer is on a paragraph of the example, the long text all of its paragraphs in"
        " one.",
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1_minute']} before and"
        f" {found['load_1_minute_after']} after, Python {machine['python']}, one thread. Made by"
        f" `{found['command']}` on {found['date']}.",
    ]
    if max(machine["load_1_minute"], found["load_1_minute_after"]) > 1.5:
        lines.append("The machine was loaded: the times by the clock are too long.")
    return "\n".join(lines) + "\n"


def _against(value: float, limit: float | None, cpu: float | None = None) -> str:
    notes = [f"{cpu:.0f} of the processor"] if cpu is not None else []
    notes += [f"limit {limit:g}{'' if value <= limit else ', missed'}"] if limit is not None else []
    return f"{value:.0f} ({', '.join(notes)})" if notes else f"{value:.0f}"


def _call(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=_environment())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{' '.join(command[:3])} ended with {done.returncode}: {last:.300}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Ours, without what would make another Python import from here."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME", help="NAME.json and NAME.md")
    parser.add_argument("--repeat", type=int, default=15, help="fresh processes of each row (15)")
    parser.add_argument("--extras", nargs="+", choices=EXTRAS, default=list(EXTRAS), help="engines (all)")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat is below 1")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = build_wheel(Path(scratch))
            found: dict[str, Any] = {
                "date": datetime.now(timezone.utc).date().isoformat(),
                "command": f"python benchmarks/footprint.py {' '.join(bundle.name for bundle in options.bundles)}"
                f" -o {options.output.name}",
                "wheel": {"name": wheel.name, "size_bytes": wheel.stat().st_size},
                "limits": LIMITS,
                "installed": {},
            }
            pythons: dict[str, Path] = {}
            for extra in options.extras:
                python = install(wheel, extra, Path(scratch) / extra)
                found["installed"][extra] = list_installed(python) if python else None
                if python:
                    pythons[extra] = python
            found["machine"] = describe_machine()
            found["rows"] = measure(pythons, options.bundles, options.repeat)
            found["load_1_minute_after"] = describe_machine()["load_1_minute"]
        text = render(found)
        atomic_write(options.output.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
        atomic_write(options.output.with_suffix(".md"), text)
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
