"""How a student is trained: the settings of a run, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from qa_edge.align import STRATEGIES
from qa_edge.loss_settings import INTERPOLATIONS, DistillationLoss
from qa_edge.schedule import SCHEDULES
from qa_edge.settings import require_types
from qa_edge_runtime.errors import InputError

OPTIMIZERS = ("adam", "muon")
# float16 would need its losses scaled; whatever runs it fast runs bfloat16 too.
PRECISIONS = ("no", "bf16")
TABLES = ("float32", "int4")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a student is trained. Defaults are the paper's (sections 4.1.2 and 5.3) where it speaks.

    :param epochs: passes over the training questions.
    :param least_updates: updates at least: more passes are made where `epochs` of them are fewer, so that runs on more
        and on fewer questions can be as long.
    :param batch_size: questions an update, over all processes.
    :param rate: learning rate at its highest; see `schedule.learning_rate`.
    :param optimizer: `adam`, or `muon` for the matrices and Adam for the rest (see `muon`).
    :param weight_decay: L2, added to the gradient as Adam does.
    :param interpolation: `cubic` or `linear`; used unless mse_weight is 0.
    :param others: share of the questions that are asked of another paragraph of their article too, without the answer,
        in one softmax with their own (see `paragraphs`): so that logits of the windows of a long text are comparable.
    :param noise: share of the questions that are asked in noise, which the features must hold (see `noisy_questions`).
    :param layers_weight: of the distance to the teacher's reduced states (see `layers`); None leaves it out.
    :param table: `int4` rounds the states of words as a bundle's table of 4 bits will, `float32` does not.
    :param precision: `no` (float32) or `bf16` for the matrix products and the residual stream.
    :param evaluate_every: updates between evaluations on the held-out articles.
    :param patience: evaluations without gain after which the run stops; None never stops early.
    :param save_every: updates between states to resume from; a multiple of `log_every`.
    :param max_steps: stop (to be resumed) after this many updates in all; None runs to the end.
    """

    epochs: int = 30
    least_updates: int | None = None
    batch_size: int = 14
    rate: float = 1e-3
    warmup: int = 1000
    schedule: str = "constant"
    optimizer: str = "adam"
    weight_decay: float = 3e-7
    gradient_norm: float = 5.0
    rho: float = 0.7
    temperature: float = 10.0
    mse_weight: float = 1.0
    alignment: str = "rule"
    interpolation: str = "cubic"
    context_limit: int = 400
    others: float = 0.0
    noise: float | None = None
    layers_weight: float | None = None
    ema_ceiling: float | None = None
    evaluate_every: int = 1000
    patience: int | None = None
    log_every: int = 50
    save_every: int = 200
    max_steps: int | None = None
    table: str = "float32"
    precision: str = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        counts = ["epochs", "batch_size", "evaluate_every", "log_every", "save_every", "context_limit"]
        counts += [name for name in ("patience", "max_steps", "least_updates") if getattr(self, name) is not None]
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.save_every % self.log_every:
            raise InputError(f"save_every ({self.save_every}) must be a multiple of log_every ({self.log_every})")
        if not 0 <= self.seed < 1 << 22:
            raise InputError(f"seed is {self.seed}, expected 0 to {(1 << 22) - 1}")
        if not self.rate > 0 or not self.gradient_norm > 0:
            raise InputError("rate and gradient_norm must be above 0")
        choices: dict[str, tuple[str, ...]] = {
            "precision": PRECISIONS,
            "alignment": STRATEGIES,
            "interpolation": INTERPOLATIONS,
            "schedule": SCHEDULES,
            "optimizer": OPTIMIZERS,
            "table": TABLES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if self.warmup < 0 or self.weight_decay < 0:
            raise InputError("warmup and weight_decay must be 0 or more")
        if not 0 <= self.others <= 1:
            raise InputError(f"others is {self.others}, expected a share of the questions, 0 to 1")
        if self.noise is not None and not 0 < self.noise <= 1:
            raise InputError(f"noise is {self.noise}, expected a share of the questions, above 0 and up to 1")
        if self.layers_weight is not None and not self.layers_weight > 0:
            raise InputError(f"layers_weight is {self.layers_weight}, expected a number above 0")
        if self.ema_ceiling is not None and not 0 <= self.ema_ceiling < 1:
            raise InputError(f"ema_ceiling is {self.ema_ceiling}, expected 0 <= ema_ceiling < 1")
        self.loss()

    def loss(self) -> DistillationLoss:
        """The weights of the loss terms, checked."""
        return DistillationLoss(rho=self.rho, temperature=self.temperature, mse_weight=self.mse_weight)
