"""How F1 falls as a bundle gets smaller: the same graphs with token tables of several sizes and dtypes.

    python benchmarks/table_curve.py runs/first first.qab --squad dev-v1.1.json -o docs/benchmarks/table-curve

RUN is the run that BUNDLE was exported from. Every point is a bundle that the device runtime loads and answers all the
questions with. Writes NAME.json, which holds the points so far after each of them, and in the end NAME.png. Needs the
extras train and bench of qa-edge.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge.bundle import word_counts
from qa_edge.evaluate import predict
from qa_edge.squad import Squad, read_squad, references
from qa_edge_export.checkpoint import Checkpoint, read_checkpoint
from qa_edge_export.token_table import Table, build_table, choose_words, rank_words
from qa_edge_runtime.bundle import Bundle, write_bundle
from qa_edge_runtime.engine import EngineChoice, choose_engine, open_engine
from qa_edge_runtime.errors import DataError, InputError, MissingExtraError, QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.graphs import ENGINES, PRECISIONS
from qa_edge_runtime.machine import describe_machine
from qa_edge_runtime.scoring import score_predictions
from qa_edge_runtime.table import TABLE_DTYPES

WORDS = (2_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000)
DTYPES = ("int8", "int4")
# Rows that are compared to see whether a bundle's table was made from a run.
COMPARED_ROWS = 100


def check_pair(checkpoint: Checkpoint, base: Bundle) -> None:
    """Refuse a bundle that was made from another run: by the student's configuration, then by what its table holds.

    :raises DataError: naming both.
    """
    refusal = f"{base.path} was not exported from {checkpoint.folder}"
    advice = "name the run that it was exported from, or export the bundle again"
    if dict(base.manifest.student) != dict(checkpoint.config):
        raise DataError(f"{refusal}: the configuration of its student is another; {advice}")
    vocabulary = base.vocabulary()
    if vocabulary.characters != checkpoint.vocabulary.characters:
        raise DataError(f"{refusal}: its characters are others; {advice}")
    words = vocabulary.words[:COMPARED_ROWS]
    if not words:
        return
    found = base.table.rows(range(1, len(words) + 1))
    table = build_table(checkpoint, words, "float32")
    exact = np.load(io.BytesIO(table.files[table.spec.file]), allow_pickle=False)[1:]
    # A table of 4 bits is off by a sixteenth of a group's largest value; that of another run by all of it.
    if np.abs(found - exact).max() > np.abs(exact).max() / 8:
        raise DataError(f"{refusal}: its table holds other states than the run's weights give; {advice}")


def write_with_table(path: Path, base: Bundle, table: Table) -> None:
    """Write a bundle that is another one but for its token table."""
    kept = {name: (base.path / name).read_bytes() for name in base.manifest.files if not name.startswith("table")}
    manifest = base.manifest
    write_bundle(
        path,
        {**kept, **table.files},
        graphs=manifest.graphs,
        table=table.spec,
        student=manifest.student,
        qa_edge_version=manifest.qa_edge_version,
        spacy_version=manifest.spacy_version,
        max_answer_tokens=manifest.max_answer_tokens,
    )


def measure_point(
    checkpoint: Checkpoint, base: Bundle, words: Sequence[str], dtype: str, squad: Squad, choice: EngineChoice
) -> dict[str, Any]:
    """Score a bundle with these words in rows of `dtype`, answering through one of its graphs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "point.qab"
        write_with_table(path, base, build_table(checkpoint, words, dtype))
        size = Bundle.open(path).size_bytes
        scores = score_predictions(references(squad), predict(path, squad, **choice._asdict()))
    return {
        "words": len(words),
        "dtype": dtype,
        "size_bytes": size,
        "exact_match": scores.exact_match,
        "f1": scores.f1,
        "total": scores.total,
    }


def load_pyplot() -> Any:
    """matplotlib's pyplot, drawing to files.

    :raises MissingExtraError: if matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError('drawing needs matplotlib: pip install "qa-edge[bench]"') from error
    return pyplot


def draw(points: Sequence[Mapping[str, Any]], title: str, target: Path) -> None:
    """Draw F1 against size, one line a dtype, each point labelled with its words.

    :raises MissingExtraError: if matplotlib is not installed.
    """
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for dtype in dict.fromkeys(point["dtype"] for point in points):
        line = [point for point in points if point["dtype"] == dtype]
        sizes, scores = [point["size_bytes"] / 1e6 for point in line], [point["f1"] for point in line]
        axes.plot(sizes, scores, marker="o", label=f"rows of {dtype}")
        for point, size, score in zip(line, sizes, scores, strict=True):
            below = dtype == DTYPES[0]
            axes.annotate(
                f"{point['words'] // 1000}k",
                (size, score),
                xytext=(0, -14 if below else 7),
                ha="center",
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xlabel("size of the bundle, MB (10^6 bytes)")
    axes.set_ylabel("F1")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def measure_curve(arguments: argparse.Namespace) -> None:
    """All points, each written as soon as it is measured; what cannot work is refused before the first.

    :raises QaEdgeError: one sentence on what is wrong.
    """
    load_pyplot()
    result = arguments.output.parent / f"{arguments.output.name}.json"
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder of {result}: {error.strerror or error}; name another path") from error
    base = Bundle.open(arguments.bundle)
    choice = choose_engine(base, engine=arguments.engine, precision=arguments.precision)
    engine = open_engine(base, "core", **choice._asdict())
    checkpoint = read_checkpoint(arguments.run)
    check_pair(checkpoint, base)
    squad = read_squad(arguments.squad)
    if min(arguments.words) < 1:
        raise InputError(f"--words has {min(arguments.words)}, expected whole numbers from 1")
    counts, counted = word_counts(arguments.run, arguments.text, checkpoint.tokenizer)
    ranked = rank_words(checkpoint, counts)
    lists = [choose_words(ranked, count) for count in sorted(set(arguments.words))]
    points: list[dict[str, Any]] = []
    content = {
        "bundle": base.manifest.name,
        "questions": arguments.squad.name,
        **choice._asdict(),
        "package": f"{engine.name} {engine.version}",
        "words_from": counted,
        "machine": describe_machine(),
        "points": points,
    }
    for dtype in dict.fromkeys(arguments.dtypes):
        for words in lists:
            points.append(measure_point(checkpoint, base, words, dtype, squad, choice))
            atomic_write(result, json.dumps(content, indent=1) + "\n")
            sys.stderr.write(f"{json.dumps(points[-1])}\n")
    title = (
        f"Token tables of {base.manifest.name} ({choice.engine} {choice.precision}) on {points[0]['total']:,} questions"
        f" of {arguments.squad.name}"
    )
    draw(points, title, result.with_suffix(".png"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--squad", type=Path, required=True, help="questions to score on")
    parser.add_argument("--text", type=Path, help="as for qa-edge export")
    parser.add_argument("--words", type=int, nargs="+", default=list(WORDS))
    parser.add_argument("--dtypes", nargs="+", choices=TABLE_DTYPES, default=list(DTYPES))
    parser.add_argument("--engine", choices=ENGINES, help="as for qa-edge evaluate")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the bundle's graphs, as for qa-edge evaluate")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without ending; its folder is made")
    arguments = parser.parse_args(argv)
    try:
        measure_curve(arguments)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: what was measured until now is in {arguments.output}.json, if there was any\n")
        return 130
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
