"""What the token table alone does to a bundle's answers: the same core graph with states that no table holds, and with
tables of every dtype.

    python benchmarks/table_agreement.py runs/first first.qab --squad dev-v1.1.json -o table-agreement.json

RUN is the run that BUNDLE was exported from, with its word vectors. The reference is the unfolded model: the state of
each token is worked out from the checkpoint as the token stands in the text. Each table has as many words as the
bundle's own, or all that are worth a row; they are the same ones if the run still has its features, or --text names
what they were counted in. What is not in it goes through the bundle's token graph, as on a device. Counted are
questions whose best answers have the same characters; beside all of them, those with no word that is known in another
case alone ("BRITISH" has the vector of "british" and characters of its own, a table gives it the row of "british"): of
these, rows of float32 are the reference's own states, and only words that no table holds are rounded, by the token
graph.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge.bundle import word_counts
from qa_edge.evaluate import answers_of_bundle
from qa_edge.split import sample_questions
from qa_edge.squad import Squad, read_squad, references
from qa_edge_export.checkpoint import Checkpoint, read_checkpoint
from qa_edge_export.inputs import ExactInputs
from qa_edge_export.token_table import build_table, choose_words, rank_words, table_keys
from qa_edge_runtime.answers import Answer, decode_answers
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import EngineChoice, choose_engine, open_engine
from qa_edge_runtime.errors import QaEdgeError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.graphs import ENGINES, PRECISIONS
from qa_edge_runtime.scoring import score_predictions
from qa_edge_runtime.table import TABLE_DTYPES
from qa_edge_runtime.windows import runs
from table_curve import check_pair, write_with_table


def unfolded_answers(checkpoint: Checkpoint, base: Bundle, squad: Squad, choice: EngineChoice) -> dict[str, Answer]:
    """The best answer to each question through a bundle's core graph on the checkpoint's own states."""
    engine, exact = open_engine(base, "core", **choice._asdict()), ExactInputs(checkpoint)
    longest, answers = base.manifest.max_answer_tokens, {}
    for _, paragraph, question in squad.items():
        tokens, windows, start, end = exact.logits(engine, question.text, paragraph.context)
        places = runs(windows)
        (answers[question.id],) = decode_answers(paragraph.context, tokens, start, end, longest, runs=places)
    return answers


def in_own_case(checkpoint: Checkpoint, words: Sequence[str], squad: Squad) -> set[str]:
    """Ids of the questions whose every word has a row of its own, or is known in no case."""
    forms, keys = set(words), set(table_keys(words))

    def own(token: str) -> bool:
        known = checkpoint.vocabulary.word_id(token) or token in keys or token.lower() in keys
        return token in forms or not known

    return {
        question.id
        for _, paragraph, question in squad.items()
        if all(own(token) for text in (paragraph.context, question.text) for token in checkpoint.tokenizer(text).texts)
    }


def compare(expected: dict[str, Answer], found: dict[str, Answer], own_case: set[str], squad: Squad) -> dict[str, Any]:
    """How many answers have the same characters, how far the others' logits are, and the scores."""
    alike = {name for name, answer in expected.items() if _place(found[name]) == _place(answer)}
    differences = [abs(found[name].logit - answer.logit) for name, answer in expected.items()]
    scores = score_predictions(references(squad), {name: answer.text for name, answer in found.items()})
    return {
        "questions": len(expected),
        "same_spans": len(alike),
        "same_share": round(len(alike) / len(expected), 4),
        "own_case": len(own_case),
        "own_case_same": len(alike & own_case),
        "median_logit_difference": float(f"{np.median(differences):.2g}"),
        "largest_logit_difference": float(f"{max(differences):.2g}"),
        "exact_match": round(scores.exact_match, 2),
        "f1": round(scores.f1, 2),
    }


def _place(answer: Answer) -> tuple[int, int]:
    return answer.start, answer.end


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows.

    :raises QaEdgeError: one sentence on what is wrong.
    """
    base, checkpoint = Bundle.open(arguments.bundle), read_checkpoint(arguments.run)
    choice = choose_engine(base, engine=arguments.engine, precision=arguments.precision)
    check_pair(checkpoint, base)
    squad = read_squad(arguments.squad)
    if arguments.sample is not None:
        squad = sample_questions(squad, arguments.sample, 0)
    counts, counted = word_counts(arguments.run, arguments.text, checkpoint.tokenizer)
    ranked = rank_words(checkpoint, counts)
    words = choose_words(ranked, min(len(ranked), base.manifest.table.rows - 1))
    expected = unfolded_answers(checkpoint, base, squad, choice)
    own_case = in_own_case(checkpoint, words, squad)
    rows = [{"table": "none", **compare(expected, expected, own_case, squad)}]
    for dtype in arguments.dtypes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.qab"
            write_with_table(path, base, build_table(checkpoint, words, dtype))
            found = answers_of_bundle(path, squad, **choice._asdict())
        rows.append({"table": dtype, **compare(expected, found, own_case, squad)})
        sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    return {
        "bundle": base.manifest.name,
        "created": base.manifest.created,
        "questions": arguments.squad.name,
        **choice._asdict(),
        "words": len(words),
        "words_from": counted,
        "rows": rows,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--squad", type=Path, required=True, help="questions that are asked")
    parser.add_argument("--sample", type=int, metavar="N", help="ask N of them alone, the same ones each time")
    parser.add_argument("--text", type=Path, help="what the words were counted in, as for qa-edge export")
    parser.add_argument("--dtypes", nargs="+", choices=TABLE_DTYPES, default=list(TABLE_DTYPES))
    parser.add_argument("--engine", choices=ENGINES, help="as for qa-edge evaluate")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the core graph, as for qa-edge evaluate")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON")
    arguments = parser.parse_args(argv)
    try:
        found = measure(arguments)
        atomic_write(arguments.output, json.dumps(found, indent=1) + "\n")
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for row in found["rows"]:
        own = f"in their own case {row['own_case_same']} of {row['own_case']}"
        print(f"{row['table']:8} same {row['same_spans']} of {row['questions']}, {own}  F1 {row['f1']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
