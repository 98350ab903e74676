"""How a teacher is fine-tuned; apart from the training, so that reading a recipe needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from qa_edge.settings import require_types
from qa_edge_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TeachSettings:
    """How a teacher is fine-tuned. Defaults are those of BERT's paper (appendix A.3); the paper prints 5e-4 for 5e-5.

    :param least_updates: updates at least: more passes are made where `epochs` of them are fewer, since a fine-tuning
        on some hundred questions is else over before it begins (Mosbach et al., 2021).
    :param dropout: of all layers, in place of the encoder's own; 0 is faster on a CPU and teaches worse
        (docs/experiments/019).
    :param warmup: share of the updates in which the rate grows; it falls linearly to 0 after them.
    :param batch_tokens: padded pieces in a batch of one process.
    :param window: pieces in a window, with question and special pieces; neighbours overlap by `stride`.
    :param precision: `no` (float32) or `bf16`.
    """

    epochs: int = 2
    least_updates: int | None = None
    dropout: float | None = None
    rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    batch_tokens: int = 6144
    window: int = 384
    stride: int = 128
    precision: str = "no"
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("epochs", "batch_tokens", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.least_updates is not None and self.least_updates < 1:
            raise InputError(f"least_updates is {self.least_updates}, expected at least 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}, expected a share, 0 <= dropout < 1")
        if not self.rate > 0 or not self.gradient_norm > 0 or self.weight_decay < 0:
            raise InputError("rate and gradient_norm must be above 0, weight_decay 0 or more")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}, expected a share of the updates, 0 <= warmup < 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or more")
        if self.precision not in ("no", "bf16"):
            raise InputError(f"precision is {self.precision!r}, expected no or bf16")
