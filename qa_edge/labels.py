"""The teacher's logits on disk: computed once a teacher, in shards, resumable, tied to what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge.features import offsets_of, read_tensors
from qa_edge.hub import fast_precision
from qa_edge.progress import progress
from qa_edge.settings import require_types
from qa_edge.shards import read_manifest, require_own
from qa_edge.squad import Squad, read_squad
from qa_edge.teacher import PRECISIONS, Pieces, Teacher
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_write

FORMAT_VERSION = 1
CONTEXTS = "contexts.safetensors"
SHARD_QUESTIONS = 512
ENCODED_CONTEXTS = 256
_NONE = np.empty(0, np.float16)
_ADDED_LATER = ("teacher_config_sha256",)
"""Keys that the manifests of older labels lack."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How logits are computed: kept in the manifest, so that a resumed run cannot mix two ways.

    :param window: pieces in a window of the teacher, question and special pieces included.
    :param stride: pieces by which neighbouring windows overlap.
    :param precision: of the matrix products; `auto` is what the device multiplies fastest.
    :param batch_tokens: padded pieces in a forward pass.
    """

    window: int = 384
    stride: int = 128
    precision: str = "auto"
    batch_tokens: int = 6144

    def __post_init__(self) -> None:
        require_types(self)
        if self.precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision is {self.precision!r}, expected auto, {', '.join(PRECISIONS)}")
        if self.batch_tokens < 1:
            raise InputError(f"batch_tokens is {self.batch_tokens}, expected at least 1")


def label(
    squad_path: str | Path,
    teacher_name: str,
    output: str | Path,
    *,
    settings: LabelSettings | None = None,
    only: Collection[int] | None = None,
    device: str = "cpu",
    on_shard: Callable[[int, int], None] | None = None,
    process: int = 0,
    processes: int = 1,
) -> Path:
    """Compute and store a teacher's logits for every question of a SQuAD file; what is done already is kept.

    The folder holds `manifest.json`, the pieces of each context (`contexts.safetensors`) and shards of
    512 questions (`questions-00000.safetensors`: start and end logits float16, all pieces in a row, and offsets).

    :param only: places in the file of the questions that are asked; the others have no logits, and who asks for them
        is told so. None asks all.
    :param on_shard: called with (shards done, shards) after each shard.
    :param process: this process's number among `processes`, which share the shards between them.
    :raises DataError: if the folder was made from other data or by another teacher or holds something else, or there is
        no question, or one is too long for the teacher's window.
    """
    settings = settings or LabelSettings()
    folder = Path(output)
    require_own(folder, "labels")
    squad = read_squad(squad_path)
    items = [(paragraph.context, question.text) for _, paragraph, question in squad.items()]
    if not items:
        raise DataError(f"{squad_path} has no question that a teacher could answer; add questions")
    teacher = Teacher.load(teacher_name, device=device, window=settings.window, stride=settings.stride)
    teacher.check_questions(question for _, question in items)
    precision = settings.precision
    if precision == "auto":
        precision = fast_precision(teacher.device.type)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}; name another path") from error
    manifest = {
        "format_version": FORMAT_VERSION,
        "squad_sha256": squad.sha256,
        "questions": len(items),
        "teacher": teacher.name,
        "teacher_sha256": teacher.sha256(),
        "teacher_config_sha256": teacher.config_sha256(),
        "tokenizer_sha256": teacher.tokenizer_sha256(),
        "shard_questions": SHARD_QUESTIONS,
        "window": settings.window,
        "stride": settings.stride,
        "precision": precision,
    }
    if only is not None:
        manifest["only_sha256"] = hashlib.sha256(json.dumps(sorted(only)).encode()).hexdigest()
    size = settle_manifest(folder, manifest)["shard_questions"]
    if process == 0 and not (folder / CONTEXTS).exists():
        _write_context_pieces(folder, squad, teacher)
    for path, here in missing_shards("label", folder, len(items), size, process, processes, on_shard):
        asked = [place for place in range(here.start, here.stop) if only is None or place in only]
        pairs = [items[place] for place in asked]
        found = (
            teacher.logits(
                [question for _, question in pairs],
                [context for context, _ in pairs],
                batch_tokens=settings.batch_tokens,
                precision=precision,
            )
            if pairs
            else []
        )
        logits = dict.fromkeys(range(here.start, here.stop), (_NONE, _NONE))
        logits |= {place: (one.start, one.end) for place, one in zip(asked, found, strict=True)}
        write_shard(path, list(logits.values()), of=f"teacher {teacher_name}")
    return folder


def missing_shards(
    description: str,
    folder: Path,
    count: int,
    size: int,
    process: int,
    processes: int,
    on_shard: Callable[[int, int], None] | None,
) -> Iterator[tuple[Path, slice]]:
    """Shards of a process that are not there yet: where each is to be written, and the range of its questions.

    :param count: questions in all, `size` a shard.
    :param on_shard: called with (shards done, shards) when the next one is asked for.
    """
    shards = -(-count // size)
    done = [(folder / shard_name(shard)).exists() for shard in range(shards)]
    with progress(description, count, min(sum(done) * size, count)) as advance:
        for shard in range(process, shards, processes):
            if done[shard]:
                continue
            here = slice(shard * size, min((shard + 1) * size, count))
            yield folder / shard_name(shard), here
            done[shard] = True
            advance(here.stop - here.start)
            if on_shard:
                on_shard(sum(done), shards)


class Labels:
    """Read access to a folder that `label` wrote. Questions and contexts are numbered in the SQuAD file's order."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.questions: int = self.manifest["questions"]
        missing = [name for name in self._shards() if not (self.folder / name).exists()]
        if missing:
            raise DataError(
                f"labels {folder} are unfinished ({len(missing)} of {len(self._shards())} shards missing): "
                "run qa-edge label again, it goes on where it stopped"
            )
        contexts = _read_ragged(self.folder / CONTEXTS, ("starts", "ends"))
        self._piece_offsets, self._starts, self._ends = contexts["offsets"], contexts["starts"], contexts["ends"]
        self._tensors: dict[int, dict[str, np.ndarray]] = {}

    def _shards(self) -> list[str]:
        return [shard_name(i) for i in range(-(-self.questions // self.manifest["shard_questions"]))]

    def require(self, squad_sha256: str) -> None:
        """Refuse labels of another data set.

        :raises DataError: if they were made from a file with another hash.
        """
        if self.manifest["squad_sha256"] != squad_sha256:
            raise DataError(
                f"labels {self.folder} were made from other data (SHA-256 {self.manifest['squad_sha256'][:12]}, "
                f"expected {squad_sha256[:12]}): label this data set into another folder"
            )

    def pieces(self, context: int) -> Pieces:
        """The teacher's pieces of a context."""
        here = slice(int(self._piece_offsets[context]), int(self._piece_offsets[context + 1]))
        return Pieces(starts=self._starts[here], ends=self._ends[here])

    def logits(self, question: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and end logits of a question, float16, shape (pieces of its context,).

        :raises DataError: if it was not asked, or the shard is damaged.
        """
        shard, row = divmod(question, self.manifest["shard_questions"])
        if shard not in self._tensors:
            size = self.manifest["shard_questions"]
            rows = min(size, self.questions - shard * size)
            path = self.folder / shard_name(shard)
            self._tensors[shard] = _read_ragged(path, ("start_logits", "end_logits"), rows)
        tensors = self._tensors[shard]
        here = slice(int(tensors["offsets"][row]), int(tensors["offsets"][row + 1]))
        if here.start == here.stop and "only_sha256" in self.manifest:
            raise DataError(f"labels {self.folder} are of chosen questions alone, not of number {question}: label all")
        return tensors["start_logits"][here], tensors["end_logits"][here]


def _read_manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(
        folder,
        "labels",
        described="label manifest",
        version=FORMAT_VERSION,
        source="squad_sha256",
        maker="label",
        again="label again",
    )


def _read_ragged(path: Path, names: tuple[str, ...], rows: int | None = None) -> dict[str, np.ndarray]:
    """Read flat arrays with their offsets, as `label` wrote them.

    :param rows: how many there must be, if that is known.
    :raises DataError: if it is another file, or a damaged one.
    """
    tensors = read_tensors(path)
    offsets = tensors.get("offsets", np.empty(0))
    flat = [tensors.get(name, np.empty((0, 0))) for name in names]
    whole = offsets.ndim == 1 and len(offsets) == (len(offsets) if rows is None else rows + 1) > 0
    whole = whole and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
    if not whole or any(array.shape != (offsets[-1],) or not np.isfinite(array).all() for array in flat):
        raise DataError(f"{path} does not hold what label wrote there: remove it, and run qa-edge label again")
    return tensors


def settle_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a new folder, or check that of an old one; the folder's own is returned."""
    path = folder / "manifest.json"
    if not path.exists():
        atomic_write(path, json.dumps(manifest, indent=1))
        return manifest
    found = _read_manifest(folder)
    # Labels of chosen questions alone say of which; those of all say nothing.
    for key, expected in {"only_sha256": None, **manifest}.items():
        # A teacher may have moved, and work goes on in shards of the size that it was begun with.
        checked = key not in ("teacher", "shard_questions") and not (key in _ADDED_LATER and key not in found)
        if checked and found.get(key) != expected:
            raise DataError(
                f"labels {folder} were made with {key} {found.get(key)}, this run has {expected}: "
                "name another folder, or remove this one"
            )
    return found


def shard_name(shard: int) -> str:
    """File of a shard, by its number."""
    return f"questions-{shard:05d}.safetensors"


def _write_context_pieces(folder: Path, squad: Squad, teacher: Teacher) -> None:
    contexts = [paragraph.context for article in squad.articles for paragraph in article.paragraphs]
    pieces: list[Pieces] = []
    with progress("word pieces", len(contexts)) as advance:
        for first in range(0, len(contexts), ENCODED_CONTEXTS):
            part = contexts[first : first + ENCODED_CONTEXTS]
            pieces += teacher.encode([""] * len(part), part)[1]
            advance(len(part))
    write_tensors(
        folder / CONTEXTS,
        {
            "offsets": offsets_of([len(p.starts) for p in pieces]),
            "starts": np.concatenate([p.starts for p in pieces]),
            "ends": np.concatenate([p.ends for p in pieces]),
        },
    )


def write_shard(path: Path, logits: Sequence[tuple[np.ndarray, np.ndarray]], *, of: str) -> None:
    """Write the start and end logits of a shard's questions, each of shape (pieces of its context,).

    :param of: whose logits they are, for the message.
    :raises DataError: if one is no finite number in float16, so that nobody could learn from it.
    """
    with np.errstate(over="ignore"):
        start, end = (np.concatenate([one[side] for one in logits]).astype(np.float16) for side in (0, 1))
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise DataError(
            f"{of} gives logits that are no numbers, or beyond 65,504: its training went astray, or its precision is "
            "too low; teach it again with a lower rate, or label with --precision fp32"
        )
    write_tensors(
        path, {"offsets": offsets_of([len(one) for one, _ in logits]), "start_logits": start, "end_logits": end}
    )


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays as safetensors, whole or not at all."""
    from safetensors.numpy import save

    atomic_write(path, save(tensors))
