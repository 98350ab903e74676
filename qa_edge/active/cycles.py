"""How much is labelled in each cycle of Algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from qa_edge.settings import require_types
from qa_edge_runtime.errors import InputError

REMAINING = ("whole", "remaining")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop goes.

    :param strategy: by name; see `qa_edge.active.strategies`. The first batch is random whatever it is.
    :param first: share of all questions in the first batch.
    :param step: share in each of the others.
    :param step_of: "whole": 1 %, 10 %, 20 %, ... 100 % of all questions, the rows of Tables 4 and 5; "remaining": each
        batch is that share of what is left, as section 5.4 says.
    :param budget: share of all questions that may be labelled; the last batch ends there. A loop that has come to its
        end goes on with a larger one, if its last batch was a whole one.
    :param start: "pretrained": each cycle trains from the encoder's own weights; "last": from the last cycle's model.
    :param seed: of choices and training.
    """

    strategy: str = "least-confidence"
    first: float = 0.01
    step: float = 0.1
    step_of: str = "whole"
    budget: float = 1.0
    start: str = "pretrained"
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("first", "step", "budget"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a share of the questions, 0 < {name} <= 1")
        if self.first > self.budget:
            raise InputError(f"the first batch ({self.first}) is larger than the budget ({self.budget})")
        if self.step_of not in REMAINING:
            raise InputError(f"step_of is {self.step_of!r}, expected {' or '.join(REMAINING)}")
        if self.start not in ("pretrained", "last"):
            raise InputError(f"start is {self.start!r}, expected pretrained or last")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or more")


def labelled_counts(total: int, settings: LoopSettings) -> list[int]:
    """Questions that are labelled when each cycle trains, growing; the last is the budget's.

    :param total: questions of the pool before the first cycle.
    :raises InputError: if the pool is empty.
    """
    if total < 1:
        raise InputError("the pool is empty; expected questions with answers")
    # Shares as they were written, so that ten steps of 0.1 are the whole.
    first, step, budget = (Fraction(str(share)) for share in (settings.first, settings.step, settings.budget))
    last = _rounded(budget, total)
    counts = [min(_rounded(first, total), last)]
    number = 1
    while counts[-1] < last:
        if settings.step_of == "remaining":
            wanted = counts[-1] + ceil(step * (total - counts[-1]))
        else:
            # The next step that adds a question: steps may be as small as they like.
            number = max(number, floor((counts[-1] + Fraction(1, 2)) / (step * total)))
            wanted = _rounded(number * step, total)
            number += 1
        if wanted > counts[-1]:
            counts.append(min(wanted, last))
    return counts


def _rounded(share: Fraction, total: int) -> int:
    return max(1, round(share * total))
