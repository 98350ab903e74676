"""What a larger student costs on a device and what it gives: F1 against latency for the runs of `experiment size`.

    python benchmarks/size_curve.py runs/size --squad dev-v1.1.json -o docs/benchmarks/size-curve

Exports the first seed's run of each variant for one engine, in int8, and has all of these bundles answer the same
questions, one after the other and in an order drawn anew for each question, with one thread. F1 and its interval are
those of the experiment's results.json: of the trained students, before export. Writes NAME.json and NAME.png. Needs the
extras train, bench and the engine's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interleave import Samples, run_rounds
from qa_edge.squad import read_squad
from qa_edge_runtime import Answerer, Bundle
from qa_edge_runtime.errors import DataError, InputError, QaEdgeError
from qa_edge_runtime.files import atomic_write, read_json
from qa_edge_runtime.graphs import ENGINES
from qa_edge_runtime.machine import describe_machine
from table_curve import load_pyplot

QUESTIONS = 300
RESAMPLES = 2_000


class OneBundle:
    """A bundle that answers question `n` at round `n`; what it remembers of words is forgotten before each call."""

    def __init__(self, bundle: Path, engine: str, questions: Sequence[tuple[str, str]]) -> None:
        self.answerer = Answerer.load(bundle, engine=engine, precision="int8", threads=1)
        self.questions = questions

    def prepare(self) -> None:
        """Forget what is remembered of words."""
        self.answerer.forget()

    def call(self, number: int) -> None:
        """Answer one question."""
        self.answerer.answer(*self.questions[number % len(self.questions)])


def read_variants(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The results of an experiment, and the run of each variant's first seed.

    :raises DataError: if these are no finished results, or a run is gone.
    """
    results = read_json(folder / "results.json", "results of an experiment")
    if not isinstance(results, dict) or not {"variants", "baseline", "tests"} <= results.keys():
        raise DataError(f"{folder / 'results.json'} is not what qa-edge experiment writes; name its folder, RUNS/size")
    if "dev" not in results["tests"]:
        raise DataError(f"the runs in {folder} were not scored on a development set; run the experiment with --dev")
    runs = {}
    for variant in results["variants"]:
        run = folder / f"{variant['name']}-seed{min(variant['seeds'])}"
        if not run.is_dir():
            raise DataError(f"{folder} has results of {variant['name']} but no run {run.name}; bring it back")
        runs[variant["name"]] = run
    if results["baseline"] not in runs:
        raise DataError(f"{folder} has no run of {results['baseline']}, the baseline; finish the experiment")
    return results, runs


def export_run(run: Path, engine: str, target: Path) -> None:
    """Export a run in a process of its own, which gives its memory back; what int8 costs is not judged here.

    :raises DataError: with what the export said.
    """
    command = [sys.executable, "-m", "qa_edge", "export", str(run), f"--{engine}", "--int8", "--margin", "100"]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"cannot export {run}: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no reason'}")


