"""From a question and a text to the answer's characters: tokenise, look up, infer, decode."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from qa_edge_runtime.answers import Answer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.default_bundle import bundle_or_default
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.passage import ContextLogits, Observer, Passage, Progress, Reader
from qa_edge_runtime.session import Session
from qa_edge_runtime.states import CACHE_TOKENS
from qa_edge_runtime.times import StageTimes
from qa_edge_runtime.windows import OVERLAP_TOKENS, WINDOW_TOKENS, Windows


class Answerer:
    """Answers questions with one bundle; safe to use from several threads, and after a fork.

    `Answerer.load("first.qab").answer(question, context)` is the short way, without a path with the bundle of
    qa-edge-models; as a context manager it lets go of the bundle's files at the end.

    :ivar bundle: the opened bundle, with its manifest.
    :ivar engine: "onnx" or "tflite", as bundles name it; `engine_name` and `engine_version` are those of the package
        that runs it.
    :ivar precision: "int8", "fp16" or "fp32", of the core graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str | None = None,
        precision: str | None = None,
        threads: int = 1,
        cache_tokens: int = CACHE_TOKENS,
        window_tokens: int = WINDOW_TOKENS,
        overlap_tokens: int = OVERLAP_TOKENS,
        observer: Callable[[StageTimes], None] | None = None,
    ) -> None:
        if type(cache_tokens) is not int or cache_tokens < 0:
            raise InputError(f"cache_tokens is {cache_tokens!r:.40}, expected a whole number from 0")
        self.bundle = bundle
        self._observer = Observer(tell=observer)
        windows = Windows(tokens=window_tokens, overlap=overlap_tokens)
        self._session = Session(bundle, engine=engine, precision=precision, threads=threads, cache_tokens=cache_tokens)
        self.engine, self.precision = self._session.engine, self._session.precision
        self.engine_name, self.engine_version = self._session.engine_name, self._session.engine_version
        self._reader = Reader(
            session=self._session, tokenizer=bundle.tokenizer(), windows=windows, observer=self._observer
        )

    @property
    def observer(self) -> Callable[[StageTimes], None] | None:
        """Called with the `StageTimes` of every question answered, if not None; may be set."""
        return self._observer.tell

    @observer.setter
    def observer(self, observer: Callable[[StageTimes], None] | None) -> None:
        self._observer.tell = observer

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
        threads: int = 1,
        cache_tokens: int = CACHE_TOKENS,
        window_tokens: int = WINDOW_TOKENS,
        overlap_tokens: int = OVERLAP_TOKENS,
        observer: Callable[[StageTimes], None] | None = None,
    ) -> Answerer:
        """Open a bundle, checked, and load its graphs.

        :param path: a bundle's folder, or the single file NAME.qab.zip; if None, the bundle that qa-edge-models brings.
        :param engine: "onnx" or "tflite"; if None, the fastest that is installed and that the bundle has graphs for.
        :param precision: "int8", "fp16" or "fp32" of the core graph; if None, the fastest that the bundle has.
        :param threads: threads of the inference engine.
        :param cache_tokens: states of words outside the table that are remembered; 20,000 take about 10 MB.
        :param window_tokens: a context of more tokens is read in windows of so many.
        :param overlap_tokens: that two windows share; at most half a window. An answer longer than this may be cut.
        :param observer: called with the `StageTimes` of every question answered.
        :raises BundleError: if the bundle is missing, cut, changed, older or newer.
        :raises InputError: if a setting is out of range, or the engine or the precision is not one that the bundle has
            graphs for.
        :raises MissingExtraError: if no engine of the bundle, or not the one named, is installed, or no path is given
            and qa-edge-models is not installed.
        """
        return cls(
            Bundle.open(bundle_or_default(path)),
            engine=engine,
            precision=precision,
            threads=threads,
            cache_tokens=cache_tokens,
            window_tokens=window_tokens,
            overlap_tokens=overlap_tokens,
            observer=observer,
        )

    def read(self, context: str) -> Passage:
        """A text of any length that is going to be asked more than one question: tokenised and looked up once.

        :raises InputError: if it is not text, empty or blank.
        """
        return Passage(context, self._reader)

    def answer(
        self,
        question: str,
        context: str,
        *,
        max_windows: int | None = None,
        sentences: bool = False,
        progress: Progress | None = None,
    ) -> Answer:
        """The best answer: `context[answer.start:answer.end] == answer.text`. See `Passage.answers`.

        :raises InputError: if the question or the context is not text, empty or blank, or a number is out of range.
        """
        return self.answers(question, context, 1, max_windows=max_windows, sentences=sentences, progress=progress)[0]

    def answers(
        self,
        question: str,
        context: str,
        top_k: int = 3,
        *,
        min_probability: float = 0.0,
        max_windows: int | None = None,
        sentences: bool = False,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """The best answers, best first, no two of which overlap. See `Passage.answers`.

        :raises InputError: as `answer`, and if `min_probability` is given and the bundle has no fitted probability.
        """
        return self.read(context).ask(
            question, top_k, min_probability, max_windows, sentences, progress, with_reading=True
        )

    def answer_many(
        self, questions: Sequence[str], context: str, *, max_windows: int | None = None, sentences: bool = False
    ) -> list[Answer]:
        """The best answer to each question; the context is read once.

        :raises InputError: as `answer`, and if `questions` is one text instead of several.
        """
        return self.read(context).answer_many(questions, max_windows=max_windows, sentences=sentences)

    def logits(self, question: str, context: str) -> ContextLogits:
        """Start and end logits of the context's tokens, as the core graph gives them. See `Passage.logits`.

        :raises InputError: as `answer`.
        """
        return self.read(context).logits(question)

    def forget(self) -> None:
        """Forget the computed token states: the next question is answered as the first one was."""
        self._session.forget()

    def close(self) -> None:
        """Let go of the graphs and the cache; answering afterwards is an EngineError."""
        self._session.close()

    def __enter__(self) -> Answerer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
