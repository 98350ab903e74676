"""Coverage-guided fuzzing from logits to answers: windows of any size, some of them read, merged and decoded, against
the same done span by span.

    pip install atheris
    PYTHONPATH=runtime python tests/fuzz/fuzz_answers.py -runs=500000 -max_len=400

The arguments are libFuzzer's. The first bytes choose sizes and windows, the others are the text and its logits.

Measured with atheris 3.0.0: 545,536 inputs in two runs, no difference (docs/reliability.md).
"""

from __future__ import annotations

import sys
from array import array

import atheris

with atheris.instrument_imports(include=["qa_edge_runtime"]):
    from qa_edge_runtime.answers import decode_answers
    from qa_edge_runtime.tokens import Tokens
    from qa_edge_runtime.windows import Windows, merge_logits, runs

import numpy as np

PIECES = ("a", "word", "\n", "👩", "é", " \t", "x-y", "。")


def one_input(data: bytes) -> None:
    """Answers are the greedy best of all valid spans, and are what stands at their place."""
    if len(data) < 8:
        return
    size, overlap, longest, top_k, chosen_bits, temperature, *rest = data
    windows = Windows(tokens=2 + size % 30, overlap=overlap % (1 + (2 + size % 30) // 2))
    longest, top_k = 1 + longest % 7, 1 + top_k % 6
    texts = [PIECES[byte % len(PIECES)] for byte in rest]
    starts, place = [], 0
    for text in texts:
        starts.append(place)
        place += len(text) + 1
    context = " ".join(texts)
    tokens = Tokens(texts, array("q", starts), array("q", [s + len(t) for s, t in zip(starts, texts, strict=True)]))
    count = len(windows.starts(len(texts)))
    chosen = [number for number in range(count) if chosen_bits >> (number % 8) & 1] or [0]
    read = windows.cut(len(texts), chosen)
    raw = np.frombuffer(bytes(rest), np.uint8).astype(np.float32) / 16
    both = np.stack([raw, raw[::-1]])
    priors = [float(number % 3) for number in chosen]
    start, end = merge_logits(read, [both[:, w.start : w.stop] for w in read], len(texts), priors)
    ranges = runs(read)
    degrees = 0.5 + temperature / 64
    answers = decode_answers(context, tokens, start, end, longest, top_k, runs=ranges, temperature=degrees)

    spans = [
        (float(start[i]) + float(end[j]), i, j)
        for first, last in ranges
        for i in range(first, last)
        for j in range(i, min(i + longest, last))
        if not texts[i].isspace() and not texts[j].isspace()
    ]
    logits = np.array([span[0] for span in spans])
    expected: list[tuple[float, int, int]] = []
    for span in sorted(spans, key=lambda span: (-span[0], span[1], span[2])):
        if len(expected) < top_k and all(span[2] < other[1] or other[2] < span[1] for other in expected):
            expected.append(span)
    assert len(answers) == len(expected), (answers, expected)
    for answer, (logit, i, j) in zip(answers, expected, strict=True):
        assert (answer.start, answer.end) == (tokens.starts[i], tokens.ends[j]), (answer, i, j)
        assert context[answer.start : answer.end] == answer.text == answer.text.strip()
        assert abs(answer.logit - logit) < 1e-5
        share = np.exp(logit - logits.max()) / np.exp(logits - logits.max()).sum()
        right = np.exp((logit - logits.max()) / degrees) / np.exp((logits - logits.max()) / degrees).sum()
        assert abs(answer.span_probability - share) < 1e-6, (answer, share)
        assert answer.probability is not None and abs(answer.probability - right) < 1e-6, (answer, right)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
