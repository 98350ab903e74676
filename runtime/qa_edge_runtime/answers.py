"""From logits to answers: the best spans as characters of the caller's own string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.decoder import distinct_spans, span_softmax
from qa_edge_runtime.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A piece of the context around an answer: exactly `context[start:end]`."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A piece of the context that answers the question.

    :ivar text: exactly `context[start:end]`, without white space at its ends.
    :ivar start: first character, counted in the caller's own string.
    :ivar end: the character after the last one.
    :ivar logit: start logit plus end logit of the span.
    :ivar span_probability: softmax of the logit over all valid spans that were read: comparable between the answers of
        one question, not the probability of being right.
    :ivar probability: that the answer is right to the word (exact match), if the context holds an answer: the same
        softmax at a temperature that was fitted on questions outside training. None if the bundle has none.
    :ivar sentence: the sentence around the answer, if it was asked for.
    """

    text: str
    start: int
    end: int
    logit: float
    span_probability: float
    probability: float | None = None
    sentence: Sentence | None = None


def decode_answers(
    context: str,
    tokens: Tokens,
    start: np.ndarray,
    end: np.ndarray,
    max_tokens: int,
    top_k: int = 1,
    *,
    runs: Sequence[tuple[int, int]] | None = None,
    temperature: float | None = None,
) -> list[Answer]:
    """Best spans as characters, best first, of which no two share a token.

    spaCy makes a token of white space beyond a single blank: no answer starts or ends with one.

    :param tokens: of the context.
    :param start: start logits, float, shape (context_tokens,).
    :param end: end logits, the same.
    :param max_tokens: longest span.
    :param top_k: answers wanted; there are fewer if the context has fewer.
    :param runs: half-open ranges of tokens that were read; all if None.
    :param temperature: of the probability of being right; None leaves it out.
    :raises InputError: as `decode_spans`.
    """
    start, end = edge_logits(tokens, start, end)
    spans = distinct_spans(start, end, max_tokens=max_tokens, top_k=top_k, runs=runs)
    right: list[float | None] = [None] * len(spans)
    if temperature is not None:
        softmax = span_softmax(start / temperature, end / temperature, max_tokens=max_tokens, runs=runs)
        right = [softmax.probability(span.logit / temperature) for span in spans]
    answers = []
    for span, probability in zip(spans, right, strict=True):
        first, last = tokens.starts[span.start], tokens.ends[span.end]
        text = context[first:last]
        first += len(text) - len(text.lstrip())
        text = text.strip()
        answers.append(
            Answer(
                text=text,
                start=first,
                end=first + len(text),
                logit=span.logit,
                span_probability=span.probability,
                probability=probability,
            )
        )
    return answers


def edge_logits(tokens: Tokens, start: np.ndarray, end: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits of the tokens at which an answer may start or end, minus infinity for tokens of white space.

    :param start: start logits, finite, shape (context_tokens,).
    :param end: end logits, the same.
    """
    space = np.array([text.isspace() for text in tokens.texts])
    return np.where(space, -np.inf, np.asarray(start, np.float64)), np.where(
        space, -np.inf, np.asarray(end, np.float64)
    )
