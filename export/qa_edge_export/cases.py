"""Conformance cases: texts that a bundle carries with all that a right runtime finds on the way to the answer.

What a graph gives differs between machines. An int8 graph rounds after each layer, and a sum that comes out a hair
larger on another processor may round the other way, in this layer and in all that follow: any change of its input, be
it a millionth, moves its logits by as much as its rounding costs in all. So a graph's tolerance is measured, not
chosen: its input is moved by a rounding of its precision, and the logits may be off by twice what that did to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_export.case_texts import CASE_TEXTS, DECODER_CASES, LONG_TEXTS, TEXTS, WINDOWED_TEXTS
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cases import (
    Cases,
    DecoderCase,
    Expected,
    GraphTolerance,
    PositionCase,
    QuestionCase,
    TextCase,
    WordCase,
)
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.engine import open_engine
from qa_edge_runtime.errors import BundleError
from qa_edge_runtime.lexical import window_priors
from qa_edge_runtime.positions import PositionSignals, position_signal
from qa_edge_runtime.states import TokenStates
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.windows import OVERLAP_TOKENS, WINDOW_TOKENS, Windows, merge_logits

__all__ = ["CASE_TEXTS", "made_by", "make_cases"]

# Largest relative change of a number of the input: of float32 and float16 sums as they add up, of int8 any that is
# below half a step of 8 bits.
NUDGES = {"fp32": 2.0**-16, "fp16": 2.0**-11, "int8": 2.0**-12}
# How often the input is changed; one change of a float graph's is like any other.
RUNS = {"fp32": 1, "fp16": 1, "int8": 2}
# A processor that was not measured on may round otherwise than any nudge did.
SAFETY = 2.0
DECIMALS = {"fp32": 4, "fp16": 4, "int8": 2}
STATE_DECIMALS = 5
# Of the largest number of a state; more where the engines' token graphs, which round their weights, differ by more.
STATE_TOLERANCE = 1e-5
# The sine of an angle up to 399, which float32 holds to within 3e-5.
POSITION_TOLERANCE = 1e-4
POSITIONS = (0, 1, 7, 399)
# Words with a state, of those in the table and of the others.
STATES = 3
# Answers that rounding can put first; a longer list would say that the graph cannot tell them apart.
MOST_ANSWERS = 200

Logits = tuple[np.ndarray, np.ndarray]


def made_by(answerer: Answerer) -> dict[str, str]:
    """Which of a bundle's graphs answers."""
    return {"engine": answerer.engine, "precision": answerer.precision}


def make_cases(answerer: Answerer, pairs: Sequence[tuple[str, str]]) -> bytes:
    """Run all of a bundle's graphs on questions with their contexts and write down what they did, as `cases.json`.

    :param answerer: of the bundle, with windows of the ordinary size.
    :param pairs: questions with contexts; texts without a question, and long ones, are added.
    :raises BundleError: if the runtime answers a question otherwise than these graphs' own logits say.
    """
    bundle = answerer.bundle
    asked = [
        *(_Asked(*pair) for pair in pairs),
        *(_Asked(*pair, window_tokens=64, overlap_tokens=24) for pair in WINDOWED_TEXTS),
        *(_Asked(*pair, with_logits=False) for pair in LONG_TEXTS),
    ]
    graphs: list[GraphTolerance] = []
    groups: list[_Group] = []
    for engine in bundle.manifest.engines:
        for precision in bundle.manifest.precisions(engine):
            run = _GraphRun(bundle, engine, precision)
            found = [run(question) for question in asked]
            group = next((group for group in groups if group.holds(precision, found)), None)
            if group is None:
                group = _Group.measure(run, asked, found, bundle.manifest.max_answer_tokens)
                groups.append(group)
            group.graphs.append(len(graphs))
            if made_by(answerer) == {"engine": engine, "precision": precision}:
                _check_answers(answerer, asked, group)
            graphs.append(
                GraphTolerance(
                    engine=engine,
                    precision=precision,
                    logit_tolerance=_rounded_up(group.logit_tolerance),
                    rms_tolerance=_rounded_up(group.rms_tolerance),
                )
            )
    texts = list(dict.fromkeys([*(text for pair in [*pairs, *WINDOWED_TEXTS] for text in pair), *TEXTS]))
    questions = tuple(
        QuestionCase(
            question=question.question,
            context=question.context,
            window_tokens=question.window_tokens,
            overlap_tokens=question.overlap_tokens,
            expected=tuple(group.expected(number, question) for group in groups),
        )
        for number, question in enumerate(asked)
    )
    words, state_tolerance = _words(bundle, texts)
    cases = Cases(
        graphs=tuple(graphs),
        state_tolerance=_rounded_up(state_tolerance),
        position_tolerance=POSITION_TOLERANCE,
        texts=_texts(bundle, texts),
        words=words,
        positions=tuple(
            PositionCase(
                position=position,
                signal=_round(position_signal(position + 1, bundle.manifest.hidden)[-1], STATE_DECIMALS),
            )
            for position in POSITIONS
        ),
        decoder=tuple(map(_decoder_case, DECODER_CASES)),
        cases=questions[: len(pairs)],
        documents=questions[len(pairs) :],
    )
    return cases.to_json()


