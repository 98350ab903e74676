"""From a question and a text to the answer's characters: tokenise, look up, infer, decode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qa_edge_runtime.answers import Answer, decode_answers
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import Engine, choose_engine, open_engine
from qa_edge_runtime.errors import BundleError, EngineError, InputError
from qa_edge_runtime.positions import PositionSignals
from qa_edge_runtime.states import CACHE_TOKENS, LookedUp, TokenStates
from qa_edge_runtime.tokenizer import Token, Tokenizer


class ContextLogits(NamedTuple):
    """Logits of a context's tokens: two float32 arrays of shape (context_tokens,), and the tokens themselves."""

    start: np.ndarray
    end: np.ndarray
    tokens: list[Token]


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """What one question took, by stage in milliseconds, and where the states of its tokens came from.

    `look_up_ms` is ids, rows of the table and the token graph for tokens that are neither in it nor remembered;
    `infer_ms` is the core graph; `decode_ms` ends with the answers' characters. Of the `distinct_tokens` of context and
    question `unknown_tokens` are not in the table, and `remembered_tokens` of these were computed before.
    """

    tokenise_ms: float
    look_up_ms: float
    infer_ms: float
    decode_ms: float
    context_tokens: int
    question_tokens: int
    distinct_tokens: int
    unknown_tokens: int
    remembered_tokens: int

    @property
    def total_ms(self) -> float:
        """Sum of the stages, which follow each other without a gap."""
        return self.tokenise_ms + self.look_up_ms + self.infer_ms + self.decode_ms


