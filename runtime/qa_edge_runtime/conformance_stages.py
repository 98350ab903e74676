"""The stages from a text to an answer, each compared with a bundle's conformance cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cases import Cases, Expected, GraphTolerance, QuestionCase
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.engine import open_engine
from qa_edge_runtime.positions import position_signal
from qa_edge_runtime.states import TokenStates

# Of a probability in a decoder case, which is made up by hand and worked out in float64.
PROBABILITY_TOLERANCE = 1e-6

_SIDES = ("start", "end")

Known = tuple[int, QuestionCase, Expected]
"""A case with its number, and what a graph makes of it."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How many cases of one stage this machine does as the trained student does.

    :ivar name: "tokens", "ids", "positions", "decoder", "states", "logits" or "answers".
    :ivar largest_difference: of two numbers in any case; None where there are none.
    :ivar tolerance: how large it may be.
    :ivar first_difference: the first case that differs, in a sentence; None if all agree.
    """

    name: str
    passed: int
    total: int
    largest_difference: float | None = None
    tolerance: float | None = None
    first_difference: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all cases agree."""
        return self.first_difference is None


class _Stage:
    """Counts the cases of a stage and keeps the first that differs."""

    def __init__(self, name: str, tolerance: float | None = None) -> None:
        self._name, self._tolerance = name, tolerance
        self._passed = self._total = 0
        self._largest: float | None = None
        self._first: str | None = None

    def add(self, difference: str | None) -> None:
        """Count a case: None if it agrees, else what differs."""
        self._total += 1
        self._passed += difference is None
        self._first = self._first or difference

    def compare(
        self, noun: str, names: Iterable[str], expected: np.ndarray, found: np.ndarray, tolerance: float
    ) -> str | None:
        """The first number that is off by more than the tolerance, in a sentence; None if none is.

        :param noun: what the numbers are of; `names` says it of each one.
        """
        if expected.shape != found.shape:
            return f"{noun}: expected {expected.size} numbers, found {found.size}"
        off = np.abs(np.asarray(found, np.float64) - expected)
        if off.size:
            self._largest = max(self._largest or 0.0, float(off.max()))
        wrong = np.flatnonzero(~(off <= tolerance))
        if not len(wrong):
            return None
        place = int(wrong[0])
        name = list(names)[place]
        return (
            f"{noun}: {name}: expected {expected[place]:.5g}, found {found[place]:.5g}, {tolerance:.2g} off is allowed"
        )

    def result(self) -> StageResult:
        return StageResult(
            name=self._name,
            passed=self._passed,
            total=self._total,
            largest_difference=self._largest,
            tolerance=self._tolerance,
            first_difference=self._first,
        )


def check_tokens(bundle: Bundle, cases: Cases) -> StageResult:
    """Tokens of texts, with their characters."""
    stage, tokenizer = _Stage("tokens"), bundle.tokenizer()
    for number, case in enumerate(cases.texts):
        found = [(token.text, token.start, token.end) for token in tokenizer(case.text)]
        difference = None
        for place in range(max(len(found), len(case.tokens))):
            pair = [_token(side[place]) if place < len(side) else "none" for side in (case.tokens, found)]
            if pair[0] != pair[1]:
                difference = (
                    f"tokens of text {number} ({case.text!r:.60}): token {place}: expected {pair[0]}, found {pair[1]}"
                )
                break
        stage.add(difference)
    return stage.result()


def _token(token: tuple[str, int, int]) -> str:
    return f"{token[0]!r} from {token[1]} to {token[2]}"


def check_ids(bundle: Bundle, cases: Cases) -> StageResult:
    """Word ids of the texts' tokens, word and character ids of words."""
    stage, vocabulary, width = _Stage("ids"), bundle.vocabulary(), bundle.manifest.characters_per_word
    for number, case in enumerate(cases.texts):
        words = [token[0] for token in case.tokens]
        found = vocabulary.word_ids(words).tolist()
        pairs = zip(words, case.word_ids, found, strict=False)
        wrong = next((pair for pair in pairs if pair[1] != pair[2]), None)
        stage.add(wrong and f"word id of {wrong[0]!r:.60} in text {number}: expected {wrong[1]}, found {wrong[2]}")
    for word in cases.words:
        expected = (word.word_id, word.character_ids)
        ids = tuple(vocabulary.character_ids([word.word], width)[0].tolist())
        same = expected == (vocabulary.word_id(word.word), ids)
        found_ids = (vocabulary.word_id(word.word), ids)
        stage.add(None if same else f"ids of the word {word.word!r:.60}: expected {expected}, found {found_ids}")
    return stage.result()


