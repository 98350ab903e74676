"""How the terms of the loss are weighed and interpolated; apart from it, so that reading a recipe needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qa_edge_runtime.errors import InputError

# Of the teacher's and the student's positions in the MSE term; see `interpolate`.
INTERPOLATIONS = ("linear", "cubic")


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """How the terms are weighed: (1 - rho) hard + rho soft + mse_weight MSE (Eq. 12).

    :param rho: share of the soft loss, 0 to 1 (paper: 0.7); 1 for a question without an answer, whatever stands here.
    :param temperature: of both distributions in the soft loss, above 0 (paper: 10).
    :param mse_weight: of the interpolation term, 0 or more (Eq. 12 as printed: 1); 0 leaves it out.
    :raises InputError: if one of them is out of range.
    """

    rho: float = 0.7
    temperature: float = 10.0
    mse_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rho <= 1.0:
            raise InputError(f"rho is {self.rho}: expected a number from 0 (labels alone) to 1 (teacher alone)")
        if not (self.temperature > 0.0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature is {self.temperature}: expected a number above 0")
        if not (self.mse_weight >= 0.0 and math.isfinite(self.mse_weight)):
            raise InputError(f"mse_weight is {self.mse_weight}: expected 0 (without the term) or more")