class Answerer:
    """Answers questions with one bundle; safe to use from several threads.

    `Answerer.load("first.qab").answer(question, context)` is the short way; as a context manager it lets go of the
    bundle's files at the end.

    :ivar bundle: the opened bundle, with its manifest.
    :ivar engine: "onnx" or "tflite", as bundles name it; `engine_name` and `engine_version` are those of the package
        that runs it.
    :ivar precision: "int8", "fp16" or "fp32", of the core graph.
    :ivar observer: called with the `StageTimes` of every question answered, if not None.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str | None = None,
        precision: str | None = None,
        threads: int = 1,
        cache_tokens: int = CACHE_TOKENS,
        observer: Callable[[StageTimes], None] | None = None,
    ) -> None:
        if type(cache_tokens) is not int or cache_tokens < 0:
            raise InputError(f"cache_tokens is {cache_tokens!r:.40}, expected a whole number from 0")
        self.bundle = bundle
        self.observer = observer
        self._max_tokens = bundle.manifest.max_answer_tokens
        self._tokenizer: Tokenizer = bundle.tokenizer()
        self.engine, self.precision = choose_engine(bundle, engine=engine, precision=precision)
        core, token = (
            open_engine(bundle, role, engine=self.engine, precision=self.precision, threads=threads)
            for role in ("core", "token")
        )
        self.engine_name, self.engine_version = core.name, core.version
        self._positions = PositionSignals(bundle.manifest.hidden)
        self._core: Engine | None = core
        self._states: TokenStates | None = TokenStates(
            bundle.vocabulary(),
            bundle.table,
            token,
            characters_per_word=bundle.manifest.characters_per_word,
            capacity=cache_tokens,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        engine: str | None = None,
        precision: str | None = None,
        threads: int = 1,
        cache_tokens: int = CACHE_TOKENS,
        observer: Callable[[StageTimes], None] | None = None,
    ) -> Answerer:
        """Open a bundle, checked, and load its graphs.

        :param engine: "onnx" or "tflite"; if None, the first that is installed and that the bundle has graphs for.
        :param precision: "int8", "fp16" or "fp32" of the core graph; if None, the fastest that the bundle has.
        :param threads: threads of the inference engine.
        :param cache_tokens: states of words outside the table that are remembered; 20,000 take about 10 MB.
        :param observer: called with the `StageTimes` of every question answered.
        :raises BundleError: if the bundle is missing, cut, changed, older or newer.
        :raises InputError: if the engine or the precision is not one that the bundle has graphs for.
        :raises MissingExtraError: if no engine of the bundle, or not the one named, is installed.
        """
        return cls(
            Bundle.open(path),
            engine=engine,
            precision=precision,
            threads=threads,
            cache_tokens=cache_tokens,
            observer=observer,
        )

    def answer(self, question: str, context: str) -> Answer:
        """The best answer: `context[answer.start:answer.end] == answer.text`.

        A context of any length is read whole.

        :raises InputError: if the question or the context is not text, empty or blank.
        """
        return self.answers(question, context, top_k=1)[0]

    def answers(self, question: str, context: str, top_k: int = 3) -> list[Answer]:
        """The best answers, best first, no two of the same characters; fewer if the context has fewer.

        :raises InputError: as `answer`, and if `top_k` is below one.
        """
        return self._ask(question, *self._read_context(context), top_k)

    def answer_many(self, questions: Sequence[str], context: str) -> list[Answer]:
        """The best answer to each question; the context's tokens are found once.

        :raises InputError: as `answer`, and if `questions` is one text instead of several.
        """
        if isinstance(questions, str):
            raise InputError("questions is one text, expected a list of them; answer() takes a single question")
        context, tokens, _ = self._read_context(context)
        return [self._ask(question, context, tokens, 0.0, 1)[0] for question in questions]

    def logits(self, question: str, context: str) -> ContextLogits:
        """Start and end logits of the context's tokens, as the core graph gives them.

        :raises InputError: as `answer`.
        """
        context, context_tokens, _ = self._read_context(context)
        question_tokens = self._tokenizer(_check_text(question, "question"))
        looked_up = self._look_up(context_tokens, question_tokens)
        return ContextLogits(*self._infer(looked_up.states, len(context_tokens)), context_tokens)

    def forget(self) -> None:
        """Forget the computed token states: the next question is answered as the first one was."""
        if self._states is not None:
            self._states.clear()

    def close(self) -> None:
        """Let go of the graphs and the cache; answering afterwards is an EngineError."""
        self._core = self._states = None

    def __enter__(self) -> Answerer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _read_context(self, context: str) -> tuple[str, list[Token], float]:
        """The checked context, its tokens, and the seconds that they took."""
        began = time.perf_counter()
        tokens = self._tokenizer(_check_text(context, "context"))
        return context, tokens, time.perf_counter() - began

    def _ask(
        self, question: str, context: str, context_tokens: list[Token], tokenise_seconds: float, top_k: int
    ) -> list[Answer]:
        _check_text(question, "question")
        if type(top_k) is not int or top_k < 1:
            raise InputError(f"top_k is {top_k!r:.40}, expected a whole number from 1")
        began = time.perf_counter()
        question_tokens = self._tokenizer(question)
        tokenised = time.perf_counter()
        found_states = self._look_up(context_tokens, question_tokens)
        looked_up = time.perf_counter()
        start, end = self._infer(found_states.states, len(context_tokens))
        inferred = time.perf_counter()
        found = decode_answers(context, context_tokens, start, end, self._max_tokens, top_k)
        decoded = time.perf_counter()
        if self.observer is not None:
            self.observer(
                StageTimes(
                    tokenise_ms=1e3 * (tokenise_seconds + tokenised - began),
                    look_up_ms=1e3 * (looked_up - tokenised),
                    infer_ms=1e3 * (inferred - looked_up),
                    decode_ms=1e3 * (decoded - inferred),
                    context_tokens=len(context_tokens),
                    question_tokens=len(question_tokens),
                    distinct_tokens=found_states.distinct,
                    unknown_tokens=found_states.unknown,
                    remembered_tokens=found_states.remembered,
                )
            )
        return found

    def _look_up(self, context: list[Token], question: list[Token]) -> LookedUp:
        """States of the context's tokens, then of the question's."""
        if self._states is None:
            raise EngineError("this Answerer was closed; load the bundle again")
        return self._states([token.text for token in (*context, *question)])

    def _infer(self, states: np.ndarray, context_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        if self._core is None:
            raise EngineError("this Answerer was closed; load the bundle again")
        context, question = states[:context_tokens], states[context_tokens:]
        outputs = self._core.run(
            {
                "context": context,
                "question": question,
                "context_position": self._positions(len(context)),
                "question_position": self._positions(len(question)),
            }
        )
        start, end = outputs["start_logits"], outputs["end_logits"]
        for name, logits in (("start_logits", start), ("end_logits", end)):
            if logits.shape != (context_tokens,) or not np.isfinite(logits).all():
                raise BundleError(
                    f"bundle {self.bundle.path}: the core graph gave {name} of shape {logits.shape} or with NaN,"
                    f" expected {context_tokens} finite numbers: export it again"
                )
        return start, end


def _check_text(text: str, noun: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"the {noun} is {type(text).__name__}, expected text (str)")
    if not text or text.isspace():
        raise InputError(f"the {noun} is {'blank' if text else 'empty'}; expected some text")
    return text
