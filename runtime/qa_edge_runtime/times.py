"""What a question took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """What one question took, by stage in milliseconds, and where the states of its tokens came from.

    `look_up_ms` is choosing windows, ids, rows of the table and the token graph for tokens that are neither in it nor
    remembered; `infer_ms` is the core graph, over all windows; `decode_ms` ends with the answers' characters. Reading
    the context is in them where context and question were given together. Of the `distinct_tokens` of the question
    and, where it is in the times, the context (of each window, if it has several), `unknown_tokens` are not in the
    table, and `remembered_tokens` of these were computed before.
    """

    tokenise_ms: float
    look_up_ms: float
    infer_ms: float
    decode_ms: float
    windows: int
    context_tokens: int
    question_tokens: int
    distinct_tokens: int
    unknown_tokens: int
    remembered_tokens: int

    @property
    def total_ms(self) -> float:
        """Sum of the stages, which follow each other without a gap."""
        return self.tokenise_ms + self.look_up_ms + self.infer_ms + self.decode_ms
