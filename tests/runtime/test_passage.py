"""Texts of any length: every token can be found, with its own characters, whichever windows it is read in."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import CONTEXT, QUESTION, core_graph, write_tiny_bundle

from qa_edge_runtime import session
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.errors import EngineError, InputError
from qa_edge_runtime.manifest import ProbabilityFit
from qa_edge_runtime.windows import Windows

# Words of one to three tokens, white space of all kinds, characters outside the basic plane, marks that combine.
PIECES = ("word", "a-b", "(it", "can't", "👩‍🔬", "e\u0301tage", "end.", "\n", "\r\n\r\n", "\t", "日本", "x,")


class Marked:
    """An engine whose logits peak at the tokens of a text that are marked, told which window comes next."""

    name, version = "marked", "1"

    def __init__(self, starts: list[int], heights: np.ndarray) -> None:
        self.starts, self.heights, self.calls = starts, heights, 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = self.starts[self.calls % len(self.starts)]
        self.calls += 1
        logits = self.heights[start : start + len(inputs["context"])].astype(np.float32)
        return {"start_logits": logits, "end_logits": logits}


def pages(tokens: int, seed: int = 0) -> str:
    """A text of about so many tokens."""
    generator = np.random.default_rng(seed)
    return " ".join(PIECES[number] for number in generator.integers(0, len(PIECES), tokens))


def marked_answerer(path: Path, monkeypatch: pytest.MonkeyPatch, engine: Marked, **settings: Any) -> Answerer:
    real = session.open_engine

    def opened(bundle: Any, role: str, **named: Any) -> Any:
        return engine if role == "core" else real(bundle, role, **named)

    monkeypatch.setattr(session, "open_engine", opened)
    return Answerer.load(path, **settings)


def find_all(path: Path, monkeypatch: pytest.MonkeyPatch, text: str, windows: Windows, step: int) -> int:
    """Mark every `step`th token, then those beside them, and so on; each must be an answer. How many there were."""
    engine = Marked([0], np.zeros(0))
    settings = {"window_tokens": windows.tokens, "overlap_tokens": windows.overlap}
    found = 0
    with marked_answerer(path, monkeypatch, engine, **settings) as answerer:
        tokens = answerer._reader.tokenizer(text)
        passage = answerer.read(text)
        assert passage.tokens == len(tokens)
        engine.starts = windows.starts(len(tokens))
        assert passage.windows == len(engine.starts) > 2
        words = np.array([not token.text.isspace() for token in tokens])
        for first in range(step):
            places = np.arange(first, len(tokens), step)
            places = places[words[places]]
            engine.heights = np.full(len(tokens), -30.0)
            # No two of one height, and neighbours of unlike ones, so that the search halves the text.
            engine.heights[places] = 5 + np.random.default_rng(first).permutation(len(places)) / len(places)
            answers = passage.answers("?", top_k=len(places))
            assert sorted(answer.start for answer in answers) == [tokens[place].start for place in places]
            for answer in answers:
                assert text[answer.start : answer.end] == answer.text
            assert {answer.text for answer in answers} == {tokens[place].text for place in places}
            assert [a.logit for a in answers] == sorted((a.logit for a in answers), reverse=True)
            found += len(places)
        assert found == words.sum()
    return found


def test_every_token_of_a_text_of_many_windows_is_found(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for windows in (Windows(tokens=40, overlap=12), Windows(tokens=41, overlap=0), Windows(tokens=30, overlap=15)):
        assert find_all(tiny_path, monkeypatch, pages(500), windows, 20) > 300


@pytest.mark.slow
def test_every_token_of_two_hundred_pages_is_found(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 words a page; takes minutes, no data."""
    assert find_all(tiny_path, monkeypatch, pages(100_000), Windows(), 100) > 100_000


