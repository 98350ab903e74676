"""Any model's logits at the pieces of a teacher's labels, so that both can be averaged and learned from.

A student, a bundle, or a teacher with another tokenizer cuts a text in its own way, and `average_labels` needs one way.
A teacher and the student that it taught err on other questions: their mean answers better than either
(docs/experiments/023).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qa_edge.active.readers import NEVER, BundleReader, PlacedLogits, TeacherReader, check_pairs, open_reader
from qa_edge.align import Alignment, align
from qa_edge.labels import CONTEXTS, FORMAT_VERSION, Labels, LabelSettings, missing_shards, settle_manifest, write_shard
from qa_edge.shards import require_own
from qa_edge.squad import read_squad
from qa_edge_runtime.errors import DataError, InputError

# How far below a model's lowest logit the pieces lie at which none of its tokens starts or ends.
BELOW = 10.0
_OF_THE_PIECES = ("squad_sha256", "questions", "tokenizer_sha256", "window", "stride", "shard_questions")


def label_at_pieces(
    squad_path: str | Path,
    model: str,
    pieces_of: str | Path,
    output: str | Path,
    *,
    settings: LabelSettings | None = None,
    device: str | None = None,
    on_shard: Callable[[int, int], None] | None = None,
    process: int = 0,
    processes: int = 1,
) -> Path:
    """Store a model's logits for every question as labels with the pieces of others; what is done already is kept.

    :param model: a run, a bundle, or a teacher by folder or name.
    :param pieces_of: labels of the same file, as `label` wrote them.
    :param settings: `precision` and `batch_tokens` of a teacher; windows are those of `pieces_of`.
    :param on_shard: called with (shards done, shards) after each shard.
    :raises DataError: as `label`, and if `pieces_of` are labels of other data.
    :raises InputError: if `output` is `pieces_of`.
    """
    settings = settings or LabelSettings()
    folder = Path(output)
    require_own(folder, "labels")
    squad, labels = read_squad(squad_path), Labels(pieces_of)
    labels.require(squad.sha256)
    if folder.resolve() == labels.folder.resolve():
        raise InputError(f"labels {output} are those whose pieces are to be taken: name another folder")
    reader = open_reader(
        model,
        device=device,
        precision=settings.precision,
        batch_tokens=settings.batch_tokens,
        window=labels.manifest["window"],
        stride=labels.manifest["stride"],
    )
    items = [
        (number, question.text, paragraph.context)
        for number, (_, paragraph) in enumerate(squad.paragraphs())
        for question in paragraph.questions
        if not question.impossible
    ]
    check_pairs(reader, [(question, context) for _, question, context in items])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}; name another path") from error
    manifest = {
        "format_version": FORMAT_VERSION,
        **{name: labels.manifest[name] for name in _OF_THE_PIECES},
        "teacher": model,
        "teacher_sha256": reader.sha256,
        "precision": _precision(reader),
        "pieces_of": labels.manifest["teacher"],
    }
    size = settle_manifest(folder, manifest)["shard_questions"]
    if process == 0 and not (folder / CONTEXTS).exists():
        shutil.copyfile(labels.folder / CONTEXTS, folder / CONTEXTS)
    for path, here in missing_shards("label", folder, len(items), size, process, processes, on_shard):
        asked = items[here]
        placed = reader.placed([(question, context) for _, question, context in asked])
        alignments: dict[int, Alignment] = {}
        logits = []
        for (number, _, context), one in zip(asked, placed, strict=True):
            pieces = labels.pieces(number)
            if number not in alignments:
                alignments[number] = align("offset", context, one.first, one.behind, pieces.starts, pieces.ends)
            logits.append(at_pieces(one, alignments[number], len(pieces.starts)))
        write_shard(path, logits, of=model)
    return folder


def at_pieces(
    placed: PlacedLogits, alignment: Alignment, pieces: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A model's logits at as many pieces of another: what `align_logits` takes them back from.

    A start stands at the first piece of its token and an end at the last one; where several tokens share a piece the
    largest. All other pieces are `BELOW` the lowest: within its tokens the model starts and ends nothing.

    :param alignment: of the model's tokens with the pieces, by `offset`.
    :return: start and end logits, each of shape (pieces,).
    """
    found = []
    for logits, chosen in ((placed.start, alignment.start_piece), (placed.end, alignment.end_piece)):
        seen = alignment.mask & (logits > NEVER)
        lowest = float(logits[seen].min()) if seen.any() else BELOW
        values = np.full(pieces, lowest - BELOW, np.float32)
        np.maximum.at(values, chosen[seen], logits[seen])
        found.append(values)
    return found[0], found[1]


def _precision(reader: object) -> str:
    if isinstance(reader, TeacherReader):
        return reader.precision
    return reader.answerer.precision if isinstance(reader, BundleReader) else "fp32"
