"""States of a few of the teacher's layers on disk, beside its logits: reduced to 64 numbers a token, in 8 bits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from qa_edge.align import align
from qa_edge.features import TOKENIZER, Features, offsets_of, read_tensors
from qa_edge.hub import fast_precision
from qa_edge.labels import (
    FORMAT_VERSION,
    SHARD_QUESTIONS,
    Labels,
    LabelSettings,
    missing_shards,
    settle_manifest,
    shard_name,
    write_tensors,
)
from qa_edge.progress import progress
from qa_edge.shards import MANIFEST, read_manifest
from qa_edge.split import drawn_articles
from qa_edge.squad import read_squad
from qa_edge.teacher import Pieces, Teacher
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import sha256_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qa_edge.batches import TrainingData

LAYERS = 3
"""As many as the student has passes."""
WIDTH = 64
FITTED_QUESTIONS = 320
READ_QUESTIONS = 32
FOLDER = "states"
REDUCTION = "reduction.safetensors"
NO_STATES = "layers_weight needs a teacher's layers: name a --teacher, or --labels made by qa-edge label --states"
# A state this many standard deviations out is cut: a single one would cost all others of its question their bits.
MOST = 8.0


def label_states(
    squad_path: str | Path,
    teacher_name: str,
    labels: str | Path,
    features_folder: str | Path,
    *,
    share: float = 1.0,
    settings: LabelSettings | None = None,
    device: str = "cpu",
    on_shard: Callable[[int, int], None] | None = None,
    process: int = 0,
    processes: int = 1,
) -> Path:
    """Compute and store reduced states for the questions that features train on; what is done already is kept.

    The folder `states` in that of the labels holds `manifest.json`, the reduction with the numbers of the questions
    and the offsets of their tokens (`reduction.safetensors`), and shards of 512 questions: states int8, shape
    (tokens, 3, 64), a scale a question and layer. A token's state is the mean of its pieces'; the reduction is a PCA
    of each layer, fitted on questions from all over the data, with unit variance in each of its dimensions.

    :param share: of the articles, drawn as `share_of_features` draws them.
    :param on_shard: called with (shards done, shards) after each shard.
    :raises DataError: if the features, or states that lie there, are of other data.
    """
    settings, features, folder = settings or LabelSettings(), Features.open(features_folder), Path(labels) / FOLDER
    squad = read_squad(squad_path)
    if features.manifest["squad_sha256"] != squad.sha256:
        raise DataError(f"features {features.folder} were made from other data than {squad_path}")
    questions = [question.text for _, _, question in squad.items()]
    teacher = Teacher.load(teacher_name, device=device, window=settings.window, stride=settings.stride)
    depth = teacher.model.config.num_hidden_layers
    layers = [-(-depth * place // LAYERS) for place in range(1, LAYERS + 1)]
    rows = _rows(features, share)
    precision = fast_precision(teacher.device.type) if settings.precision == "auto" else settings.precision
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format_version": FORMAT_VERSION,
        "squad_sha256": squad.sha256,
        "tokens_sha256": _tokens_sha256(features),
        "share": share,
        "questions": len(rows),
        "questions_sha256": _numbers_sha256(features.question_number[rows]),
        "teacher_sha256": teacher.sha256(),
        "layers": layers,
        "width": min(WIDTH, teacher.model.config.hidden_size),
        "shard_questions": SHARD_QUESTIONS,
        "window": settings.window,
        "stride": settings.stride,
        "precision": precision,
    }
    size = settle_manifest(folder, manifest)["shard_questions"]

    def read(part: NDArray[np.int64], take: Callable[[Any], Any]) -> list[NDArray[np.float32]]:
        found = teacher.read(
            [questions[features.question_number[row]] for row in part],
            [features.context_text(features.question_context[row]) for row in part],
            take,
            batch_tokens=settings.batch_tokens,
            precision=precision,
            output_hidden_states=True,
        )
        return [_token_means(features, row, *one) for row, one in zip(part, found, strict=True)]

    if not (folder / REDUCTION).exists():
        lengths = features.context_lengths()[rows]
        numbers = {"questions": features.question_number[rows].astype(np.int64), "offsets": offsets_of(lengths)}
        _write_first(folder / REDUCTION, {**numbers, **_fitted(read, rows, layers)})
    reduce = _reducing(_read_named(folder / REDUCTION, ("mean", "map")), layers, teacher)
    for path, here in missing_shards("states", folder, len(rows), size, process, processes, on_shard):
        kept = [quantise(one.reshape(len(one), LAYERS, -1)) for one in read(rows[here], reduce)]
        arrays = (np.concatenate([states for states, _ in kept]), np.stack([scales for _, scales in kept]))
        write_tensors(path, dict(zip(("states", "scales"), arrays, strict=True)))
    return folder


class LayerStates:
    """Read access to a folder that `label_states` wrote; questions by their place in the SQuAD file."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        said = {"described": "states manifest", "source": "tokens_sha256", "maker": "label", "again": "label again"}
        self.manifest = read_manifest(self.folder, "states", version=FORMAT_VERSION, **said)
        wanted = ("width", "teacher_sha256", "questions_sha256")
        if missing_values := [name for name in wanted if name not in self.manifest]:
            raise DataError(
                f"{self.folder / MANIFEST} is not one that label wrote ({missing_values[0]} is missing): remove these "
                "states, and run qa-edge label --states again"
            )
        self.width: int = self.manifest["width"]
        self._size: int = self.manifest["shard_questions"]
        shards = [shard_name(shard) for shard in range(-(-self.manifest["questions"] // self._size))]
        missing = [name for name in (REDUCTION, *shards) if not (self.folder / name).exists()]
        if missing:
            raise DataError(f"states {folder} are unfinished ({missing[0]} is missing): run qa-edge label again")
        found = _read_named(self.folder / REDUCTION, ("offsets", "questions", "mean", "map"))
        self._offsets, self._numbers = found["offsets"], found["questions"]
        self._place = {number: place for place, number in enumerate(self._numbers.tolist())}
        self._shards: dict[int, dict[str, NDArray[Any]]] = {}

    def require(self, features: Features) -> None:
        """Refuse features with other tokens.

        :raises DataError: if they were made from other data, or by another tokenizer.
        """
        found, expected = self.manifest["tokens_sha256"], _tokens_sha256(features)
        if found != expected:
            raise DataError(
                f"states {self.folder} are of the tokens of other features (SHA-256 {found[:12]}, those of "
                f"{features.folder} {expected[:12]}): remove them, and run qa-edge label --states with these features"
            )

    def require_whole(self, labels: Labels, features: Features) -> None:
        """Refuse states of another teacher than that of the labels, or of a part of the questions.

        :raises DataError: saying which.
        """
        found, expected = self.manifest["teacher_sha256"], labels.manifest["teacher_sha256"]
        if found != expected:
            raise DataError(
                f"states {self.folder} are of another teacher (SHA-256 {found[:12]}) than the labels beside them "
                f"({expected[:12]}): remove them, and they are made again"
            )
        if self.manifest["questions_sha256"] != _numbers_sha256(features.question_number):
            raise DataError(
                f"states {self.folder} are of other questions ({self.manifest['questions']:,}) than features "
                f"{features.folder} train on ({len(features):,}): remove them, and they are made again"
            )

    def share_of(self, data: TrainingData) -> float:
        """Share of the questions that are trained on which have states, 0 to 1."""
        return float(np.isin(data.features.question_number[data.rows], self._numbers).mean())

    def of(self, question: int) -> NDArray[np.float32] | None:
        """States of a question, shape (context_tokens, LAYERS, width), zeros at tokens without a piece, or None."""
        if question not in self._place:
            return None
        shard, row = divmod(self._place[question], self._size)
        if shard not in self._shards:
            self._shards[shard] = _read_named(self.folder / shard_name(shard), ("states", "scales"))
        first, begin, end = self._offsets[[shard * self._size, shard * self._size + row, shard * self._size + row + 1]]
        states, scales = self._shards[shard]["states"][begin - first : end - first], self._shards[shard]["scales"][row]
        return states * scales[:, None]

    def batch(self, questions: Sequence[int], tokens: int, limit: int) -> NDArray[np.float32]:
        """States of some questions, float32, shape (questions, tokens, LAYERS * width), zeros where there are none."""
        found = np.zeros((len(questions), tokens, LAYERS * self.width), np.float32)
        for place, question in enumerate(questions):
            states = self.of(question)
            if states is not None:
                count = min(len(states), limit)
                found[place, :count] = states[:count].reshape(count, -1)
        return found


def states_folder(labels: str | Path) -> Path:
    """Where labels hold their states.

    :raises DataError: if they have none.
    """
    folder = Path(labels) / FOLDER
    if not (folder / MANIFEST).exists():
        raise DataError(f"labels {labels} hold no states: qa-edge label --states FEATURES adds them")
    return folder


def quantise(states: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """States of a question in 8 bits, shape (tokens, layers, width), and a scale a layer."""
    states = states.clip(-MOST, MOST)
    scales = np.abs(states).max(axis=(0, 2), initial=1e-6).astype(np.float32) / 127
    return np.round(states / scales[:, None]).astype(np.int8), scales


def _write_first(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    """Write a file unless another process has written it meanwhile: the first one's holds for all."""
    own = path.with_name(f".{uuid4().hex}-{path.name}")
    write_tensors(own, tensors)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        write_tensors(path, tensors)
    finally:
        own.unlink()


def _read_named(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of a file, all of these names at least.

    :raises DataError: if it is another file, or a damaged one.
    """
    found = read_tensors(path)
    if not found.keys() >= set(names):
        raise DataError(f"{path} does not hold what label --states wrote there: remove it, and run that again")
    return found


def _numbers_sha256(numbers: NDArray[np.integer[Any]]) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def _tokens_sha256(features: Features) -> str:
    """Of what decides a context's tokens, in a share of features too."""
    both = f"{features.manifest['squad_sha256']} {sha256_file(features.folder / TOKENIZER)}"
    return hashlib.sha256(both.encode()).hexdigest()


def _rows(features: Features, share: float) -> NDArray[np.int64]:
    articles = np.unique(features.context_article)
    chosen = articles[drawn_articles(len(articles), share)]
    return np.flatnonzero(np.isin(features.context_article[features.question_context], chosen))


def _token_means(features: Features, row: int, pieces: Pieces, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the pieces of each context token, shape (context_tokens, numbers); zeros where it has none."""
    context = features.question_context[row]
    here = slice(*features.context_offsets[context : context + 2])
    tokens = (features.context_starts[here], features.context_ends[here])
    found = align("offset", features.context_text(context), *tokens, pieces.starts, pieces.ends)
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0, dtype=np.float64)])
    first, after = found.start_piece[found.mask], found.end_piece[found.mask] + 1
    means = np.zeros((len(found.mask), values.shape[1]), np.float32)
    means[found.mask] = (sums[after] - sums[first]) / (after - first)[:, None]
    return means


def _fitted(
    read: Callable[..., list[NDArray[np.float32]]], rows: NDArray[np.int64], layers: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Mean (layers, hidden) and map (layers, hidden, width) of each layer: PCA with unit variances."""
    import torch

    def take(output: Any) -> torch.Tensor:
        return torch.cat([output.hidden_states[layer].float() for layer in layers], -1)

    rows = rows[np.unique(np.linspace(0, len(rows) - 1, FITTED_QUESTIONS).round().astype(np.int64))]
    count, sums, products = 0, np.zeros(1), np.zeros(1)
    with progress("reduction", len(rows)) as advance:
        for first in range(0, len(rows), READ_QUESTIONS):
            part = rows[first : first + READ_QUESTIONS]
            tokens = np.concatenate([one[one.any(axis=1)] for one in read(part, take)]).astype(np.float64)
            tokens = tokens.reshape(len(tokens), len(layers), -1).swapaxes(0, 1)
            count, sums = count + tokens.shape[1], sums + tokens.sum(axis=1)
            products = products + tokens.swapaxes(1, 2) @ tokens
            advance(len(part))
    mean = sums / max(count, 1)
    variances, axes = np.linalg.eigh(products / max(count, 1) - mean[:, :, None] * mean[:, None, :])
    best, kept = variances[:, None, : -WIDTH - 1 : -1], axes[:, :, : -WIDTH - 1 : -1]
    return {
        "mean": mean.astype(np.float32),
        "map": (kept / np.sqrt(best.clip(1e-8 * best[:, :, :1]))).astype(np.float32),
    }


def _reducing(reduction: dict[str, NDArray[Any]], layers: Sequence[int], teacher: Teacher) -> Callable[[Any], Any]:
    """What takes the reduced states, those of all layers side by side, from a teacher's output."""
    import torch

    mean, map_ = (torch.from_numpy(reduction[name].copy()).to(teacher.device) for name in ("mean", "map"))

    def take(output: Any) -> torch.Tensor:
        states = [(output.hidden_states[layer].float() - mean[i]) @ map_[i] for i, layer in enumerate(layers)]
        return torch.cat(states, -1)

    return take
