"""A text that is kept to be asked: read once, in windows where it is long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qa_edge_runtime.answers import Answer, Sentence, decode_answers
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.lexical import WordIndex, best_windows, window_priors
from qa_edge_runtime.sentences import sentence_around
from qa_edge_runtime.session import Session
from qa_edge_runtime.states import LookedUp
from qa_edge_runtime.times import StageTimes
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.tokens import Tokens
from qa_edge_runtime.windows import Window, Windows, merge_logits, runs

QUESTION_TOKENS = 400
"""Tokens of a question at most: an engine keeps for good what the longest one took, some 60 kB a token."""
Progress = Callable[[int, int], None]
"""Called after each window that was read, with their number so far and in all."""


class ContextLogits(NamedTuple):
    """Logits of a context's tokens: two float32 arrays of shape (context_tokens,), and the tokens themselves."""

    start: np.ndarray
    end: np.ndarray
    tokens: Tokens


@dataclass(kw_only=True)
class Observer:
    """Whom to tell the times of each question, if anybody; apart from the `Answerer`, which its passages outlive."""

    tell: Callable[[StageTimes], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reading and asking need: made once by an `Answerer`.

    :ivar observer: holds whom to tell the times of each question, or None.
    """

    session: Session
    tokenizer: Tokenizer
    windows: Windows
    observer: Observer


class Passage:
    """A text, tokenised and looked up, that can be asked any number of questions; made by `Answerer.read`.

    Safe to use from several threads. It keeps its tokens, and their states if it is a single window.

    :ivar text: the caller's own string.
    :ivar tokens: how many it has.
    :ivar windows: how many it is read in.
    """

    def __init__(self, text: str, reader: Reader) -> None:
        began = time.perf_counter()
        self.text = _check_text(text, "context")
        self._reader = reader
        self._tokens = reader.tokenizer(text)
        tokenised = time.perf_counter()
        self.tokens = len(self._tokens)
        self._every = reader.windows.cut(self.tokens)
        self.windows = len(self._every)
        self._read = reader.session.states(self._tokens.texts) if self.windows == 1 else None
        self._index: WordIndex | None = None
        self._reading = tokenised - began, time.perf_counter() - tokenised

    def answer(
        self,
        question: str,
        *,
        max_windows: int | None = None,
        sentences: bool = False,
        progress: Progress | None = None,
    ) -> Answer:
        """The best answer: `text[answer.start:answer.end] == answer.text`. See `answers`."""
        return self.answers(question, 1, max_windows=max_windows, sentences=sentences, progress=progress)[0]

    def answer_many(
        self, questions: Sequence[str], *, max_windows: int | None = None, sentences: bool = False
    ) -> list[Answer]:
        """The best answer to each question. See `answers`.

        :raises InputError: also if `questions` is one text instead of several.
        """
        if isinstance(questions, str):
            raise InputError("questions is one text, expected a list of them; answer() takes a single question")
        return [self.answer(question, max_windows=max_windows, sentences=sentences) for question in questions]

    def answers(
        self,
        question: str,
        top_k: int = 3,
        *,
        min_probability: float = 0.0,
        max_windows: int | None = None,
        sentences: bool = False,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """The best answers over all windows, best first, no two of which overlap; fewer if the text has fewer.

        :param min_probability: answers whose `probability` of being right is less are left out: an empty list says
            that the text holds no answer.
        :param max_windows: read only so many windows, those that share most with the question's words; None reads all.
        :param sentences: give each answer the sentence around it.
        :param progress: called after each window.
        :raises InputError: if the question is not text, empty or blank, a number is out of range, or the bundle has no
            probability to compare with.
        :raises EngineError: if the Answerer was closed.
        """
        return self.ask(question, top_k, min_probability, max_windows, sentences, progress, with_reading=False)

    def logits(self, question: str) -> ContextLogits:
        """Start and end logits of all tokens, each from the window in which it has more context on its poorer side.

        Those of a text of several windows include what the windows share with the question; see `lexical`.

        :raises InputError: as `answers`.
        """
        session, tokens = self._reader.session, self._reader.tokenizer(_check_text(question, "question"))
        _check_length(tokens)
        asked = session.states(tokens.texts).states
        parts = [session.infer(self._states(window).states, asked) for window in self._every]
        start, end = merge_logits(self._every, parts, self.tokens, self._priors(tokens.texts))
        return ContextLogits(start, end, self._tokens)

    def ask(
        self,
        question: str,
        top_k: int,
        min_probability: float,
        max_windows: int | None,
        sentences: bool,
        progress: Progress | None,
        *,
        with_reading: bool,
    ) -> list[Answer]:
        """What `answers` does; `with_reading` counts the reading of the text among the times that are observed."""
        session, observer = self._reader.session, self._reader.observer.tell
        fit = session.bundle.manifest.probability
        _check_options(top_k, min_probability, max_windows, fitted=fit is not None)
        clock = [time.perf_counter()]
        tokens = self._reader.tokenizer(_check_text(question, "question"))
        _check_length(tokens)
        clock.append(time.perf_counter())
        windows, priors = self._chosen(tokens.texts, max_windows)
        asked = session.states(tokens.texts)
        looked_up = [asked] if self._read is None or not with_reading else [asked, self._read]
        computed = 0
        if self._read is None:
            computed = session.prepare(
                [text for window in windows for text in self._tokens.texts[window.start : window.stop]]
            )
        clock.append(time.perf_counter())
        parts, infer_seconds = [], 0.0
        for done, window in enumerate(windows, 1):
            states = self._states(window)
            if states is not self._read:
                looked_up.append(states)
            began = time.perf_counter()
            parts.append(session.infer(states.states, asked.states))
            infer_seconds += time.perf_counter() - began
            if progress is not None:
                progress(done, len(windows))
        clock.append(time.perf_counter())
        start, end = merge_logits(windows, parts, self.tokens, priors)
        answers = decode_answers(
            self.text,
            self._tokens,
            start,
            end,
            session.bundle.manifest.max_answer_tokens,
            top_k,
            runs=runs(windows),
            temperature=None if fit is None else fit.temperature,
        )
        if min_probability > 0:
            answers = [answer for answer in answers if (answer.probability or 0.0) >= min_probability]
        if sentences:
            answers = [replace(answer, sentence=self._sentence(answer)) for answer in answers]
        clock.append(time.perf_counter())
        if observer is not None:
            began, tokenised, _, inferred, decoded = clock
            reading = self._reading if with_reading else (0.0, 0.0)
            observer(
                StageTimes(
                    tokenise_ms=1e3 * (reading[0] + tokenised - began),
                    look_up_ms=1e3 * (reading[1] + inferred - tokenised - infer_seconds),
                    infer_ms=1e3 * infer_seconds,
                    decode_ms=1e3 * (decoded - inferred),
                    windows=len(windows),
                    context_tokens=self.tokens,
                    question_tokens=len(tokens),
                    distinct_tokens=sum(found.distinct for found in looked_up),
                    unknown_tokens=sum(found.unknown for found in looked_up),
                    remembered_tokens=max(0, sum(found.remembered for found in looked_up) - computed),
                )
            )
        return answers

    def _chosen(self, question: Sequence[str], max_windows: int | None) -> tuple[Sequence[Window], NDArray[np.float64]]:
        """The windows that are read, with their priors."""
        priors = self._priors(question)
        if max_windows is None or max_windows >= self.windows:
            return self._every, priors
        best = best_windows(priors, max_windows)
        return self._reader.windows.cut(self.tokens, best), priors[best]

    def _priors(self, question: Sequence[str]) -> NDArray[np.float64]:
        if self.windows > 1 and self._index is None:  # threads may make the same one twice
            self._index = WordIndex(self._tokens.texts)
        return window_priors(self._tokens.texts, question, self._every, self._index)

    def _states(self, window: Window) -> LookedUp:
        if self._read is not None:
            return self._read
        return self._reader.session.states(self._tokens.texts[window.start : window.stop])

    def _sentence(self, answer: Answer) -> Sentence:
        return sentence_around(self.text, self._tokens, answer.start, answer.end)


def _check_text(text: str, noun: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"the {noun} is {type(text).__name__}, expected text (str)")
    if not text or text.isspace():
        raise InputError(f"the {noun} is {'blank' if text else 'empty'}; expected some text")
    return text


def _check_length(question: Tokens) -> None:
    if len(question) > QUESTION_TOKENS:
        raise InputError(
            f"the question has {len(question):,} tokens, expected at most {QUESTION_TOKENS}; what it is about belongs "
            "into the context"
        )


def _check_options(top_k: int, min_probability: float, max_windows: int | None, *, fitted: bool) -> None:
    for name, value in (("top_k", top_k), ("max_windows", max_windows)):
        if not ((type(value) is int and value >= 1) or (value is None and name == "max_windows")):
            raise InputError(f"{name} is {value!r:.40}, expected a whole number from 1")
    if type(min_probability) not in (int, float) or not 0 <= min_probability <= 1:
        raise InputError(f"min_probability is {min_probability!r:.40}, expected a number from 0 to 1")
    if min_probability > 0 and not fitted:
        raise InputError("this bundle has no fitted probability to compare min_probability with: export it again")
