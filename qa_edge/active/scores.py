"""Probabilities of a pool's answers on disk: in shards, resumable, tied to the pool and the model they are of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.active.disagreement import disagreements
from qa_edge.active.pool import Pool
from qa_edge.active.readers import TOP_ANSWERS, PlacedReader, answer_probabilities, check_pairs, span_probabilities
from qa_edge.progress import progress
from qa_edge.shards import MANIFEST, read_manifest, require_own
from qa_edge_runtime.errors import DataError, MissingExtraError
from qa_edge_runtime.files import atomic_write

FORMAT_VERSION = 1
SHARD_QUESTIONS = 512


def score_pool(
    pool: Pool,
    reader: PlacedReader,
    folder: str | Path,
    *,
    teacher: PlacedReader | None = None,
    process: int = 0,
    processes: int = 1,
    on_shard: Callable[[int, int], None] | None = None,
) -> bool:
    """Compute and store the best answers' probabilities of every question of a pool; what is done already is kept.

    The folder holds `manifest.json` and shards of 512 questions (`scores-00000.safetensors`: `probabilities` float64
    (questions, 5), `seconds` that they took, and with a teacher `disagreement` float64 (questions,)).

    :param teacher: a second model, with which the first is compared.
    :param process: this process's number among `processes`, on any machines that see the folder, which share the
        shards between them.
    :param on_shard: called with (shards done, shards) after each shard.
    :returns: whether all shards are there, those of the other processes too.
    :raises DataError: if the folder holds scores of another pool or model, or other things.
    """
    folder = Path(folder)
    _require_safetensors()
    size = _settle(folder, pool, reader, teacher)
    shards = -(-len(pool) // size)
    pairs = list(zip(pool.questions, pool.contexts, strict=True))
    mine = [shard for shard in _missing(folder, shards) if shard % processes == process]
    for one in (reader, teacher):
        if one is not None:
            check_pairs(one, [pair for shard in mine for pair in pairs[shard * size : (shard + 1) * size]])
    done = shards - len(_missing(folder, shards))
    with progress("score", len(pool), min(done * size, len(pool))) as advance:
        for shard in mine:
            rows = pairs[shard * size : (shard + 1) * size]
            began = time.perf_counter()
            if teacher is None:
                tensors = {"probabilities": answer_probabilities(reader, rows)}
            else:
                tensors = _read_both(reader, teacher, rows)
            _write(_path(folder, shard), tensors, time.perf_counter() - began)
            advance(len(rows))
            if on_shard:
                on_shard(shards - len(_missing(folder, shards)), shards)
    return not _missing(folder, shards)


class Scores:
    """Read access to a folder that `score_pool` wrote.

    :ivar probabilities: best first, float64, shape (questions, 5), in the pool's order.
    :ivar disagreement: with the teacher, 0 to log 2, float64, shape (questions,); None if there was none.
    :ivar questions_per_hour: of one process, all steps from text to probability, model loading left out.
    """

    def __init__(self, folder: str | Path, pool: Pool) -> None:
        """Read all shards.

        :raises DataError: if they are of another pool, unfinished or damaged.
        """
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        _require_pool(self.folder, self.manifest, pool)
        size = self.manifest["shard_questions"]
        shards = -(-len(pool) // size)
        missing = len(_missing(self.folder, shards))
        if missing:
            raise DataError(
                f"scores {folder} are unfinished ({missing} of {shards} shards missing): "
                "run the same command again, it goes on where it stopped"
            )
        compared = self.manifest.get("teacher_sha256") is not None
        read = [
            _read(_path(self.folder, shard), min(size, len(pool) - shard * size), compared) for shard in range(shards)
        ]
        self.probabilities = np.concatenate([one["probabilities"] for one in read])
        self.disagreement = np.concatenate([one["disagreement"] for one in read]) if compared else None
        seconds = sum(float(one["seconds"][0]) for one in read)
        self.questions_per_hour = 3600 * len(pool) / seconds if seconds > 0 else 0.0


def _require_safetensors() -> None:
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('scores of a pool are kept in safetensors: pip install "qa-edge[active]"') from error


def _read_both(
    reader: PlacedReader, teacher: PlacedReader, pairs: list[tuple[str, str]]
) -> dict[str, NDArray[np.float64]]:
    """How sure the first model is, and how much the second differs; each reads the questions once."""
    found = reader.placed(pairs)
    logits = [(one.start, one.end) for one in found]
    return {
        "probabilities": span_probabilities(logits, longest=reader.max_answer_tokens),
        "disagreement": disagreements(found, teacher.placed(pairs), [context for _, context in pairs]),
    }


def _settle(folder: Path, pool: Pool, reader: PlacedReader, teacher: PlacedReader | None) -> int:
    """Write the manifest of a new folder, or check that of an old one; questions a shard are returned."""
    wanted = {
        "format_version": FORMAT_VERSION,
        "pool_sha256": pool.sha256,
        "questions": len(pool),
        "kind": reader.kind,
        "model_sha256": reader.sha256,
        "teacher_sha256": None if teacher is None else teacher.sha256,
        "answers": TOP_ANSWERS,
        "max_answer_tokens": reader.max_answer_tokens,
        "shard_questions": SHARD_QUESTIONS,
    }
    require_own(folder, "scores")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}; name another path") from error
    if not (folder / MANIFEST).exists():
        atomic_write(folder / MANIFEST, json.dumps(wanted, indent=1))
        return SHARD_QUESTIONS
    found = _read_manifest(folder)
    _require_pool(folder, found, pool)
    # Where all has been compared with a teacher, what the model alone says is there too.
    shards = -(-len(pool) // int(found["shard_questions"]))
    whole = teacher is None and not _missing(folder, shards)
    for key in ("kind", "model_sha256", "teacher_sha256", "answers", "max_answer_tokens"):
        if found.get(key) != wanted[key] and not (whole and key == "teacher_sha256"):
            raise DataError(
                f"scores {folder} were made by another model ({key.replace('_', ' ')} {_short(found.get(key))}, this "
                f"one has {_short(wanted[key])}): name another folder with --scores, or remove this one"
            )
    return int(found["shard_questions"])


def _require_pool(folder: Path, manifest: dict[str, Any], pool: Pool) -> None:
    if manifest["pool_sha256"] != pool.sha256 or manifest["questions"] != len(pool):
        raise DataError(
            f"scores {folder} were made from another pool ({manifest['questions']:,} questions, SHA-256 "
            f"{_short(manifest['pool_sha256'])}), {pool.path} has {len(pool):,} and {_short(pool.sha256)}: it has "
            "changed since; name another folder with --scores, or remove this one"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    return read_manifest(
        folder,
        "scores",
        described="scores manifest",
        version=FORMAT_VERSION,
        source="pool_sha256",
        maker="select",
        again="score again",
    )


def _path(folder: Path, shard: int) -> Path:
    return folder / f"scores-{shard:05d}.safetensors"


def _missing(folder: Path, shards: int) -> list[int]:
    """Numbers of the shards that are not there yet."""
    return [shard for shard in range(shards) if not _path(folder, shard).exists()]


def _short(value: Any) -> str:
    return str(value)[:12]


def _write(path: Path, tensors: dict[str, NDArray[np.float64]], seconds: float) -> None:
    from safetensors.numpy import save

    atomic_write(path, save({**tensors, "seconds": np.array([seconds])}))


def _read(path: Path, rows: int, compared: bool) -> dict[str, NDArray[np.float64]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({error}); remove it and run again") from error
    expected = {
        "probabilities": (rows, TOP_ANSWERS),
        "seconds": (1,),
        **({"disagreement": (rows,)} if compared else {}),
    }
    highest = {"probabilities": 1.0, "seconds": np.inf, "disagreement": np.log(2)}
    for name, shape in expected.items():
        values = tensors.get(name, np.empty(0))
        if values.shape != shape or not ((values >= 0) & (values <= highest[name] + 1e-9)).all():
            raise DataError(f"{path} does not hold what select wrote there: remove it and run again")
    return {name: tensors[name].astype(np.float64) for name in expected}