@dataclass(frozen=True)
class _Asked:
    question: str
    context: str
    window_tokens: int = WINDOW_TOKENS
    overlap_tokens: int = OVERLAP_TOKENS
    with_logits: bool = True


class _GraphRun:
    """One graph's logits, stage by stage: beside the `Answerer`, so that each proves the other right."""

    def __init__(self, bundle: Bundle, engine: str, precision: str) -> None:
        self.engine, self.precision = engine, precision
        self.tokenizer = bundle.tokenizer()
        self._core, token = (
            open_engine(bundle, role, engine=engine, precision=precision) for role in ("core", "token")
        )
        self._states = TokenStates(
            bundle.vocabulary(), bundle.table, token, characters_per_word=bundle.manifest.characters_per_word
        )
        self._positions = PositionSignals(bundle.manifest.hidden)

    def __call__(self, asked: _Asked, nudge: np.random.Generator | None = None) -> Logits:
        """Start and end logits of a context's tokens.

        :param nudge: changes each number of the states by a random part of the precision's nudge.
        """
        said, asks = ([token.text for token in self.tokenizer(text)] for text in (asked.context, asked.question))
        context, question = self._look_up(said, nudge), self._look_up(asks, nudge)
        windows = Windows(tokens=asked.window_tokens, overlap=asked.overlap_tokens).cut(len(context))
        parts = []
        for window in windows:
            states = context[window.start : window.stop]
            outputs = self._core.run(
                {
                    "context": states,
                    "question": question,
                    "context_position": self._positions(len(states)),
                    "question_position": self._positions(len(question)),
                }
            )
            parts.append(np.stack([outputs["start_logits"], outputs["end_logits"]]))
        start, end = merge_logits(windows, parts, len(context), window_priors(said, asks, windows))
        return start, end

    def _look_up(self, tokens: Sequence[str], nudge: np.random.Generator | None) -> np.ndarray:
        states = self._states(tokens).states
        if nudge is None:
            return states
        size = NUDGES[self.precision]
        return np.asarray(states * nudge.uniform(1 - size, 1 + size, states.shape), np.float32)


@dataclass(kw_only=True, eq=False)
class _Group:
    """Graphs that give the same logits: one, or several engines' of one float precision."""

    precision: str
    logits: list[Logits]
    tokens: list[list[tuple[str, int, int]]]
    logit_tolerance: float
    rms_tolerance: float
    margin: float
    max_answer_tokens: int
    graphs: list[int]

    @classmethod
    def measure(cls, run: _GraphRun, asked: Sequence[_Asked], found: list[Logits], max_answer_tokens: int) -> _Group:
        """Nudge a graph's inputs and see how far its logits move, and the lead of each best span over the others."""
        largest, margin, nudge = 0.0, 0.0, np.random.default_rng(0)
        spread = []
        for _ in range(RUNS[run.precision]):
            squares = []
            for question, logits in zip(asked, found, strict=True):
                if not question.with_logits:  # long, and no other than the rest
                    continue
                moved = run(question, nudge)
                off = np.concatenate(moved) - np.concatenate(logits)
                largest = max(largest, float(np.abs(off).max()))
                squares.append(off**2)
                margin = max(margin, _lead(logits, logits, max_answer_tokens) - _lead(logits, moved, max_answer_tokens))
            spread.append(float(np.sqrt(np.concatenate(squares).mean())))
        rounding = 10.0 ** -DECIMALS[run.precision]
        return cls(
            precision=run.precision,
            logits=found,
            tokens=[_tokens(run.tokenizer, question.context) for question in asked],
            logit_tolerance=SAFETY * largest + rounding,
            rms_tolerance=SAFETY * max(spread) + rounding,
            margin=SAFETY * margin + rounding,
            max_answer_tokens=max_answer_tokens,
            graphs=[],
        )

    def holds(self, precision: str, found: Sequence[Logits]) -> bool:
        """Whether another graph's logits are these. Those of int8 never are: each engine rounds in its own way."""
        return precision == self.precision != "int8" and all(
            np.abs(np.concatenate(ours) - np.concatenate(theirs)).max() <= self.logit_tolerance / SAFETY
            for ours, theirs in zip(self.logits, found, strict=True)
        )

    def answers(self, number: int) -> list[tuple[int, int]]:
        """Characters of the best answer to a question, and of those that rounding can put before it."""
        start, end = self.logits[number]
        tokens = self.tokens[number]
        edges = np.array([not token[0].isspace() for token in tokens])
        # Finite, so that the decoder takes them, and below all others: no answer starts or ends with white space.
        low = min(start.min(), end.min()) - 1e3
        spans = decode_spans(
            np.where(edges, start, low),
            np.where(edges, end, low),
            max_tokens=self.max_answer_tokens,
            top_k=MOST_ANSWERS,
        )
        return [
            (tokens[span.start][1], tokens[span.end][2]) for span in spans if span.logit >= spans[0].logit - self.margin
        ]

    def expected(self, number: int, asked: _Asked) -> Expected:
        """What the cases say of a question."""
        decimals = DECIMALS[self.precision]
        start, end = (_round(logits, decimals) if asked.with_logits else None for logits in self.logits[number])
        return Expected(
            graphs=tuple(self.graphs), start_logits=start, end_logits=end, answers=tuple(self.answers(number))
        )


