"""The table of docs/own-domain.md: what each way of adapting gains on the domain and costs elsewhere, in Markdown.

    python tools/domain_table.py domain before unlabelled labelled

Of each name there are the answers NAME.test.json and NAME.other.json, as `qa-edge evaluate -o` writes them; changes are
against the first one, with the 95 % interval of the paired bootstrap.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from qa_edge.question_scores import QuestionScores
from qa_edge.significance import bootstrap
from qa_edge.squad import read_squad
from qa_edge.system_comparison import score_prediction_file
from qa_edge_runtime.errors import QaEdgeError

PARTS = ("test", "other")


def domain_table(domain: Path, names: list[str]) -> str:
    """Rows of the named systems, whose answers lie in the working directory.

    :raises DataError: if answers are missing, or to other questions.
    """
    squads = {part: read_squad(domain / f"{part}.json") for part in PARTS}
    scores = {
        name: {part: score_prediction_file(f"{name}.{part}.json", squad) for part, squad in squads.items()}
        for name in names
    }
    counts = {part: len(scores[names[0]][part].ids) for part in PARTS}
    lines = [
        f"| | EM, domain ({counts['test']:,} questions) | F1 | change | F1, others ({counts['other']:,}) | change |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in scores.items():
        changes = {part: _change(scores[names[0]][part], found[part]) if name != names[0] else "" for part in PARTS}
        test, other = found["test"], found["other"]
        cells = [name, f"{test.exact_match_percent:.2f}", f"{test.f1_percent:.2f}", changes["test"]]
        lines.append("| " + " | ".join([*cells, f"{other.f1_percent:.2f}", changes["other"]]) + " |")
    return "\n".join(lines) + "\n"


def _change(before: QuestionScores, after: QuestionScores) -> str:
    """Of F1, in points."""
    test = bootstrap(after.f1 - before.f1, rng=np.random.default_rng(0))
    return f"{100 * test.difference:+.2f} ({100 * test.low:+.2f} to {100 * test.high:+.2f})"


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("domain", type=Path, help="folder that cut_domain.py wrote")
    parser.add_argument("names", nargs="+", help="systems, the one to compare with first")
    arguments = parser.parse_args(argv)
    try:
        sys.stdout.write(domain_table(arguments.domain, arguments.names))
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
