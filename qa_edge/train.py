"""The training loop: distil the student from labels and teacher logits, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qa_edge import ema
from qa_edge.accelerator import open_accelerator
from qa_edge.batches import Targets, TrainingData, moved
from qa_edge.checkpoint import TrainingState, save_checkpoint
from qa_edge.flat import FlatParameters
from qa_edge.interpolate import interpolate
from qa_edge.layers import LayerProjections
from qa_edge.losses import LossTerms, OtherLogits, distillation_loss
from qa_edge.metrics import MetricsLog
from qa_edge.muon import Muon
from qa_edge.progress import progress
from qa_edge.schedule import learning_rate
from qa_edge.splines import LONGEST, Splines
from qa_edge.squad import Squad
from qa_edge.states import NO_STATES
from qa_edge.student.qanet import Batch, QANet
from qa_edge.train_settings import TrainSettings
from qa_edge.trained import TrainedStudent
from qa_edge.updates import Updates
from qa_edge_export.token_table import INT4_GROUP
from qa_edge_runtime.errors import DataError, InputError

if TYPE_CHECKING:
    from accelerate import Accelerator


# What each optimiser keeps for the flat weights; Adam's count of updates differs from the run's after a fresh start.
_ADAM = ("exp_avg", "exp_avg_sq", "step")
MOMENTS = {"adam": _ADAM, "muon": (*_ADAM, "momentum")}


class Trainer:
    """Trains one student in one run folder.

    :param heldout: questions of articles that training does not see; the best checkpoint is chosen on them.
    :param on_step: called after each update with its number, for tests that interrupt a run.
    """

    def __init__(
        self,
        run: Path,
        student: TrainedStudent,
        data: TrainingData,
        heldout: Squad,
        settings: TrainSettings,
        *,
        accelerator: Accelerator | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.run, self.data, self.heldout, self.settings = run, data, heldout, settings
        self.accelerator = accelerator or open_accelerator(settings.precision)
        if settings.batch_size % self.accelerator.num_processes:
            raise InputError(
                f"batch_size {settings.batch_size} cannot be shared by {self.accelerator.num_processes} processes: "
                "choose a multiple"
            )
        if len(data) < self.accelerator.num_processes:
            raise InputError(f"{len(data)} questions cannot be shared by {self.accelerator.num_processes} processes")
        if settings.noise and not data.features.noisy_copies:
            raise InputError(
                f"noise is {settings.noise}, but the features have no noisy questions: prepare them with --noisy 2"
            )
        self.student = student
        self.model: QANet = student.model.to(self.accelerator.device)
        self.model.rounds_states = settings.table == "int4"
        if self.model.rounds_states and self.model.config.hidden % INT4_GROUP:
            raise InputError(f"a table of 4 bits needs a hidden size that is a multiple of {INT4_GROUP}")
        self.model.pool.seed = settings.seed * 1000 + self.accelerator.process_index
        self.layers: LayerProjections | None = None
        if settings.layers_weight:
            if data.states is None:
                raise InputError(NO_STATES)
            self.layers = LayerProjections(self.model.config.hidden, data.states.width).to(self.accelerator.device)
        self.flat = FlatParameters(self.model, *([self.layers] if self.layers is not None else []))
        self.average = self.flat.weights.clone()
        adam: dict[str, Any] = {
            "lr": settings.rate,
            "betas": (0.8, 0.999),
            "eps": 1e-7,
            "weight_decay": settings.weight_decay,
            "fused": True,
        }
        self.optimiser: torch.optim.Adam = (
            Muon(self.flat, **adam) if settings.optimizer == "muon" else torch.optim.Adam([self.flat.parameter], **adam)
        )
        place = {"process": self.accelerator.process_index, "processes": self.accelerator.num_processes}
        self.updates = Updates(data, settings, device=self.accelerator.device, **place)
        self.epoch_steps = self.updates.steps_a_pass
        self.total_steps = max(self.epoch_steps * settings.epochs, settings.least_updates or 0)
        ceiling = settings.ema_ceiling
        self.ceiling = ema.decay_ceiling(self.total_steps) if ceiling is None else ceiling
        self.on_step = on_step
        self.splines: Splines | None = None
        if self.accelerator.device.type != "cpu" and settings.mse_weight and data.lengths.max() <= LONGEST:
            self.splines = Splines(int(data.lengths.max()), settings.interpolation, self.accelerator.device)
        self.state = TrainingState()
        self.log = MetricsLog(run, enabled=self.accelerator.is_main_process, mean=self._mean)
        self._saved = -1

    def train(self) -> TrainingState:
        """Run, or go on, to the end, to `max_steps`, or until the held-out F1 no longer grows."""
        # Denormal numbers in late averages and moments cost a CPU a hundred times a normal one. The mode is the whole
        # thread's, the caller's numpy included: it is given back.
        torch.set_flush_denormal(True)
        try:
            return self._train()
        finally:
            torch.set_flush_denormal(False)

    def _train(self) -> TrainingState:
        settings, state = self.settings, self._resume()
        last = min(self.total_steps, settings.max_steps or self.total_steps)
        self.model.train()
        with closing(self.log), closing(self.updates), progress("distil", self.total_steps, state.step) as advance:
            while state.step < last and not state.finished:
                self._step(state.step)
                state.step += 1
                advance(1)
                if state.step % settings.log_every == 0 or state.step == self.total_steps:
                    self._log_training()
                due = state.step % settings.evaluate_every == 0 or state.step == self.total_steps
                kept = due or state.step % settings.save_every == 0 or state.step == last
                if due:
                    self._require_finite()
                    self._evaluate()
                if kept:
                    self.save()
                if self.on_step:
                    self.on_step(state.step)
        return state

    def _step(self, step: int) -> None:
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(
                step, peak=settings.rate, warmup=settings.warmup, total=self.total_steps, schedule=settings.schedule
            )
        batch, targets = self.updates[step]
        torch.manual_seed(int(self.updates.source(step).generate_state(1)[0]))
        self.model.pool.start_step(step)
        self.flat.gradient.zero_()
        terms = self.loss(batch, targets)
        terms.total.backward()
        if self.accelerator.num_processes > 1:
            self.flat.gradient.copy_(self.accelerator.reduce(self.flat.gradient, "mean"))
        norm = torch.linalg.vector_norm(self.flat.gradient)
        self.flat.gradient.mul_((settings.gradient_norm / (norm + 1e-6)).clamp(max=1.0))
        self.optimiser.step()
        ema.update(self.average, self.flat.weights, ema.decay_at(step, self.ceiling))
        self.log.add(questions=len(targets.start) * self.accelerator.num_processes, norm=norm, terms=terms)

    def loss(self, batch: Batch, targets: Targets) -> LossTerms:
        """Loss terms of a batch under the run's settings."""
        device = self.accelerator.device
        batch, targets = moved(batch, device), moved(targets, device)
        with self.accelerator.autocast():
            logits, passes = self.model.with_states(batch)
        mask = torch.arange(logits.shape[2], device=device) < batch.context_lengths.unsqueeze(1)
        questions = len(logits) - len(targets.others)
        own, lengths = logits[:questions], batch.context_lengths[:questions]
        teacher: dict[str, Tensor] = {}
        config = self.settings.loss()
        others = OtherLogits(targets.others, logits[questions:], mask[questions:])
        if targets.aligned_logits is not None and targets.aligned is not None and targets.piece_logits is not None:
            teacher = {
                "teacher_start": others.without_answer(targets.aligned_logits[:, 0]),
                "teacher_end": others.without_answer(targets.aligned_logits[:, 1]),
                "aligned": others.beside(targets.aligned),
            }
            if config.mse_weight:
                pieces, width = targets.piece_lengths, targets.piece_logits.shape[2]
                if self.splines is None:
                    kind = self.settings.interpolation
                    teacher["interpolated"] = interpolate(own, lengths.tolist(), pieces.tolist(), kind)
                else:
                    teacher["interpolated"] = self.splines(own, lengths, pieces, width)
                teacher["teacher_pieces"] = targets.piece_logits
                teacher["piece_mask"] = torch.arange(width, device=device) < pieces.unsqueeze(1)
        start, end = others.joined(own)
        terms = distillation_loss(
            config,
            start_logits=start,
            end_logits=end,
            mask=others.beside(mask[:questions]),
            start=targets.start,
            end=targets.end,
            **teacher,
        )
        if self.layers is None or targets.states is None:
            return terms
        layers = self.layers(passes, targets.states)
        return terms._replace(total=terms.total + (self.settings.layers_weight or 0) * layers, layers=layers)

    def _require_finite(self) -> None:
        """Refuse to keep weights that hold no number any more: the state before them is worth more."""
        if not torch.isfinite(self.flat.weights).all():
            raise DataError(
                f"the weights are not finite after update {self.state.step}: begin another run with a lower rate; the "
                f"checkpoint and the state of the last save are kept in {self.run}"
            )

    def _log_training(self) -> None:
        step = self.state.step
        rate = self.optimiser.param_groups[0]["lr"]
        self.log.write_training(step=step, epoch=round(step / self.epoch_steps, 4), rate=rate)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, each of which sees its own share of an update's questions."""
        if self.accelerator.num_processes == 1:
            return values
        return self.accelerator.reduce(values.to(self.accelerator.device), "mean").cpu()

    def _evaluate(self) -> None:
        """Score raw and averaged weights on the held-out articles; keep the best average as the checkpoint."""
        state = self.state
        scored = next(self.heldout.items(), None) is not None
        f1 = 0.0
        if scored:
            exact_match, f1s = self._score({"raw": self.flat.weights.clone(), "ema": self.average})
            f1 = f1s["ema"]
            record = {f"{name}_exact_match": round(value, 3) for name, value in exact_match.items()}
            record |= {f"{name}_f1": round(value, 3) for name, value in f1s.items()}
            self.log.write(kind="evaluation", step=state.step, **record)
        if f1 > state.best_f1 or not scored:
            state.best_f1, state.best_step, state.evaluations_without_gain = f1, state.step, 0
            if self.accelerator.is_main_process:
                average = self.flat.named_arrays(self.average)
                kept = {name: average[name] for name, _ in self.model.named_parameters()}
                save_checkpoint(self.run, self.model.config, kept)
        else:
            state.evaluations_without_gain += 1
        patience = self.settings.patience
        state.finished = state.step >= self.total_steps or (
            patience is not None and state.evaluations_without_gain >= patience
        )

    def _score(self, candidates: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """EM and F1 of several weights, which the processes share between them."""
        raw = self.flat.weights.clone()
        results = torch.zeros(2, len(candidates), dtype=torch.float64)
        for place, (name, weights) in enumerate(candidates.items()):
            if place % self.accelerator.num_processes == self.accelerator.process_index:
                self.flat.weights.copy_(weights)
                with self.accelerator.autocast():
                    scores = self.student.evaluate(self.heldout, description=f"held-out, {name}")
                results[0, place], results[1, place] = scores.exact_match, scores.f1
        self.flat.weights.copy_(raw)
        self.model.train()
        if self.accelerator.num_processes > 1:
            results = self.accelerator.reduce(results.to(self.accelerator.device), "sum").cpu()
        exact_match, f1 = (dict(zip(candidates, row.tolist(), strict=True)) for row in results)
        return exact_match, f1

    def save(self) -> None:
        """Write the state that resuming needs, unless the last save did."""
        if self.state.step == self._saved:
            return
        self._require_finite()
        self.state.metrics = self.log.gathered()
        if self.accelerator.is_main_process:
            moments = self.optimiser.state[self.flat.parameter]
            self.state.tensors = {
                "weights": self.flat.weights.cpu().clone(),
                "average": self.average.cpu().clone(),
                **{name: moments[name].cpu().clone() for name in MOMENTS[self.settings.optimizer]},
            }
            self.state.save(self.run)
            self.state.tensors = {}
        self._saved = self.state.step

    def _resume(self) -> TrainingState:
        found = TrainingState.load(self.run, needed=("weights", "average"))
        if found is None:
            self.log.start(step=0)
            return self.state
        tensors, device = found.tensors, self.accelerator.device
        if tensors["weights"].shape != self.flat.weights.shape:
            raise DataError(f"the state in {self.run} is of another student; name another run folder")
        self.flat.weights.copy_(tensors["weights"])
        self.average.copy_(tensors["average"])
        # A state that was carried to another machine by its weights alone starts with fresh moments.
        kept = MOMENTS[self.settings.optimizer]
        if tensors.keys() >= set(kept):
            self.optimiser.state[self.flat.parameter] = {name: tensors[name].to(device) for name in kept}
        found.tensors = {}
        self.state, self._saved = found, found.step
        self.log.start(step=found.step, gathered=found.metrics)
        return found
