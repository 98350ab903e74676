"""What a long text costs: read once, asked in its best windows, asked in all; and what a passage that is kept saves.

    python benchmarks/documents.py first.qab --squad dev-v1.1.json -o docs/benchmarks/documents.json

The document is the file's distinct contexts with a blank line between them, cut to a million characters, as in
`outside_network.py`; its questions are spread evenly over the file. Every engine that is installed and that the bundle
has graphs for takes its turn, on one thread. A question in the best windows is asked of a passage that was read before;
"both" reads and asks a text of which no word is remembered. The kept passages have about 150 tokens: each is asked its
question as a passage and as a string, right after each other, the other way round in every second round. Writes every
sample.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outside_network import choose_questions, milliseconds
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import MissingExtraError, QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.machine import describe_machine
from qa_edge_runtime.machine_load import LoadMeter
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions

ENGINES = ("tflite", "onnx")
MAX_WINDOWS = 16


def time_document(
    answerer: Answerer, text: str, questions: Sequence[str], rounds: int, all_windows: int
) -> dict[str, Any]:
    """Seconds of each step, every sample."""
    passage = answerer.read(text)
    passage.answer(questions[0], max_windows=MAX_WINDOWS)
    times: dict[str, list[float]] = {"read": [], "both": []}
    for number in range(rounds):
        times["read"].append(_seconds(lambda: answerer.read(text)))
        answerer.forget()
        question = questions[number % len(questions)]
        times["both"].append(_seconds(lambda asked=question: answerer.answer(asked, text, max_windows=MAX_WINDOWS)))
    times["best_windows"] = [
        _seconds(lambda asked=question: passage.answer(asked, max_windows=MAX_WINDOWS)) for question in questions
    ]
    times["all_windows"] = [
        _seconds(lambda asked=question: passage.answer(asked)) for question in questions[:all_windows]
    ]
    return {"windows": passage.windows, "tokens": passage.tokens, "seconds": times}


def time_kept(answerer: Answerer, questions: Sequence[SquadQuestion], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each question, asked of a passage that is kept and of a string."""
    passages = [answerer.read(question.context) for question in questions]
    times: dict[str, list[float]] = {"kept": [], "string": []}
    for number in range(rounds + 1):
        for question, passage in zip(questions, passages, strict=True):
            ways: list[tuple[str, Callable[[], object]]] = [
                ("kept", lambda asked=question, of=passage: of.answer(asked.question)),
                ("string", lambda asked=question: answerer.answer(asked.question, asked.context)),
            ]
            for name, ask in ways if number % 2 else reversed(ways):
                spent = milliseconds(ask)
                if number:  # the first round brings the words into the caches
                    times[name].append(spent)
    return times


def measure(bundle: Bundle, squad: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A row for each engine."""
    short, document = choose_questions(squad, bundle.tokenizer(), options.short)
    every = load_squad_questions(squad)
    step = max(1, len(every) // options.questions)
    asked = [question.question for question in every[::step]][: options.questions]
    rows = []
    for engine in ENGINES:
        if engine not in bundle.manifest.engines:
            continue
        meter = LoadMeter()
        try:
            answerer = Answerer(bundle, engine=engine)
        except MissingExtraError as error:
            sys.stderr.write(f"left out: {error}\n")
            continue
        with answerer:
            row = {
                "engine": f"{answerer.engine_name} {answerer.engine_version} {answerer.precision}",
                "document": time_document(answerer, document, asked, options.rounds, options.all_windows),
                "kept_ms": time_kept(answerer, short, options.kept_rounds),
            }
        row["others_share"] = meter.read().others_share
        rows.append(row)
    return {
        "bundle": bundle.manifest.name,
        "created": bundle.manifest.created,
        "machine": describe_machine(),
        "characters": len(document),
        "max_windows": MAX_WINDOWS,
        "short_texts": len(short),
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """Medians, as Markdown."""
    lines = [
        f"| | windows | read, s | a question, {found['max_windows']} windows, s | both, no word remembered, s |"
        " a question, all windows, s | 150 tokens: kept, ms | as a string, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        seconds, kept = row["document"]["seconds"], row["kept_ms"]
        figures = [
            *(f"{statistics.median(seconds[name]):.2f}" for name in ("read", "best_windows", "both")),
            f"{statistics.median(seconds['all_windows']):.1f}" if seconds["all_windows"] else "",
            *(f"{statistics.median(kept[name]):.2f}" for name in ("kept", "string")),
        ]
        lines.append(f"| {row['engine']} | {row['document']['windows']} | {' | '.join(figures)} |")
    shares = [row["others_share"] for row in found["rows"] if row["others_share"] is not None]
    if shares and max(shares) > 0.1:
        lines.append(f"Other processes had {100 * max(shares):.0f} % of the cores meanwhile: not worth quoting.")
    return "\n".join(lines)


def _seconds(call: Callable[[], object]) -> float:
    return milliseconds(call) / 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--squad", type=Path, required=True, help="a SQuAD file whose contexts are the document")
    parser.add_argument("--questions", type=int, default=20, help="asked of the document, in its best windows (20)")
    parser.add_argument("--rounds", type=int, default=7, help="times that the document is read anew (7)")
    parser.add_argument("--all-windows", type=int, default=2, help="questions asked of all windows (2)")
    parser.add_argument("--short", type=int, default=50, help="passages of about 150 tokens (50)")
    parser.add_argument("--kept-rounds", type=int, default=4, help="times that each of these is asked both ways (4)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON")
    options = parser.parse_args(arguments)
    if min(options.questions, options.rounds, options.kept_rounds) < 1:
        parser.error("--questions, --rounds and --kept-rounds are at least 1")
    try:
        found = measure(Bundle.open(options.bundle), options.squad, options)
        atomic_write(options.output, json.dumps(found, indent=1) + "\n")
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
