"""Ask the examples of the model card again, and write the answers of the bundle that ships into it.

    python tools/card_examples.py    # rewrites models/README.md; after a new student was exported

The table under "What it is bad at" holds texts and questions; this fills in the last two columns, answer and
probability, and the time that the bundle was made.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from qa_edge_runtime import Answerer, QaEdgeError
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_write

CARD = Path(__file__).resolve().parent.parent / "models" / "README.md"
HEADINGS = ["weakness", "text", "question", "right", "it answers", "P"]
_MADE = re.compile(r"(?<=are those of the bundle made )\S+(?=\.(?:\s|$))")


def asked_again(card: str, answerer: Answerer) -> str:
    """The card with the answers of a bundle.

    :raises DataError: if the card has no table of examples, or does not say which bundle answered.
    """
    lines, inside, rows = card.splitlines(), False, 0
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells == HEADINGS:
            inside = True
        elif not cells:
            inside = False
        elif inside and len(cells) == len(HEADINGS) and set(cells[0]) != {"-"}:
            answer = answerer.answer(cells[2], cells[1])
            likely = "-" if answer.probability is None else f"{answer.probability:.2f}"
            found = " ".join(answer.text.split())
            lines[number] = f"| {' | '.join([*cells[:4], found, likely])} |".replace("|  |", "| |")
            rows += 1
    made = answerer.bundle.manifest.created
    text, places = _MADE.subn(made, "\n".join(lines) + "\n")
    if not rows or places != 1:
        raise DataError(
            f"the model card has {rows} examples and names its bundle {places} times; expected a table with"
            f" {', '.join(HEADINGS)} and one sentence that ends with 'are those of the bundle made TIME.'"
        )
    return text


def main() -> int:
    """Rewrite the card."""
    try:
        with Answerer.load() as answerer:
            atomic_write(CARD, asked_again(CARD.read_text(encoding="utf-8"), answerer))
    except (QaEdgeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
