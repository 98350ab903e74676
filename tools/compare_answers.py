"""Compare the answers of two machines to the same questions, and say whether both read alike.

    python tools/compare_answers.py dev-v1.1.json RESULTS --rows onnx-int8 tflite-int8 --questions 200 --tolerance 1

The end of `tools/check_arm64.sh`. RESULTS holds for each row the answers of both sides (`here-ROW.jsonl` and
`there-ROW.jsonl`, of `tools/ask_squad.py`) and the exit codes of both conformance runs (`here-ROW.verify.code` and
`there-ROW.verify.code`). Prints a table; exits with 1 if a conformance run failed or the F1 of the two sides differ by
more than the tolerance.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ask_squad import read_answers, spread

from qa_edge_runtime import QaEdgeError
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions
from qa_edge_runtime.scoring import Scores, score_predictions

# tflite-runtime has no counterpart here: its rows stand beside LiteRT's on the same graph.
STAND_IN = {"tflite_runtime": "tflite", "armv7_tflite_runtime": "tflite"}
HEADINGS = (
    "engine there|machine|graph|cases here|there|same answer|logits apart: median|largest|EM here|there|F1 here|there|"
)


class Side(NamedTuple):
    """What one machine made of a row: who answered, the answers by question id, and if its conformance cases passed."""

    header: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two sides answered the same questions.

    :ivar same: questions whose best answer has the same characters.
    :ivar total: questions.
    :ivar median: of the differences in logit of all spans that both sides have among their best answers.
    :ivar largest: of these differences.
    :ivar here: scores of this machine on these questions.
    :ivar there: scores of the other one on these questions.
    """

    same: int
    total: int
    median: float
    largest: float
    here: Scores
    there: Scores


def read_side(folder: Path, side: str, row: str) -> Side:
    """What `tools/check_arm64.sh` left of a row.

    :raises DataError: if it has not come so far.
    """
    header, answers = read_answers(folder / f"{side}-{row}.jsonl")
    code = folder / f"{side}-{row}.verify.code"
    if not header or not code.is_file():
        raise DataError(f"{folder} has no answers or no conformance run of {side}-{row}: run the check again")
    return Side(header, answers, code.read_text(encoding="ascii").strip() == "0")


def compare(
    questions: Sequence[SquadQuestion], here: Mapping[str, dict[str, Any]], there: Mapping[str, dict[str, Any]]
) -> Agreement:
    """Compare the answers of two sides, each by question id.

    :raises DataError: if a side has no answer to one of the questions.
    """
    same, apart = 0, []
    for question in questions:
        if question.id not in here or question.id not in there:
            raise DataError(f"question {question.id} has no answer on one side: run the check again, it goes on")
        one, other = (
            {(start, end): logit for start, end, logit in side[question.id]["best"]} for side in (here, there)
        )
        same += next(iter(one)) == next(iter(other))
        apart += [abs(one[span] - other[span]) for span in one.keys() & other.keys()]
    references = {question.id: question.answers for question in questions}
    scores = [score_predictions(references, {key: side[key]["text"] for key in references}) for side in (here, there)]
    return Agreement(
        same=same,
        total=len(questions),
        median=statistics.median(apart) if apart else float("nan"),
        largest=max(apart, default=float("nan")),
        here=scores[0],
        there=scores[1],
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first three to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headings, *rows)
    )


def report(questions: Sequence[SquadQuestion], folder: Path, rows: Sequence[str], tolerance: float) -> tuple[str, bool]:
    """The table with its notes, and whether every row of it is well."""
    lines, well = [], True
    machines: set[str] = set()
    notes: dict[str, None] = {}
    for row in rows:
        engine, precision = row.split("-")
        partner = f"{STAND_IN.get(engine, engine)}-{precision}"
        here, there = read_side(folder, "here", partner), read_side(folder, "there", row)
        for side, header in (("here", here.header), ("there", there.header)):
            machines.add(f"{side:<5} {header['machine']}, Python {header['python']}, numpy {header['numpy']}")
        names = [f"{header['engine']} {header['engine_version']}" for header in (here.header, there.header)]
        if names[0] != names[1]:
            notes.setdefault(f"The answers here that {names[1]} is compared with are those of {names[0]}.")
        agreement = compare(questions, here.answers, there.answers)
        row_well = here.passed and there.passed and abs(agreement.here.f1 - agreement.there.f1) <= tolerance
        well = well and row_well
        lines.append(
            (
                names[1],
                there.header["machine"],
                precision,
                *("pass" if side.passed else "FAIL" for side in (here, there)),
                f"{agreement.same} of {agreement.total}",
                *(
                    f"{number:.1e}" if number < 0.001 else f"{number:.3f}"
                    for number in (agreement.median, agreement.largest)
                ),
                *(f"{scores.exact_match:.2f}" for scores in (agreement.here, agreement.there)),
                *(f"{scores.f1:.2f}" for scores in (agreement.here, agreement.there)),
                "ok" if row_well else "NOT OK",
            )
        )
    meaning = (
        f"EM and F1 are of these {len(questions)} questions alone, which are spread evenly over the file.",
        "A row is ok if the conformance cases pass on both sides and its two F1 are within "
        f"{tolerance:g} of each other: {sum(line[-1] == 'ok' for line in lines)} of {len(lines)} are.",
    )
    return "\n".join([table(HEADINGS.split("|"), lines), "", *sorted(machines), *notes, *meaning]), well


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("squad", metavar="SQUAD.json")
    parser.add_argument("results", type=Path)
    parser.add_argument("--rows", nargs="+", required=True, metavar="ENGINE-PRECISION")
    parser.add_argument("--questions", type=int, default=200, metavar="N", help="questions, spread over the file (200)")
    parser.add_argument("--tolerance", type=float, default=1.0, metavar="F1", help="allowed difference in F1 (1.0)")
    options = parser.parse_args()
    for row in options.rows:
        if row.count("-") != 1:
            parser.error(f"--rows has {row!r:.40}, expected an engine and a precision such as tflite-int8")
    try:
        questions = spread(load_squad_questions(options.squad), options.questions)
        text, well = report(questions, options.results, options.rows, options.tolerance)
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(text + "\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
