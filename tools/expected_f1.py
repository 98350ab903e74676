"""The measurement of docs/experiments/021: the likeliest span, or that with the largest expected score?

    python tools/expected_f1.py models/qa_edge_models/edge.qab --squad dev-v1.1.json

Of each question's 20 best spans that is answered whose expected score is largest, if the truth is one of the 20 by
their probabilities: (1 - weight) of exact match, as the official scoring normalises it, and weight of F1. Weight 0 with
spans told apart by their place is the decoder's own answer. `best of 20` picks, knowing the answers, the best of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qa_edge.active.readers import open_reader
from qa_edge.cli.output import print_table
from qa_edge.squad import read_squad
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import QaEdgeError
from qa_edge_runtime.scoring import exact_match, f1, score_answer

SPANS = 20
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TEMPERATURES = (1.0, 1.5)
PLACES = "likeliest span"
BEST = f"best of {SPANS}"


class Candidates(NamedTuple):
    """Spans of one question, best first: texts, logits, and exact match and F1 of each against the true answers."""

    texts: list[str]
    logits: NDArray[np.float64]
    scores: NDArray[np.float64]


def choices(found: Candidates) -> Mapping[str, int]:
    """Which of the spans each rule answers."""
    same, overlap = (
        np.array([[float(score(one, other)) for other in found.texts] for one in found.texts])
        for score in (exact_match, f1)
    )
    chosen = {PLACES: 0, BEST: int(found.scores[:, 1].argmax())}
    for temperature in TEMPERATURES:
        share = np.exp((found.logits - found.logits.max()) / temperature)
        share /= share.sum()
        for weight in WEIGHTS:
            expected = ((1 - weight) * same + weight * overlap) @ share
            chosen[f"expected score, T {temperature:g}, F1 {weight:g}"] = int(expected.argmax())
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Print exact match and F1 of each rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--squad", required=True)
    parser.add_argument("--engine")
    asked = parser.parse_args(arguments)
    sums: dict[str, NDArray[np.float64]] = {}
    total = 0
    try:
        reader = open_reader(asked.bundle, engine=asked.engine)
        for _, paragraph in read_squad(asked.squad).paragraphs():
            context, questions = paragraph.context, [question for question in paragraph.questions if question.answers]
            asked_here = [(question.text, context) for question in questions]
            for question, placed in zip(questions, reader.placed(asked_here), strict=True):
                truths = [answer.text for answer in question.answers]
                spans = decode_spans(placed.start, placed.end, top_k=SPANS)
                texts = [context[placed.first[span.start] : placed.behind[span.end]] for span in spans]
                scores = np.array([[float(score) for score in score_answer(text, truths)] for text in texts])
                found = Candidates(texts, np.array([span.logit for span in spans]), scores)
                for rule, place in choices(found).items():
                    sums[rule] = sums.get(rule, 0) + scores[place]
                total += 1
    except QaEdgeError as error:
        print(f"expected_f1: {error}", file=sys.stderr)
        return 1
    rows = [[rule, *(f"{value:.2f}" for value in 100 * sums[rule] / total)] for rule in sums]
    print_table(("rule", "exact match", "F1"), rows, title=f"{total:,} questions")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
