"""Answer questions of a SQuAD file with a bundle and keep the answers, one line of JSON each.

    python tools/ask_squad.py BUNDLE.qab dev-v1.1.json --questions 200 --engine tflite --precision int8 -o answers.jsonl

Needs the runtime and one engine alone: `tools/check_arm64.sh` runs it here and under emulation. The first line says
which engine answered. Questions whose answer is in the file already are not asked again, so that a run that was
interrupted goes on; a file that another engine or version wrote is begun anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime import Answerer, QaEdgeError
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write, require_other_file
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions

# Best answers that are kept of a question: their logits show how far two engines are from each other.
KEPT = 5


def spread(questions: Sequence[SquadQuestion], count: int) -> list[SquadQuestion]:
    """So many of the questions, evenly spread, or all of them if there are not as many."""
    every = len(questions)
    return [questions[index * every // count] for index in range(count)] if count < every else list(questions)


def read_answers(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Who answered, and the answers by question id, as `main` wrote them; both empty if the file is not there.

    :raises DataError: if the file holds something else; a last line without an end was cut, and is passed over.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = text.split("\n")[:-1]
    if not text:
        return {}, {}
    try:
        header, *answers = (json.loads(line) for line in lines)
        if "engine" not in header:
            raise KeyError("engine")
        return header, {answer["id"]: answer for answer in answers}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds something else than answers: remove it and run this again") from error


def ask(answerer: Answerer, questions: Sequence[SquadQuestion], target: Path) -> None:
    """Answer each question that has no answer in the file yet, and write each answer as soon as it is there."""
    header = {
        "engine": answerer.engine_name,
        "engine_version": answerer.engine_version,
        "precision": answerer.precision,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    known, answers = read_answers(target)
    if known != header:
        answers = {}
    atomic_write(target, "".join(json.dumps(line) + "\n" for line in (header, *answers.values())))
    missing = [question for question in questions if question.id not in answers]
    with target.open("a", encoding="utf-8") as stream:
        for number, question in enumerate(missing, 1):
            found = answerer.answers(question.question, question.context, top_k=KEPT)
            best = [[answer.start, answer.end, float(answer.logit)] for answer in found]
            stream.write(json.dumps({"id": question.id, "text": found[0].text, "best": best}) + "\n")
            stream.flush()
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{number} of {len(missing)} questions" + "\n" * (number == len(missing)))


def main() -> int:
    """Ask the questions that are missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle")
    parser.add_argument("squad", metavar="SQUAD.json")
    parser.add_argument("--questions", type=int, default=200, metavar="N", help="questions, spread over the file (200)")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    if options.questions < 1:
        parser.error(f"--questions is {options.questions}, expected a whole number from 1")
    try:
        require_other_file(options.output, options.squad, options.bundle)
        questions = spread(load_squad_questions(options.squad), options.questions)
        with Answerer.load(options.bundle, engine=options.engine, precision=options.precision) as answerer:
            ask(answerer, questions, options.output)
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
