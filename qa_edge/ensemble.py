"""An ensemble of teachers, the paper's future work: the mean of their logits, and one of them's layers, as labels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import MANIFEST, read_tensors
from qa_edge.labels import CONTEXTS, FORMAT_VERSION, Labels, shard_name, write_shard
from qa_edge.progress import progress
from qa_edge.states import FOLDER, LayerStates
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_folder, atomic_write

_SAME = {
    "squad_sha256": "data",
    "questions": "number of questions",
    "tokenizer_sha256": "tokenizer",
    "window": "window",
    "stride": "stride",
}
"""What teachers must have in common, and what messages call it."""


def average_labels(folders: Sequence[str | Path], output: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Write the mean of several teachers' logits as labels of their own, and return its manifest.

    Logits are averaged as they are, not as probabilities. At any temperature T the softmax of mean(z) / T is the
    normalised geometric mean of the teachers' own tempered distributions (Hinton et al. 2015 name it beside the
    arithmetic one), so that one folder serves every T. The squared error against mean(z) differs from the mean of the
    errors against each teacher by what no student changes, so that the MSE term learns from all of them alike. A mean
    of probabilities belongs to the T at which it was taken: its logarithm, as logits, is at another T the ensemble of
    nobody, and has lost the level that the MSE term compares with. The price: a teacher with larger logits weighs more.

    Layers have no mean: a direction of one teacher's is another's only if both were one before. The states, where there
    are any, are those of the first teacher that has them, named in the manifest as `states_of`.

    :param folders: two or more, as `label` wrote them: of the same questions, tokenizer and windows.
    :param force: replace labels that are there.
    :raises InputError: if there are fewer than two, or `output` is one of them.
    :raises DataError: if they cannot be averaged, states are unfinished, or `output` cannot be written.
    """
    labels = [Labels(folder) for folder in folders]
    require_alike(labels)
    if Path(output).resolve() in [one.folder.resolve() for one in labels]:
        raise InputError(f"labels {output} are one of those to average: name another folder for the mean")
    first = labels[0].manifest
    layered = next((one for one in labels if (one.folder / FOLDER / MANIFEST).exists()), None)
    if layered is not None:
        LayerStates(layered.folder / FOLDER)  # refuses unfinished ones
    sources = [
        {name: one.manifest.get(name) for name in ("teacher", "teacher_sha256", "teacher_config_sha256", "precision")}
        for one in labels
    ]
    manifest = {
        "format_version": FORMAT_VERSION,
        **{name: first[name] for name in _SAME},
        "teacher": f"mean of {', '.join(Path(str(source['teacher'])).name for source in sources)}",
        "teacher_sha256": hashlib.sha256(json.dumps(sorted(map(_identity, labels))).encode()).hexdigest(),
        "shard_questions": first["shard_questions"],
        "precision": "+".join(sorted({str(source["precision"]) for source in sources})),
        "sources": sources,
    }
    if layered is not None:
        manifest["states_of"] = layered.manifest["teacher"]
    with atomic_folder(output, force=force) as folder:
        shutil.copyfile(labels[0].folder / CONTEXTS, folder / CONTEXTS)
        size, count = first["shard_questions"], first["questions"]
        with progress("average", count) as advance:
            for shard, begin in enumerate(range(0, count, size)):
                questions = range(begin, min(begin + size, count))
                means = [_mean(labels, question) for question in questions]
                write_shard(folder / shard_name(shard), means, of=manifest["teacher"])
                advance(len(questions))
        if layered is not None:
            # Two gigabytes for all of SQuAD: the same files under a second name where the disk can do that.
            shutil.copytree(layered.folder / FOLDER, folder / FOLDER, copy_function=_link_or_copy)
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1))
    return manifest


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def require_alike(labels: Sequence[Labels]) -> None:
    """Refuse labels that have no mean.

    :raises InputError: if there are fewer than two.
    :raises DataError: if they are of other questions, pieces or windows, or of one teacher.
    """
    if len(labels) < 2:
        raise InputError(f"an average needs the labels of two teachers or more, {len(labels)} given")
    first = labels[0]
    seen: dict[str, Labels] = {}
    pieces = read_tensors(first.folder / CONTEXTS)
    for one in labels:
        pair = f"labels {first.folder} and {one.folder} cannot be averaged"
        if "sources" in one.manifest:
            raise DataError(f"labels {one.folder} are an average already: name those that it was made of instead")
        for name, noun in _SAME.items():
            if one.manifest.get(name) != first.manifest.get(name):
                raise DataError(f"{pair}, their {noun} differs: label again with the same data, tokenizer and windows")
        own = read_tensors(one.folder / CONTEXTS)
        if any(not np.array_equal(own[name], array) for name, array in pieces.items()):
            raise DataError(f"{pair}, their contexts have other pieces: label again with the same tokenizer")
        before = seen.setdefault(_identity(one), one)
        if before is not one:
            raise DataError(f"labels {before.folder} and {one.folder} are of one teacher: an average needs others")


def _identity(labels: Labels) -> str:
    """What tells teachers apart; labels of before the config's hash have that of the weights alone."""
    return f"{labels.manifest.get('teacher_sha256')} {labels.manifest.get('teacher_config_sha256')}"


def _mean(labels: Sequence[Labels], question: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean start and end logits of a question, each of shape (pieces,)."""
    found = [one.logits(question) for one in labels]
    if len({len(start) for start, _ in found}) > 1:
        folders = ", ".join(str(one.folder) for one in labels)
        raise DataError(f"labels {folders} have unequal numbers of pieces for question {question}: label again")
    whole = np.asarray(found, np.float32).mean(axis=0)
    return whole[0], whole[1]
