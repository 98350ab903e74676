"""Conformance cases, `cases.json`: what a right runtime finds on the way from a text to an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qa_edge_runtime.errors import BundleError, DataError
from qa_edge_runtime.strict_json import parse_strict_json

FORMAT_VERSION = 2
MOST_POSITION = 100_000


@dataclass(frozen=True, kw_only=True)
class TextCase:
    """A text, its tokens (text, first character, the character after the last) and their word ids."""

    text: str
    tokens: tuple[tuple[str, int, int], ...]
    word_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WordCase:
    """A token, its ids, and for some of them the state, `hidden` numbers."""

    word: str
    word_id: int
    character_ids: tuple[int, ...]
    state: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PositionCase:
    """The position signal of one token, `hidden` numbers."""

    position: int
    signal: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DecoderCase:
    """Logits made up by hand and the best span in them: tokens `start` to `end`, both inclusive."""

    start_logits: tuple[float, ...]
    end_logits: tuple[float, ...]
    max_answer_tokens: int
    start: int
    end: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class GraphTolerance:
    """How far logits may be from a graph's expected ones on a machine that runs it rightly.

    :ivar logit_tolerance: of any logit.
    :ivar rms_tolerance: of the root mean square over all logits of the cases.
    """

    engine: str
    precision: str
    logit_tolerance: float
    rms_tolerance: float


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What some graphs make of a question.

    :ivar graphs: their numbers in `Cases.graphs`.
    :ivar start_logits: of the context's tokens; None where a long text's are left out, `end_logits` too.
    :ivar answers: first character and the one after the last of each answer that counts as right: the best, and those
        that rounding can put before it.
    """

    graphs: tuple[int, ...]
    start_logits: tuple[float, ...] | None
    end_logits: tuple[float, ...] | None
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class QuestionCase:
    """A question on a text, read in windows of `window_tokens` that share `overlap_tokens`."""

    question: str
    context: str
    window_tokens: int
    overlap_tokens: int
    expected: tuple[Expected, ...]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """All conformance cases of a bundle.

    :ivar state_tolerance: of a number of a state.
    :ivar position_tolerance: of a number of a position signal.
    :ivar cases: questions on texts of up to one window.
    :ivar documents: questions on texts of several windows.
    """

    graphs: tuple[GraphTolerance, ...]
    state_tolerance: float
    position_tolerance: float
    texts: tuple[TextCase, ...]
    words: tuple[WordCase, ...]
    positions: tuple[PositionCase, ...]
    decoder: tuple[DecoderCase, ...]
    cases: tuple[QuestionCase, ...]
    documents: tuple[QuestionCase, ...]

    @property
    def questions(self) -> tuple[QuestionCase, ...]:
        """Those on texts of one window, then those on longer ones."""
        return (*self.cases, *self.documents)

    def expected(self, case: QuestionCase, engine: str, precision: str) -> Expected | None:
        """What a graph makes of a question; None if the cases say nothing of this graph."""
        for expected in case.expected:
            for number in expected.graphs:
                if (self.graphs[number].engine, self.graphs[number].precision) == (engine, precision):
                    return expected
        return None

    def tolerance(self, engine: str, precision: str) -> GraphTolerance | None:
        """How far a graph's logits may be off; None if the cases say nothing of this graph."""
        found = (graph for graph in self.graphs if (graph.engine, graph.precision) == (engine, precision))
        return next(found, None)

    def to_json(self) -> bytes:
        """JSON in ASCII, so that a transfer cannot change the texts' Unicode; `from_json` gives the same cases back."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, text: bytes) -> Cases:
        """Parse a cases file.

        :raises BundleError: if it is of another format or shape.
        """
        try:
            found = parse_strict_json(text)
        except DataError as error:
            raise BundleError(f"{error}; export or copy the bundle again") from None
        version = found.get("format_version") if isinstance(found, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            advice = "upgrade qa-edge-runtime" if type(version) is int and version > FORMAT_VERSION else "export again"
            raise BundleError(f"conformance cases of format {version!r:.40}, expected {FORMAT_VERSION}: {advice}")
        try:
            cases = _cases(found)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"an entry is missing or of another kind ({error!r:.200}); export it again") from None
        for case in cases.questions:
            for number in (number for expected in case.expected for number in expected.graphs):
                if not 0 <= number < len(cases.graphs):
                    raise BundleError(f"a case names graph {number} of {len(cases.graphs)}; export it again")
        return cases


def _cases(found: Mapping[str, Any]) -> Cases:
    return Cases(
        graphs=tuple(
            GraphTolerance(
                engine=_text(graph["engine"]),
                precision=_text(graph["precision"]),
                logit_tolerance=_number(graph["logit_tolerance"]),
                rms_tolerance=_number(graph["rms_tolerance"]),
            )
            for graph in found["graphs"]
        ),
        state_tolerance=_number(found["state_tolerance"]),
        position_tolerance=_number(found["position_tolerance"]),
        texts=tuple(
            TextCase(
                text=_text(text["text"]),
                tokens=tuple((_text(token), _whole(start), _whole(end)) for token, start, end in text["tokens"]),
                word_ids=_wholes(text["word_ids"]),
            )
            for text in found["texts"]
        ),
        words=tuple(
            WordCase(
                word=_text(word["word"]),
                word_id=_whole(word["word_id"]),
                character_ids=_wholes(word["character_ids"]),
                state=None if word["state"] is None else _numbers(word["state"]),
            )
            for word in found["words"]
        ),
        positions=tuple(
            PositionCase(position=_place(place["position"]), signal=_numbers(place["signal"]))
            for place in found["positions"]
        ),
        decoder=tuple(
            DecoderCase(
                start_logits=_numbers(case["start_logits"]),
                end_logits=_numbers(case["end_logits"]),
                max_answer_tokens=_whole(case["max_answer_tokens"]),
                start=_whole(case["start"]),
                end=_whole(case["end"]),
                probability=_number(case["probability"]),
            )
            for case in found["decoder"]
        ),
        cases=tuple(map(_question, found["cases"])),
        documents=tuple(map(_question, found["documents"])),
    )


def _question(found: Mapping[str, Any]) -> QuestionCase:
    return QuestionCase(
        question=_text(found["question"]),
        context=_text(found["context"]),
        window_tokens=_whole(found["window_tokens"]),
        overlap_tokens=_whole(found["overlap_tokens"]),
        expected=tuple(map(_expected, found["expected"])),
    )


def _expected(found: Mapping[str, Any]) -> Expected:
    start, end = (None if found[name] is None else _numbers(found[name]) for name in ("start_logits", "end_logits"))
    if (start is None) != (end is None):
        raise ValueError("start_logits without end_logits")
    if not found["answers"]:
        raise ValueError("a question without an answer that counts as right")
    return Expected(
        graphs=_wholes(found["graphs"]),
        start_logits=start,
        end_logits=end,
        answers=tuple((_whole(first), _whole(last)) for first, last in found["answers"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r:.60} is not a whole number from 0")
    return value


def _place(value: Any) -> int:
    if _whole(value) > MOST_POSITION:  # the signals of all before it are made too
        raise ValueError(f"position {value!r:.60} is beyond {MOST_POSITION:,}")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.60} is not a number")
    return float(value)


def _wholes(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(_whole, values))


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(map(_number, values))
