"""From logits to answers: the best spans as characters of the caller's own string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.tokenizer import Token


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A piece of the context that answers the question.

    :ivar text: exactly `context[start:end]`, without white space at its ends.
    :ivar start: first character, counted in the caller's own string.
    :ivar end: the character after the last one.
    :ivar score: span probability, the softmax over all valid spans of this context: comparable between the answers of
        one question, not the probability of being right.
    :ivar logit: start logit plus end logit of the span.
    """

    text: str
    start: int
    end: int
    score: float
    logit: float


def decode_answers(
    context: str, tokens: Sequence[Token], start: np.ndarray, end: np.ndarray, max_tokens: int, top_k: int = 1
) -> list[Answer]:
    """Best spans as characters, without white space at their ends.

    spaCy makes a token of white space beyond a single blank. A span that is nothing else is passed over for the next
    best, and of spans that differ in white space alone the best is kept: so that more spans may have to be fetched.

    :param tokens: of the context.
    :param start: start logits, float, shape (context_tokens,).
    :param end: end logits, the same.
    :param max_tokens: longest span.
    :param top_k: answers wanted; there are fewer if the context has fewer.
    :raises InputError: as `decode_spans`.
    """
    wanted = top_k
    while True:
        spans = decode_spans(start, end, max_tokens=max_tokens, top_k=wanted)
        answers: dict[tuple[int, int], Answer] = {}
        for span in spans:
            first, last = tokens[span.start].start, tokens[span.end].end
            text = context[first:last]
            stripped = text.strip()
            first += len(text) - len(text.lstrip())
            last = first + len(stripped)
            if stripped and (first, last) not in answers:
                answers[first, last] = Answer(
                    text=stripped, start=first, end=last, score=span.probability, logit=span.logit
                )
        if len(answers) >= top_k or len(spans) < wanted:
            return list(answers.values())[:top_k]
        wanted *= 4