def _lead(logits: Logits, others: Logits, max_answer_tokens: int) -> float:
    """How far the span that is best by `logits` is before the best other one in `others`; negative if it is behind."""
    first = decode_spans(*logits, max_tokens=max_answer_tokens)[0]
    best = decode_spans(*others, max_tokens=max_answer_tokens, top_k=2)
    other = next((span for span in best if (span.start, span.end) != (first.start, first.end)), None)
    return float(others[0][first.start]) + float(others[1][first.end]) - (other.logit if other else 0.0)


def _check_answers(answerer: Answerer, asked: Sequence[_Asked], group: _Group) -> None:
    """Refuse a runtime that answers otherwise than the logits say that were worked out beside it."""
    for number, question in enumerate(asked):
        if (question.window_tokens, question.overlap_tokens) == (WINDOW_TOKENS, OVERLAP_TOKENS):
            answer = answerer.answer(question.question, question.context)
            if (answer.start, answer.end) not in group.answers(number):
                raise BundleError(
                    f"the runtime answers the conformance case {question.question!r:.80} with {answer.text!r:.80},"
                    f" which is not what the {answerer.engine} graph in {answerer.precision} says; nothing was written"
                )


def _texts(bundle: Bundle, texts: Sequence[str]) -> tuple[TextCase, ...]:
    tokenizer, vocabulary = bundle.tokenizer(), bundle.vocabulary()
    cases = []
    for text in texts:
        tokens = _tokens(tokenizer, text)
        ids = vocabulary.word_ids([token[0] for token in tokens])
        cases.append(TextCase(text=text, tokens=tuple(tokens), word_ids=tuple(ids.tolist())))
    return tuple(cases)


def _tokens(tokenizer: Tokenizer, text: str) -> list[tuple[str, int, int]]:
    return [(token.text, token.start, token.end) for token in tokenizer(text)]


def _words(bundle: Bundle, texts: Sequence[str]) -> tuple[tuple[WordCase, ...], float]:
    """The longest words and those beyond U+FFFF, some words with their states, and how far these may be off."""
    tokenizer, vocabulary, width = bundle.tokenizer(), bundle.vocabulary(), bundle.manifest.characters_per_word
    every = list(dict.fromkeys(token.text for text in texts for token in tokenizer(text)))
    known = [word for word in every if vocabulary.word_id(word)]
    lowered = [word for word in known if word not in vocabulary.words]
    unknown = [word for word in every if not vocabulary.word_id(word)]
    strange = [word for word in every if len(word) > width or max(word) > "\uffff"]
    with_state = sorted({*known[:STATES], *lowered[:STATES], *unknown[:STATES], *unknown[-STATES:]})
    every_engine = []
    for engine in bundle.manifest.engines:
        token = open_engine(bundle, "token", engine=engine)
        every_engine.append(TokenStates(vocabulary, bundle.table, token, characters_per_word=width)(with_state).states)
    states = dict(zip(with_state, every_engine[0], strict=True))
    difference = max(float(np.abs(other - every_engine[0]).max()) for other in every_engine)
    tolerance = max(STATE_TOLERANCE * float(np.abs(every_engine[0]).max()), SAFETY * difference)
    cases = [
        WordCase(
            word=word,
            word_id=vocabulary.word_id(word),
            character_ids=tuple(vocabulary.character_ids([word], width)[0].tolist()),
            state=_round(states[word], STATE_DECIMALS) if word in states else None,
        )
        for word in dict.fromkeys([*with_state, *strange])
    ]
    return tuple(cases), tolerance + 10.0**-STATE_DECIMALS


def _decoder_case(given: tuple[Sequence[float], Sequence[float], int]) -> DecoderCase:
    start, end, limit = given
    best = decode_spans(start, end, max_tokens=limit)[0]
    return DecoderCase(
        start_logits=tuple(start),
        end_logits=tuple(end),
        max_answer_tokens=limit,
        start=best.start,
        end=best.end,
        probability=round(best.probability, 9),
    )


def _round(values: np.ndarray, decimals: int) -> tuple[float, ...]:
    return tuple(round(float(value), decimals) for value in values)


def _rounded_up(tolerance: float) -> float:
    """Two digits of it, which is all that it means."""
    step = 10.0 ** (np.floor(np.log10(tolerance)) - 1)
    return float(f"{np.ceil(tolerance / step) * step:.2g}")
