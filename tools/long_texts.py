"""The control of docs/experiments/003: questions at random, from texts as long as those that a loop chose.

    python tools/long_texts.py pool-8000.json --loop loops/lc-0 --seed 0 -o control-0.json

Written are the loop's first questions, which are random, and beside them as many as its strategy chose first, each from
a text whose number of words is within 5 % of that of one of the chosen (where none is left, the nearest). What
least confidence gains over these it does not gain by the length of the text.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from qa_edge.active.loop import read_choice
from qa_edge.active.pool import part_of
from qa_edge.squad import read_squad, write_squad
from qa_edge_runtime.errors import DataError, QaEdgeError

NEAR = 0.05


def alike(words: Mapping[str, int], first: Sequence[str], chosen: Sequence[str], *, seed: int) -> list[str]:
    """Ids of as many questions as `chosen` has, none of them of `first`, with texts as long.

    :param words: words in the text of each question, by its id.
    :raises DataError: if the questions are too few, or an id is unknown.
    """
    unknown = (set(first) | set(chosen)) - set(words)
    if unknown:
        raise DataError(f"the data set has no question {min(unknown)}: give the file that the loop was made from")
    left = sorted(set(words) - set(first))
    if len(left) < len(chosen):
        raise DataError(f"{len(chosen)} questions were chosen, and {len(left)} are left to draw from")
    generator = random.Random(seed)
    generator.shuffle(left)
    taken = []
    for wanted in sorted((words[one] for one in chosen), reverse=True):
        near = [one for one in left if abs(words[one] - wanted) <= NEAR * wanted]
        drawn = generator.choice(near or [min(left, key=lambda one: abs(words[one] - wanted))])
        taken.append(drawn)
        left.remove(drawn)
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the control of a loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("squad", type=Path)
    parser.add_argument("--loop", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args(arguments)
    try:
        squad = read_squad(asked.squad)
        words = {question.id: len(paragraph.context.split()) for _, paragraph, question in squad.items()}
        first, chosen = (read_choice(asked.loop / f"cycle-{number:03d}" / "chosen.json") for number in (0, 1))
        taken = alike(words, first, chosen, seed=asked.seed)
        write_squad(asked.output, part_of(squad, [*first, *taken]))
    except QaEdgeError as error:
        print(f"long_texts: error: {error}", file=sys.stderr)
        return 1
    means = [sum(words[one] for one in ids) / len(ids) for ids in (chosen, taken)]
    print(f"{len(taken)} questions, {means[0]:.0f} words a text as chosen, {means[1]:.0f} as drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
