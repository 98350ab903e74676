"""A teacher of one's own: any encoder of the Hugging Face ecosystem, fine-tuned into a question answerer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qa_edge.accelerator import open_accelerator
from qa_edge.checkpoint import STATE, TrainingState
from qa_edge.cpu_training import trained_on_cpu
from qa_edge.evaluate import predict_with_teacher
from qa_edge.flat import FlatParameters
from qa_edge.interrupt import noticing_interrupt
from qa_edge.lock import alone_in
from qa_edge.metrics import FILE as METRICS
from qa_edge.metrics import keep_lines
from qa_edge.progress import progress
from qa_edge.recipe import Input, model_entry, settle_recipe
from qa_edge.scores import settle_scores
from qa_edge.squad import Squad, read_squad, references
from qa_edge.teach_settings import TeachSettings
from qa_edge.teacher import Teacher
from qa_edge.windows import Example, encode_examples, token_batches
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.scoring import Scores, score_predictions

if TYPE_CHECKING:
    from accelerate import Accelerator

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class TeachReport:
    """Where the fine-tuning stands; `scores` are on the development set, None without one or before the end."""

    teacher: str
    steps: int
    total_steps: int
    finished: bool
    scores: dict[str, Any] | None


def teach(
    encoder: str,
    squad_path: str | Path,
    output: str | Path,
    *,
    dev_path: str | Path | None = None,
    settings: TeachSettings | None = None,
    max_steps: int | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> TeachReport:
    """Fine-tune an encoder on a SQuAD file's answers; what an interrupted run has done is kept.

    :param encoder: name on the hub, or a folder.
    :param output: folder that `Teacher.load` reads in the end.
    :param max_steps: stop, to be gone on with, after this many updates in all.
    :raises DataError: if the encoder or the data cannot be used, or `output` is of another run.
    """
    settings, folder = settings or TeachSettings(), Path(output)
    squad = read_squad(squad_path)
    dev = None if dev_path is None else read_squad(dev_path)
    if dev is not None and not references(dev):
        raise DataError(
            f"SQuAD file {dev_path} has no question with an answer to score on; give another --dev, or none"
        )
    accelerator = open_accelerator(settings.precision)
    is_main = accelerator.is_main_process
    with alone_in(folder, enabled=is_main):
        if is_main:
            paths = {"squad": squad_path, "dev": dev_path}
            inputs = {name: asdict(Input.of(path, "SQuAD file")) for name, path in paths.items() if path is not None}
            begun = (folder / STATE).exists() or (folder / CONFIG).exists()
            recipe = {"kind": "teach", "encoder": model_entry(encoder), "inputs": inputs, "train": asdict(settings)}
            settle_recipe(folder, recipe, begun=begun)
        accelerator.wait_for_everyone()
        steps = total = 0
        finished = (folder / CONFIG).exists()
        if not finished:
            torch.manual_seed(settings.seed)  # of a new head
            device = str(accelerator.device)
            window, stride = settings.window, settings.stride
            teacher = Teacher.load(encoder, device=device, window=window, stride=stride, new_head=True)
            if settings.dropout is not None:
                _set_dropout(teacher.model, settings.dropout)
            examples = encode_examples(teacher, squad)
            if is_main:
                log(f"{len(examples):,} windows; {sum(p.numel() for p in teacher.model.parameters()):,} weights")
            tuning = _FineTuning(folder, teacher, examples, settings, accelerator)
            with noticing_interrupt(log, enabled=accelerator.num_processes == 1) as interrupted:
                steps, total = tuning.train(max_steps, interrupted), tuning.total_steps
            finished = steps == total
            # A run that was killed between its last update and here has none left at which they meet: a late process
            # must find the state, and no model.
            accelerator.wait_for_everyone()
            if finished and is_main:
                _save_model(teacher, folder)
                shutil.rmtree(folder / STATE, ignore_errors=True)
            accelerator.wait_for_everyone()
        scores = None
        if finished and dev is not None and dev_path is not None and is_main:
            measure = partial(_measure, folder, dev, settings, str(accelerator.device))
            scores = settle_scores(folder, Path(dev_path).name, dev.sha256, measure)
        accelerator.wait_for_everyone()
        return TeachReport(teacher=str(folder), steps=steps, total_steps=total, finished=finished, scores=scores)


def _measure(folder: Path, dev: Squad, settings: TeachSettings, device: str) -> Scores:
    teacher = Teacher.load(str(folder), device=device, window=settings.window, stride=settings.stride)
    return score_predictions(references(dev), predict_with_teacher(teacher, dev))


def batches_of_process(batches: Sequence[np.ndarray], process: int, processes: int) -> list[np.ndarray]:
    """The batches of a pass that one of several processes reads, as many as each of the others.

    Where they do not come out even the pass begins again, as often as it takes: a few questions may be less than a
    batch for each.

    :param batches: of the whole pass, at least one.
    :param process: this process's number among `processes`.
    """
    updates = -(-len(batches) // processes)
    return list(islice(cycle(batches), process, updates * processes, processes))


class _FineTuning:
    """The loop: AdamW on all weights as one tensor, linear rate, a state on disk that it goes on from."""

    def __init__(
        self, folder: Path, teacher: Teacher, examples: list[Example], settings: TeachSettings, accelerator: Accelerator
    ) -> None:
        self.folder, self.teacher, self.examples = folder, teacher, examples
        self.settings, self.accelerator = settings, accelerator
        self.flat = FlatParameters(teacher.model)
        # BERT decays neither biases nor layer norms.
        self.decayed = torch.cat([p.new_full((p.numel(),), float(p.dim() > 1)) for _, p in self.flat.named])
        self.optimiser = torch.optim.Adam([self.flat.parameter], lr=settings.rate, fused=True)
        lengths = np.asarray([len(example.ids) for example in examples])
        self.plan: list[np.ndarray] = []
        epoch = 0
        while epoch < settings.epochs or len(self.plan) < (settings.least_updates or 0):
            batches = token_batches(lengths, settings.batch_tokens, seed=settings.seed, epoch=epoch)
            of_epoch = batches_of_process(batches, accelerator.process_index, accelerator.num_processes)
            # The last of the passes that were added ends where there are enough.
            room = len(of_epoch) if epoch < settings.epochs else (settings.least_updates or 0) - len(self.plan)
            self.plan += of_epoch[:room]
            epoch += 1
        self.total_steps = len(self.plan)

    def train(self, max_steps: int | None, interrupted: Callable[[], bool]) -> int:
        settings, model = self.settings, self.teacher.model
        step = self._resume()
        last = min(self.total_steps, max_steps or self.total_steps)
        model.train()
        losses: list[Tensor] = []
        device, seed = self.accelerator.device, settings.seed
        with (
            trained_on_cpu(model, device=device, seed=seed) as start_step,
            progress("teach", self.total_steps, step) as advance,
        ):
            while step < last:
                start_step(step)
                losses.append(self._step(step))
                step += 1
                advance(1)
                if step % settings.log_every == 0 or step == self.total_steps:
                    self._log(step, losses)
                    losses = []
                stopping = interrupted()
                if step % settings.save_every == 0 or step == last or stopping:
                    self._require_finite(step)
                    self._save(step)
                if stopping:
                    raise KeyboardInterrupt
        model.eval()
        return step

    def _step(self, step: int) -> Tensor:
        settings, accelerator = self.settings, self.accelerator
        warmup = max(1, round(settings.warmup * self.total_steps))
        rate = settings.rate * min((step + 1) / warmup, (self.total_steps - step) / max(self.total_steps - warmup, 1))
        self.optimiser.param_groups[0]["lr"] = rate
        # Dropout by step, so that a resumed run drops the same and no random state has to be kept.
        torch.manual_seed((settings.seed * 1_000_003 + step) * accelerator.num_processes + accelerator.process_index)
        self.flat.gradient.zero_()
        with accelerator.autocast():
            loss = self._loss([self.examples[i] for i in self.plan[step]])
        loss.backward()
        if accelerator.num_processes > 1:
            self.flat.gradient.copy_(accelerator.reduce(self.flat.gradient, "mean"))
        norm = torch.linalg.vector_norm(self.flat.gradient)
        self.flat.gradient.mul_((settings.gradient_norm / (norm + 1e-6)).clamp(max=1.0))
        self.flat.weights.addcmul_(self.flat.weights, self.decayed, value=-rate * settings.weight_decay)
        self.optimiser.step()
        return loss.detach()

    def _loss(self, examples: list[Example]) -> Tensor:
        """Cross-entropy of start and end over the window's pieces, their mean."""
        device = self.accelerator.device
        inputs = self.teacher.padded(examples)
        output = self.teacher.model(**inputs)
        loss = torch.zeros((), device=device)
        for logits, targets in (
            (output.start_logits, [example.start for example in examples]),
            (output.end_logits, [example.end for example in examples]),
        ):
            kept = logits.float().masked_fill(inputs["attention_mask"] == 0, torch.finfo(torch.float32).min)
            loss = loss + F.cross_entropy(kept, torch.tensor(targets, device=device)) / 2
        return loss

    def _require_finite(self, step: int) -> None:
        """The same in all processes, whose weights are the same."""
        if not torch.isfinite(self.flat.weights).all():
            raise DataError(
                f"the teacher's weights are not finite after update {step}: begin again in another folder with a lower "
                f"--rate; the state of the last save is kept in {self.folder}"
            )

    def _log(self, step: int, losses: list[Tensor]) -> None:
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean"))
        if self.accelerator.is_main_process:
            with (self.folder / METRICS).open("a") as stream:
                stream.write(json.dumps({"kind": "teaching", "step": step, "loss": round(loss, 5)}) + "\n")

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        moments = self.optimiser.state[self.flat.parameter]
        tensors = {"weights": self.flat.weights, "exp_avg": moments["exp_avg"], "exp_avg_sq": moments["exp_avg_sq"]}
        # What safetensors writes must not share memory with what goes on changing.
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        TrainingState(step=step, finished=step == self.total_steps, tensors=copies).save(self.folder)

    def _resume(self) -> int:
        found = TrainingState.load(self.folder, needed=("weights", "exp_avg", "exp_avg_sq"))
        if self.accelerator.is_main_process:
            keep_lines(self.folder / METRICS, step=0 if found is None else found.step)
        if found is None:
            return 0
        if found.tensors["weights"].shape != self.flat.weights.shape:
            raise DataError(f"the state in {self.folder} is of another encoder; name another folder")
        self.flat.weights.copy_(found.tensors["weights"])
        device = self.accelerator.device
        self.optimiser.state[self.flat.parameter] = {
            "step": torch.tensor(float(found.step), device=device),
            "exp_avg": found.tensors["exp_avg"].to(device),
            "exp_avg_sq": found.tensors["exp_avg_sq"].to(device),
        }
        return found.step


def _set_dropout(model: torch.nn.Module, share: float) -> None:
    """Transformers' layers and attention ask their `Dropout` modules for the share while they train."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def _save_model(teacher: Teacher, folder: Path) -> None:
    """Write the model in transformers' form; config.json comes last, so that a cut folder is not taken for a model."""
    # Clones: the weights are views of one tensor, which save_pretrained would take for shared weights.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in teacher.model.state_dict().items()}
    with tempfile.TemporaryDirectory(prefix=".model.", dir=folder) as name:
        temporary = Path(name)
        teacher.model.save_pretrained(temporary, state_dict=weights)
        teacher.tokenizer.save_pretrained(temporary)
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == CONFIG):
            file.replace(folder / file.name)
