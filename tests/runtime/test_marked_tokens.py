"""A marked word is found at every place of a text by an engine that sees nothing but the states it is given: windows of
the wrong tokens, or offsets of another place, would not be found out by an engine that is told where it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_passage import PIECES
from tiny_bundle import HIDDEN

from qa_edge_runtime import session
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.windows import Windows

MARK = "qqzqq"


class Seeing:
    """An engine whose logits peak wherever one state stands, whichever window it is."""

    name, version = "seeing", "1"

    def __init__(self) -> None:
        self.state = np.zeros(HIDDEN, np.float32)
        self.most_tokens = 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        context = inputs["context"]
        self.most_tokens = max(self.most_tokens, len(context))
        seen = np.abs(context - self.state).max(axis=1) < 1e-4
        logits = np.where(seen, 9, -30).astype(np.float32)
        return {"start_logits": logits, "end_logits": logits}


def find_marks(path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[str], windows: Windows, step: int) -> int:
    """Put the mark in every `step`th piece's place, then in those beside them, and so on; each must be an answer, at
    the characters at which it was put. How many there were.
    """
    engine, real, found = Seeing(), session.open_engine, 0

    def opened(bundle: Any, role: str, **named: Any) -> Any:
        return engine if role == "core" else real(bundle, role, **named)

    monkeypatch.setattr(session, "open_engine", opened)
    with Answerer.load(path, window_tokens=windows.tokens, overlap_tokens=windows.overlap) as answerer:
        (engine.state,) = answerer._session.states([MARK]).states
        for piece in PIECES:
            others = answerer._session.states(answerer._reader.tokenizer(piece).texts).states
            assert np.abs(others - engine.state).max(axis=1).min() > 1e-2, piece
        for first in range(step):
            marked = [MARK if number % step == first else piece for number, piece in enumerate(pieces)]
            starts = list(itertools.accumulate((len(piece) + 1 for piece in marked[:-1]), initial=0))
            passage = answerer.read(" ".join(marked))
            assert passage.windows > 2
            places = starts[first::step]
            answers = passage.answers("?", top_k=len(places) + 5)
            peaks = [answer for answer in answers if answer.logit > 0]
            assert sorted((answer.start, answer.end) for answer in peaks) == [(at, at + len(MARK)) for at in places]
            assert {answer.text for answer in peaks} == {MARK}
            found += len(peaks)
    assert engine.most_tokens == windows.tokens
    return found


def some_pieces(count: int) -> list[str]:
    return [PIECES[number] for number in np.random.default_rng(1).integers(0, len(PIECES), count)]


def test_a_mark_at_every_place_of_a_text_of_many_windows(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for windows in (Windows(tokens=40, overlap=12), Windows(tokens=41, overlap=0), Windows(tokens=30, overlap=15)):
        assert find_marks(tiny_path, monkeypatch, some_pieces(400), windows, 20) == 400


@pytest.mark.slow
def test_a_mark_at_every_place_of_two_hundred_pages(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 words a page, windows of the usual size; takes minutes, no data."""
    assert find_marks(tiny_path, monkeypatch, some_pieces(100_000), Windows(), 100) == 100_000