def ratio_interval(own: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """The median over the questions of own time divided by base time, and its 95 % bootstrap interval.

    :param own: milliseconds, one a question; `base` those of the same questions, measured beside them.
    """
    ratios = own / base
    chosen = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[chosen], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def measure_point(variant: Mapping[str, Any], bundle: Path, own: Samples, base: Samples) -> dict[str, Any]:
    """What the file says of a variant."""
    manifest = Bundle.open(bundle).manifest
    core = next(spec for spec in manifest.graphs if spec.role == "core")
    difference = variant["difference"].get("dev", {}).get("f1")
    times = np.array(own.wall_ms)
    ratio, low, high = ratio_interval(np.array(own.cpu_ms), np.array(base.cpu_ms))
    return {
        "name": variant["name"],
        "said": variant["said"],
        "seeds": variant["seeds"],
        "parameters": variant["parameters"],
        "core_graph_bytes": manifest.files[core.file].size_bytes,
        "median_ms": round(float(np.median(times)), 3),
        "p90_ms": round(float(np.percentile(times, 90)), 3),
        "cpu_ratio": round(ratio, 3),
        "cpu_ratio_interval": [round(low, 3), round(high, 3)],
        "exact_match": variant["scores"]["dev"]["exact_match"]["mean"],
        "f1": variant["scores"]["dev"]["f1"]["mean"],
        "f1_difference": difference
        and {name: round(100 * difference[name], 3) for name in ("difference", "low", "high")},
    }


def draw(points: Sequence[Mapping[str, Any]], title: str, target: Path) -> None:
    """Draw F1 against the median latency, with the interval of each difference from the baseline.

    :raises MissingExtraError: if matplotlib is not installed.
    """
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for point in points:
        found = point["f1_difference"]
        errors = [[found["difference"] - found["low"]], [found["high"] - found["difference"]]] if found else None
        colour = "C0" if found else "C1"
        axes.errorbar(point["median_ms"], point["f1"], yerr=errors, marker="o", color=colour, capsize=3)
        axes.annotate(
            point["said"], (point["median_ms"], point["f1"]), xytext=(7, -12), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("median time from question to answer, ms, 1 thread")
    axes.set_ylabel("F1 after the same short training")
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.15, y=0.15)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def measure_curve(arguments: argparse.Namespace) -> dict[str, Any]:
    """Export, time and draw; what cannot work is refused before the first export.

    :raises QaEdgeError: one sentence on what is wrong.
    """
    load_pyplot()
    results, runs = read_variants(arguments.folder)
    if arguments.questions < 1:
        raise InputError(f"--questions is {arguments.questions}, expected at least 1")
    asked = [
        (question.text, paragraph.context)
        for article in read_squad(arguments.squad).articles
        for paragraph in article.paragraphs
        for question in paragraph.questions
    ]
    chosen = np.random.default_rng(0).permutation(len(asked))[: arguments.questions]
    questions = [asked[index] for index in chosen]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        bundles = {name: Path(temporary) / f"{name}.qab" for name in runs}
        for name, run in runs.items():
            sys.stderr.write(f"exporting {run.name}\n")
            export_run(run, arguments.engine, bundles[name])
        sys.stderr.write(f"timing {len(bundles)} bundles on {len(questions)} questions\n")
        timed = {name: OneBundle(bundle, arguments.engine, questions) for name, bundle in bundles.items()}
        samples = dict(zip(timed, run_rounds(list(timed.values()), rounds=len(questions)), strict=True))
        base = samples[results["baseline"]]
        points = [
            measure_point(variant, bundles[variant["name"]], samples[variant["name"]], base)
            for variant in results["variants"]
        ]
        first = next(iter(timed.values())).answerer
        package = f"{first.engine_name} {first.engine_version}"
    test = results["tests"]["dev"]
    content = {
        "training": results["size"],
        "scored_on": test,
        "timed_on": f"{len(base.wall_ms)} questions of {arguments.squad.name}",
        "package": package,
        "precision": "int8",
        "baseline": results["baseline"],
        "machine": describe_machine(),
        "points": points,
    }
    atomic_write(arguments.output.parent / f"{arguments.output.name}.json", json.dumps(content, indent=1) + "\n")
    title = f"{test['total']:,} questions of {test['on']}; {results['size']}; {package} int8"
    draw(points, title, arguments.output.parent / f"{arguments.output.name}.png")
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the experiment, such as runs/size")
    parser.add_argument("--squad", type=Path, required=True, help="questions to time with")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help=f"how many of them; default {QUESTIONS}")
    parser.add_argument("--engine", choices=ENGINES, default="tflite")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without ending; its folder is made")
    arguments = parser.parse_args(argv)
    try:
        content = measure_curve(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing is written before all bundles are timed\n")
        return 130
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for point in content["points"]:
        sys.stdout.write(
            f"{point['said']:30} {point['parameters']:>10,} {point['median_ms']:>8.1f} ms {point['f1']:>7.2f} F1\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