def test_an_answer_across_the_seam_of_two_windows_is_found_once(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = Windows(tokens=40, overlap=12)
    text = " ".join(f"w{number}" for number in range(200))
    seam = windows.cut(200)[1].kept_start
    for first in range(seam - 5, seam + 5):
        heights = np.full(200, -20.0)
        heights[[first, first + 3]] = 9.0
        engine = Marked(windows.starts(200), heights)
        with marked_answerer(tiny_path, monkeypatch, engine, window_tokens=40, overlap_tokens=12) as answerer:
            answers = answerer.answers(QUESTION, text, top_k=5)
        assert answers[0].text in (f"w{first}", " ".join(f"w{n}" for n in range(first, first + 4)))
        assert len({(answer.start, answer.end) for answer in answers}) == len(answers)


def test_a_kept_passage_answers_as_the_context_does(answerer: Answerer) -> None:
    passage = answerer.read(CONTEXT)
    questions = [QUESTION, "What is grey?", "Who?"]
    assert (passage.text, passage.windows) == (CONTEXT, 1)
    for question in questions:
        assert passage.answers(question, 4) == answerer.answers(question, CONTEXT, 4)
        assert passage.answer(question) == answerer.answer(question, CONTEXT)
    assert passage.answer_many(questions) == answerer.answer_many(questions, CONTEXT)
    with pytest.raises(InputError, match="list"):
        passage.answer_many(QUESTION)


def test_progress_and_the_windows_that_share_most(tiny_path: Path) -> None:
    filler = [f"f{number}" for number in range(400)]
    filler[230] = "Switch"
    filler[231] = "main"
    text = " ".join(filler)
    with Answerer.load(tiny_path, window_tokens=20, overlap_tokens=4) as answerer:
        passage = answerer.read(text)
        assert passage.windows == 25
        seen: list[tuple[int, int]] = []
        passage.answers(QUESTION, progress=lambda done, count: seen.append((done, count)))
        assert seen == [(number, 25) for number in range(1, 26)]
        seen.clear()
        (best, *_) = passage.answers(QUESTION, max_windows=1, progress=lambda done, count: seen.append((done, count)))
        assert seen == [(1, 1)]
        window = next(w for w in Windows(tokens=20, overlap=4).cut(400) if w.start <= 230 < 231 < w.stop)
        first = answerer._reader.tokenizer(text)[window.start].start
        last = answerer._reader.tokenizer(text)[window.stop - 1].end
        assert first <= best.start < best.end <= last
        # More windows than there are is all of them.
        assert passage.answers(QUESTION, max_windows=99) == passage.answers(QUESTION)


@pytest.mark.parametrize("setting", ["max_windows", "min_probability"])
@pytest.mark.parametrize("value", [0.5, -1, True, "3", float("nan"), 2.0])
def test_settings_of_a_question_out_of_range(answerer: Answerer, setting: str, value: Any) -> None:
    if (setting, value) == ("min_probability", 0.5):
        value = 1.5
    with pytest.raises(InputError, match=setting):
        answerer.answers(QUESTION, CONTEXT, **{setting: value})


def test_min_probability_needs_a_fitted_one(answerer: Answerer) -> None:
    with pytest.raises(InputError, match="no fitted probability"):
        answerer.answers(QUESTION, CONTEXT, min_probability=0.1)


def test_probability_is_the_softmax_at_the_fitted_temperature(tmp_path: Path) -> None:
    fit = ProbabilityFit(temperature=2.5, expected_calibration_error=0.1, questions=300, no_answer_below=0.2)
    write_tiny_bundle(tmp_path / "fitted.qab", probability=fit)
    # A graph whose logits are divided by the temperature has its plain softmax as the probability.
    write_tiny_bundle(tmp_path / "cooled.qab", files={"core.fp32.onnx": core_graph(scale=1 / 2.5)})
    with Answerer.load(tmp_path / "fitted.qab") as fitted, Answerer.load(tmp_path / "cooled.qab") as cooled:
        answers = fitted.answers(QUESTION, CONTEXT, 4)
        for answer, other in zip(answers, cooled.answers(QUESTION, CONTEXT, 4), strict=True):
            assert answer.text == other.text
            assert answer.probability == pytest.approx(other.span_probability, rel=1e-4)
        middle = (answers[1].probability + answers[2].probability) / 2  # type: ignore[operator]
        assert fitted.answers(QUESTION, CONTEXT, 4, min_probability=middle) == answers[:2]
        assert fitted.answers(QUESTION, CONTEXT, 4, min_probability=1.0) == []


def test_sentences_are_given_on_request(answerer: Answerer) -> None:
    for answer in answerer.answers(QUESTION, CONTEXT, 4, sentences=True):
        assert answer.sentence is not None
        assert CONTEXT[answer.sentence.start : answer.sentence.end] == answer.sentence.text
        assert answer.sentence.start <= answer.start < answer.end <= answer.sentence.end
        assert answer.sentence.text in (
            "The main switch is behind the grey panel.",
            "The panel is in the hall, next to the stairs.",
        )
    assert answerer.answer(QUESTION, CONTEXT).sentence is None


def test_memory_grows_with_the_tokens_of_a_text_alone(tiny_path: Path) -> None:
    import tracemalloc

    peaks = []
    with Answerer.load(tiny_path, window_tokens=100, overlap_tokens=20) as answerer:
        answerer.answer(QUESTION, pages(3_000))
        for tokens in (20_000, 40_000):
            text = pages(tokens)
            tracemalloc.start()
            answerer.answer(QUESTION, text)
            peaks.append(tracemalloc.get_traced_memory()[1] / tokens)
            tracemalloc.stop()
    # Bytes a word: two float64 logits with their blocks, the columns of the tokens; nothing a window or a state.
    assert max(peaks) < 400, peaks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_engine_again(tiny_path: Path) -> None:
    with Answerer.load(tiny_path) as answerer:
        expected = answerer.answer(QUESTION, CONTEXT)
        opened = answerer._session._opened
        # As if another thread asked at the moment of the fork: nobody would ever give this lock back in the child.
        answerer._session._lock.acquire()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                same = answerer.answer(QUESTION, CONTEXT) == expected
                code = 0 if same and answerer._session._opened is not opened else 2
            finally:
                os._exit(code)
        answerer._session._lock.release()
        until = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > until:
                os.kill(child, 9)
                raise AssertionError("the child never answered")
            time.sleep(0.05)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        assert answerer._session._opened is opened
        assert answerer.answer(QUESTION, CONTEXT) == expected


def test_a_passage_of_a_closed_answerer_says_so(tiny_path: Path) -> None:
    answerer = Answerer.load(tiny_path)
    passage = answerer.read(CONTEXT)
    answerer.close()
    with pytest.raises(EngineError, match="closed"):
        passage.answer(QUESTION)
    with pytest.raises(EngineError, match="closed"):
        answerer.read(CONTEXT)
