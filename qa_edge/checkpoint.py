"""A run's folder: the checkpoint that others use, and the state that resuming needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY, read_tensors
from qa_edge.student.config import StudentConfig
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_folder, atomic_write, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from qa_edge.student.qanet import QANet

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
STATE = "state"


def save_checkpoint(folder: Path, config: StudentConfig, weights: dict[str, Tensor]) -> None:
    """Write the config and the named weights, float32, of a student."""
    from safetensors.torch import save

    config.save(folder / CONFIG)
    atomic_write(folder / WEIGHTS, save({name: tensor.contiguous() for name, tensor in weights.items()}))


def copy_inputs(source: Path, folder: Path) -> None:
    """Give a run the vocabulary, vectors and tokenizer tables that its weights were trained with."""
    for name in (VOCABULARY, VECTORS, TOKENIZER):
        temporary = folder / f".{name}.tmp"
        try:
            shutil.copyfile(source / name, temporary)
            temporary.replace(folder / name)
        except OSError as error:
            raise DataError(f"cannot copy {source / name} into {folder}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def load_student(folder: str | Path) -> QANet:
    """A student with the weights of a run's folder.

    :raises DataError: if a file is missing, or the weights are not those that the config asks for.
    """
    import torch

    from qa_edge.student.qanet import QANet

    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise DataError(f"{folder} holds no checkpoint ({CONFIG} is missing); give the folder that distill wrote")
    model = QANet(StudentConfig.load(folder / CONFIG))
    arrays = read_tensors(folder / WEIGHTS)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise DataError(
                f"{folder / WEIGHTS} does not fit its config: {name} has shape {found.get(name)}, "
                f"expected {expected.get(name)}; use a checkpoint of one run"
            )
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return model


@dataclass(kw_only=True)
class TrainingState:
    """Everything beside the data and the settings that decides the numbers to come.

    :param step: updates done.
    :param best_f1: best held-out F1 so far, percent; `best_step` is where it was.
    :param metrics: what the next line of metrics has gathered already (`MetricsLog.gathered`).
    :param tensors: flat weights, their average, the optimiser's two moments, and nothing else.
    """

    step: int = 0
    best_f1: float = -1.0
    best_step: int = -1
    evaluations_without_gain: int = 0
    finished: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        """Replace the run's state, whole or not at all."""
        from safetensors.torch import save

        numbers = {name: value for name, value in vars(self).items() if name != "tensors"}
        for rest in (run / STATE).glob(".step-*.tmp"):  # of a process that was killed here
            shutil.rmtree(rest, ignore_errors=True)
        with atomic_folder(run / STATE / f"step-{self.step:08d}", force=True, marker="state.json") as folder:
            # Not save_file: on a full disk that raises an error of its own, which is no OSError.
            atomic_write(folder / "tensors.safetensors", save(self.tensors))
            atomic_write(folder / "state.json", json.dumps(numbers))
        for older in sorted((run / STATE).glob("step-*"))[:-1]:
            shutil.rmtree(older, ignore_errors=True)

    @classmethod
    def load(cls, run: Path) -> TrainingState | None:
        """The newest state of a run, or None if it has none.

        :raises DataError: if it cannot be read, or another version wrote it.
        """
        import torch

        folders = sorted((run / STATE).glob("step-*"))
        if not folders:
            return None
        numbers: dict[str, Any] = read_json(folders[-1] / "state.json", "training state")
        arrays = read_tensors(folders[-1] / "tensors.safetensors")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        try:
            found = cls(**numbers, tensors=tensors)
            if type(found.step) is not int or type(found.best_step) is not int or type(found.finished) is not bool:
                raise TypeError("a step is no whole number, or finished is not true or false")
            return found
        except TypeError as error:
            raise DataError(f"the state in {folders[-1]} is of another version ({error}); start another run") from error
