"""Ask a bundle two questions of the embedded example: one of its training texts, one of the texts kept apart.

    python tools/ask_example.py runs/demo/demo.qab

The end of `make demo`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qa_edge_runtime import Answerer, QaEdgeError

EXAMPLE = Path(__file__).resolve().parent.parent / "qa_edge" / "example"


def main() -> int:
    """Print text, question, expected answer and answer of both."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python tools/ask_example.py BUNDLE.qab\n")
        return 2
    try:
        with Answerer.load(sys.argv[1]) as answerer:
            for name in ("train.json", "dev.json"):
                document = json.loads((EXAMPLE / name).read_text(encoding="utf-8"))
                paragraph = document["data"][0]["paragraphs"][0]
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
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