def check_positions(bundle: Bundle, cases: Cases) -> StageResult:
    """Position signals of some tokens."""
    stage = _Stage("positions", cases.position_tolerance)
    for case in cases.positions:
        signal = position_signal(case.position + 1, bundle.manifest.hidden)[-1]
        noun = f"position signal of token {case.position}"
        columns = (f"column {column}" for column in range(len(signal)))
        stage.add(stage.compare(noun, columns, np.array(case.signal), signal, cases.position_tolerance))
    return stage.result()


def check_decoder(cases: Cases) -> StageResult:
    """The best spans in logits that were made up by hand."""
    stage = _Stage("decoder")
    for number, case in enumerate(cases.decoder):
        best = decode_spans(case.start_logits, case.end_logits, max_tokens=case.max_answer_tokens)[0]
        close = abs(best.probability - case.probability) <= PROBABILITY_TOLERANCE
        found, expected = (
            f"tokens {span.start} to {span.end} with probability {span.probability:.6f}" for span in (best, case)
        )
        same = close and (best.start, best.end) == (case.start, case.end)
        stage.add(
            None if same else f"best span in the logits of decoder case {number}: expected {expected}, found {found}"
        )
    return stage.result()


def check_states(bundle: Bundle, cases: Cases, engine: str, precision: str) -> StageResult:
    """States of words, out of the table or the engine's token graph."""
    stage = _Stage("states", cases.state_tolerance)
    token = open_engine(bundle, "token", engine=engine, precision=precision)
    look_up = TokenStates(
        bundle.vocabulary(),
        bundle.table,
        token,
        characters_per_word=bundle.manifest.characters_per_word,
        capacity=0,
    )
    for word in cases.words:
        if word.state is not None:
            state = look_up([word.word]).states[0]
            source = "token graph" if word.word_id == 0 else f"row {word.word_id} of the table"
            noun = f"state of the word {word.word!r:.60} ({source})"
            columns = (f"column {column}" for column in range(len(state)))
            stage.add(stage.compare(noun, columns, np.array(word.state), state, cases.state_tolerance))
    return stage.result()


def check_logits(
    known: Sequence[Known], tolerance: GraphTolerance, answerer: Callable[[QuestionCase], Answerer]
) -> tuple[StageResult, StageResult]:
    """Each logit, and the root mean square over all of them, which a machine of its own kind changes far less."""
    stage, together = _Stage("logits", tolerance.logit_tolerance), _Stage("logits rms", tolerance.rms_tolerance)
    squares: list[np.ndarray] = []
    for number, case, expected in known:
        if expected.start_logits is None or expected.end_logits is None:
            continue
        found = answerer(case).logits(case.question, case.context)
        tokens = [token.text for token in found.tokens]
        names = [
            f"{side} logit of token {place} ({text!r:.40})" for side in _SIDES for place, text in enumerate(tokens)
        ]
        ours = np.array([*expected.start_logits, *expected.end_logits])
        theirs = np.concatenate([found.start, found.end])
        stage.add(stage.compare(_name(number, case), names, ours, theirs, tolerance.logit_tolerance))
        if ours.shape == theirs.shape:
            squares.append((ours - theirs) ** 2)
    rms = np.sqrt(np.concatenate(squares).mean()) if squares else np.inf
    together.add(
        together.compare(
            "all cases", ["root mean square of the differences"], np.zeros(1), np.array([rms]), tolerance.rms_tolerance
        )
    )
    return stage.result(), together.result()


def check_answers(known: Sequence[Known], answerer: Callable[[QuestionCase], Answerer]) -> StageResult:
    """Characters of the answers to questions, each on a text in one window or in several."""
    stage = _Stage("answers")
    for number, case, expected in known:
        found = answerer(case).answer(case.question, case.context)
        if (found.start, found.end) in expected.answers:
            stage.add(None)
            continue
        first, last = expected.answers[0]
        others = f" or {len(expected.answers) - 1} others" if len(expected.answers) > 1 else ""
        stage.add(
            f"{_name(number, case)}: expected the answer {case.context[first:last]!r:.80} from {first} to {last}"
            f"{others}, found {found.text!r:.80} from {found.start} to {found.end}"
        )
    return stage.result()


def _name(number: int, case: QuestionCase) -> str:
    return f"case {number} ({case.question!r:.60})"
