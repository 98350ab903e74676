"""Windows over the tokens of a text of any length: where each begins, and which of its logits count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_runtime.errors import InputError

# Students are trained on contexts of up to 400 tokens; an answer has 30 at most, so that it lies whole in one window.
WINDOW_TOKENS = 400
OVERLAP_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of a text: tokens `start` to `stop`, of which the logits from `kept_start` to `kept_stop` count.

    All four count the text's tokens and are half-open ranges. The kept ranges of a text's windows do not overlap: a
    token's logits come from the window in which it has more context on its poorer side.
    """

    start: int
    stop: int
    kept_start: int
    kept_stop: int


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a text is cut into windows.

    :param tokens: of a window; a text that has no more is read whole.
    :param overlap: tokens that a window shares with the next one, at least.
    :raises InputError: if a window has fewer than 2 tokens or the overlap is more than half of it.
    """

    tokens: int = WINDOW_TOKENS
    overlap: int = OVERLAP_TOKENS

    def __post_init__(self) -> None:
        if type(self.tokens) is not int or self.tokens < 2:
            raise InputError(f"window_tokens is {self.tokens!r:.40}, expected a whole number from 2")
        if type(self.overlap) is not int or not 0 <= self.overlap <= self.tokens // 2:
            raise InputError(
                f"overlap_tokens is {self.overlap!r:.40}, expected a whole number from 0 to half of window_tokens"
                f" ({self.tokens // 2})"
            )

    def starts(self, tokens: int) -> list[int]:
        """First token of each window of a text: all are full, the last one ends with the text.

        :param tokens: of the text.
        """
        if tokens <= self.tokens:
            return [0]
        step = self.tokens - self.overlap
        return [*range(0, tokens - self.tokens, step), tokens - self.tokens]

    def cut(self, tokens: int, chosen: Sequence[int] | None = None) -> list[Window]:
        """The windows of a text, or some of them.

        :param tokens: of the text.
        :param chosen: numbers of the windows that are read, ascending; None reads all, and all tokens are kept.
        """
        starts = self.starts(tokens)
        starts = starts if chosen is None else [starts[number] for number in chosen]
        stops = [min(start + self.tokens, tokens) for start in starts]
        kept_starts, kept_stops = list(starts), list(stops)
        for number in range(1, len(starts)):
            if stops[number - 1] > starts[number]:
                # In the middle of what two windows share, a token has as much context on its poorer side in one as in
                # the other. Where the next window is not read, all is kept.
                seam = (stops[number - 1] + starts[number]) // 2
                kept_stops[number - 1] = kept_starts[number] = seam
        return [
            Window(start=start, stop=stop, kept_start=kept_start, kept_stop=kept_stop)
            for start, stop, kept_start, kept_stop in zip(starts, stops, kept_starts, kept_stops, strict=True)
        ]


def merge_logits(
    windows: Sequence[Window], logits: Sequence[np.ndarray], tokens: int, priors: Sequence[float] | np.ndarray
) -> np.ndarray:
    """One logit a token of the text.

    :param windows: those that were read, in the order of the text.
    :param logits: of each window's tokens, shape (2, window tokens).
    :param tokens: of the text.
    :param priors: what each window adds to the logit of its spans: a half to the start, a half to the end.
    :return: float32, shape (2, tokens); 0 for tokens that were not read.
    """
    merged = np.zeros((2, tokens), np.float32)
    for window, part, prior in zip(windows, logits, priors, strict=True):
        kept = slice(window.kept_start - window.start, window.kept_stop - window.start)
        merged[:, window.kept_start : window.kept_stop] = part[:, kept] + prior / 2
    return merged


def runs(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """Ranges of tokens that were read without a gap, half-open, in the order of the text."""
    found: list[tuple[int, int]] = []
    for window in windows:
        if found and found[-1][1] == window.kept_start:
            found[-1] = (found[-1][0], window.kept_stop)
        else:
            found.append((window.kept_start, window.kept_stop))
    return found
