"""A run's folder: the checkpoint that others use, and the state that resuming needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY, read_tensors
from qa_edge.student.config import StudentConfig
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_folder, atomic_write, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qa_edge.student.qanet import QANet

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
STATE = "state"
# Each holds a number a weight.
_AS_WEIGHTS = ("weights", "average", "exp_avg", "exp_avg_sq", "momentum")


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
            raise DataError(
                f"cannot copy {source / name} into {folder}: {error.strerror or error}; "
                "see that the file is there and the folder has room"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def load_student(folder: str | Path, **regularisation: Any) -> QANet:
    """A student with the weights of a run's folder.

    :param regularisation: dropout, character_dropout or survival, in place of the config's.
    :raises DataError: if a file is missing, or the weights are not those that the config asks for.
    """
    import torch

    from qa_edge.student.qanet import QANet

    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise DataError(f"{folder} holds no checkpoint ({CONFIG} is missing); give the folder that distill wrote")
    model = QANet(replace(StudentConfig.load(folder / CONFIG), **regularisation))
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
    :param tensors: flat weights, their average, the optimiser's moments, and nothing else.
    """

    step: int = 0
    best_f1: float = -1.0
    best_step: int = -1
    evaluations_without_gain: int = 0
    finished: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        """Replace the run's state, whole or not at all.

        Each array has a file of its own, so that no file is larger than the weights are.
        """
        from safetensors.torch import save

        numbers = {name: value for name, value in vars(self).items() if name != "tensors"}
        for rest in (run / STATE).glob(".step-*.tmp"):  # of a process that was killed here
            shutil.rmtree(rest, ignore_errors=True)
        with atomic_folder(run / STATE / f"step-{self.step:08d}", force=True, marker="state.json") as folder:
            for name, tensor in self.tensors.items():
                # Not save_file: on a full disk that raises an error of its own, which is no OSError.
                atomic_write(folder / f"{name}.safetensors", save({name: tensor}))
            atomic_write(folder / "state.json", json.dumps({**numbers, "arrays": list(self.tensors)}))
        for older in sorted((run / STATE).glob("step-*"))[:-1]:
            shutil.rmtree(older, ignore_errors=True)

    @staticmethod
    def saved(run: Path) -> bool:
        """Whether a run has a state to go on from."""
        return any((run / STATE).glob("step-*"))

    @classmethod
    def load(cls, run: Path, needed: Collection[str] = ("weights",)) -> TrainingState | None:
        """The newest state of a run, or None if it has none.

        :param needed: the arrays that it must hold.
        :raises DataError: if it cannot be read, lacks one of them, or another version wrote it.
        """
        import torch

        folders = sorted((run / STATE).glob("step-*"))
        if not folders:
            return None
        numbers = read_json(folders[-1] / "state.json", "training state")
        names = numbers.pop("arrays", None) if isinstance(numbers, dict) else None
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise DataError(
                f"the state in {folders[-1]} is of another version (its arrays are {names}); start another run"
            )
        arrays: dict[str, NDArray[Any]] = {}
        # States of runs that are older than a file an array hold all of them in one.
        for path in (folders[-1] / f"{name}.safetensors" for name in (["tensors"] if names is None else names)):
            arrays |= read_tensors(path) if path.exists() else {}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        for name in (*needed, *(names or ())):
            if name not in tensors:
                raise DataError(f"the state in {folders[-1]} has no array {name!r}; put it back, or start another run")
        shapes = {name: list(tensors[name].shape) for name in _AS_WEIGHTS if name in tensors}
        for name, shape in shapes.items():
            if shape != shapes["weights"]:
                raise DataError(
                    f"the state in {folders[-1]} is damaged: {name} has shape {shape}, expected that of the weights, "
                    f"{shapes['weights']}; put it back, or start another run"
                )
        try:
            found = cls(**numbers, tensors=tensors)
            if any(type(number) is not int for number in (found.step, found.best_step, found.evaluations_without_gain)):
                raise TypeError("a number of steps or evaluations is no whole number")
            if type(found.finished) is not bool or not isinstance(found.best_f1, int | float):
                raise TypeError("finished is not true or false, or best_f1 no number")
            if found.metrics and found.metrics.keys() != {"updates", "sums"}:
                raise TypeError("its metrics are not updates and sums")
            return found
        except (AttributeError, TypeError) as error:
            raise DataError(f"the state in {folders[-1]} is of another version ({error}); start another run") from error
