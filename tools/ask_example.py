"""Ask questions of the embedded example: two of a bundle that was trained on it, or one a document of what ships.

    python tools/ask_example.py runs/demo/demo.qab    # one question of its training texts, one of the texts kept apart
    python tools/ask_example.py                       # what qa-edge-models brings: the first question of each document

The end of `make demo`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qa_edge_runtime import Answerer, QaEdgeError
from qa_edge_runtime.scoring import exact_match

EXAMPLE = Path(__file__).resolve().parent.parent / "qa_edge" / "example"


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of one of the example's two files."""
    return json.loads((EXAMPLE / name).read_text(encoding="utf-8"))["data"]


def ask_trained(answerer: Answerer) -> None:
    """Print text, question, expected answer and answer of one training text and of one text kept apart."""
    for name in ("train.json", "dev.json"):
        paragraph = documents(name)[0]["paragraphs"][0]
        context, asked = paragraph["context"], paragraph["qas"][0]
        answer = answerer.answer(asked["question"], context)
        place = f"characters {answer.start} to {answer.end}, span probability {answer.span_probability:.2f}"
        lines = {
            "text": context,
            "question": asked["question"],
            "expected": asked["answers"][0]["text"],
            "answered": f"{answer.text}   ({place})",
        }
        sys.stdout.write("\n" + "".join(f"{label:<9} {value}\n" for label, value in lines.items()))


def ask_shipped(answerer: Answerer) -> None:
    """Print of each document its first question, the answer, how likely it is, and what was expected if another."""
    every, right = [*documents("dev.json"), *documents("train.json")], 0
    for document in every:
        paragraph = document["paragraphs"][0]
        asked = paragraph["qas"][0]
        answer = answerer.answer(asked["question"], paragraph["context"])
        likely = "" if answer.probability is None else f"{answer.probability:.0%}"
        as_expected = any(exact_match(answer.text, reference["text"]) for reference in asked["answers"])
        right += as_expected
        note = "" if as_expected else f"   (expected: {asked['answers'][0]['text']})"
        sys.stdout.write(f"  {asked['question']:<56} {likely:>4}  {answer.text}{note}\n")
    sys.stdout.write(
        f"{right} of {len(every)} right to the word; docs/answers.md has more, and its model card the rest\n"
    )


def main() -> int:
    """Ask the bundle that is named, or the one that ships."""
    if len(sys.argv) > 2:
        sys.stderr.write("usage: python tools/ask_example.py [BUNDLE.qab]\n")
        return 2
    try:
        with Answerer.load(*sys.argv[1:]) as answerer:
            (ask_trained if sys.argv[1:] else ask_shipped)(answerer)
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
