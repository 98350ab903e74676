"""What was timed: an entry for each query of a measurement, in the order in which they were answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.times import StageTimes

STAGES = ("tokenise", "look_up", "infer", "decode", "total")
# Milliseconds in a report have four digits after the point: a tenth of a microsecond.
_DIGITS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LatencySamples:
    """Arrays of shape (queries,): counts are int64, times float64 in milliseconds.

    :ivar pass_number: the pass over the questions, from 0.
    :ivar question: the question's place among those asked, from 0; a question is asked once a pass.
    :ivar context_tokens: of the whole context, however many windows it was read in.
    """

    pass_number: np.ndarray
    question: np.ndarray
    context_tokens: np.ndarray
    question_tokens: np.ndarray
    tokenise_ms: np.ndarray
    look_up_ms: np.ndarray
    infer_ms: np.ndarray
    decode_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.question)

    @property
    def total_ms(self) -> np.ndarray:
        """Whole queries: the sum of the stages, which follow each other without a gap."""
        return self.tokenise_ms + self.look_up_ms + self.infer_ms + self.decode_ms

    def stage_ms(self, stage: str) -> np.ndarray:
        """Times of one of `STAGES`."""
        times: np.ndarray = getattr(self, f"{stage}_ms")
        return times

    @classmethod
    def of(cls, times: Sequence[StageTimes], *, pass_number: Sequence[int], question: Sequence[int]) -> LatencySamples:
        """Samples of observed queries.

        :param pass_number: of each query, and `question` too.
        """
        counts = {
            name: np.array([getattr(time, name) for time in times], np.int64)
            for name in ("context_tokens", "question_tokens")
        }
        stages = {
            f"{stage}_ms": np.array([getattr(time, f"{stage}_ms") for time in times], np.float64)
            for stage in STAGES[:-1]
        }
        return cls(
            pass_number=np.array(pass_number, np.int64), question=np.array(question, np.int64), **counts, **stages
        )

    def columns(self) -> dict[str, list[Any]]:
        """As lists, for JSON."""
        return {field.name: np.round(getattr(self, field.name), _DIGITS).tolist() for field in fields(self)}

    @classmethod
    def from_columns(cls, columns: Any) -> LatencySamples:
        """Read what `columns` gave.

        :raises DataError: if a column is missing, is not of numbers from 0, or is longer or shorter than others.
        """
        if not isinstance(columns, Mapping):
            raise DataError(f"samples is {type(columns).__name__}, expected an object of columns")
        arrays = {}
        for field in fields(cls):
            kind, column = (np.float64 if field.name.endswith("_ms") else np.int64), columns.get(field.name)
            numbers = (int, float) if kind is np.float64 else (int,)
            if not isinstance(column, list) or any(type(entry) not in numbers for entry in column):
                raise DataError(f"samples.{field.name} is missing or not a list of numbers")
            try:
                arrays[field.name] = np.array(column, kind)
            except OverflowError:
                raise DataError(f"samples.{field.name} holds a number beyond reason") from None
            if not np.isfinite(arrays[field.name]).all() or (arrays[field.name] < 0).any():
                raise DataError(f"samples.{field.name} holds a number that is not finite or below 0")
        if len({len(array) for array in arrays.values()}) > 1 or not len(arrays["question"]):
            raise DataError("the columns of samples are empty or not all of one length")
        return cls(**arrays)
