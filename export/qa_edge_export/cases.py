"""Conformance cases: questions that a bundle carries with all that a right runtime finds on the way to the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qa_edge_export.case_texts import CASE_TEXTS
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

__all__ = ["CASE_TEXTS", "made_by", "make_cases"]

FORMAT_VERSION = 1
LOGIT_DECIMALS = 4


def made_by(answerer: Answerer) -> dict[str, str]:
    """Which of a bundle's graphs answers."""
    return {"engine": answerer.engine, "precision": answerer.precision}


def make_cases(answerer: Answerer, pairs: Sequence[tuple[str, str]]) -> bytes:
    """Run a bundle on questions with their contexts and write down what it did, as `cases.json`.

    `engine` and `precision` say which graph the logits are of: another one's differ as its verification says.

    Each case holds `question` and `context`; under `question_side` and `context_side` the tokens [text, start, end],
    word ids and character ids; `start_logits` and `end_logits`, rounded; the `answer` with its characters, and
    `margin`, how far its logit lies above the next best span's (null if there is no other): another runtime must give
    the same answer where the margin is larger than its rounding.

    :returns: JSON in ASCII, so that a transfer cannot change the texts' Unicode.
    """
    bundle = answerer.bundle
    tokenizer, vocabulary = bundle.tokenizer(), bundle.vocabulary()
    width, limit = bundle.manifest.characters_per_word, bundle.manifest.max_answer_tokens
    cases: list[dict[str, Any]] = []
    for question, context in pairs:
        logits, answer = answerer.logits(question, context), answerer.answer(question, context)
        best = decode_spans(logits.start, logits.end, max_tokens=limit, top_k=2)
        cases.append(
            {
                "question": question,
                "context": context,
                "question_side": _side(question, tokenizer, vocabulary, width),
                "context_side": _side(context, tokenizer, vocabulary, width),
                "start_logits": [round(float(logit), LOGIT_DECIMALS) for logit in logits.start],
                "end_logits": [round(float(logit), LOGIT_DECIMALS) for logit in logits.end],
                "answer": {"text": answer.text, "start": answer.start, "end": answer.end},
                "margin": round(best[0].logit - best[1].logit, LOGIT_DECIMALS) if len(best) > 1 else None,
            }
        )
    content = {"format_version": FORMAT_VERSION, **made_by(answerer), "logit_decimals": LOGIT_DECIMALS, "cases": cases}
    return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


def _side(text: str, tokenizer: Tokenizer, vocabulary: Vocabulary, width: int) -> dict[str, Any]:
    tokens = tokenizer(text)
    texts = [token.text for token in tokens]
    return {
        "tokens": [[token.text, token.start, token.end] for token in tokens],
        "word_ids": vocabulary.word_ids(texts).tolist(),
        "character_ids": vocabulary.character_ids(texts, width).tolist(),
    }
