"""Keep a checkpoint under version control, and make it whole again.

    python tools/keep_checkpoint.py keep runs/first models/edge
    python tools/keep_checkpoint.py restore models/edge --vectors glove.6B.100d.txt --squad train-v1.1.json

`keep` leaves out what is larger than all the rest or somebody else's: word vectors, held-out questions, features,
labels, the state of the optimiser; of the recipe's paths it keeps the names. `restore` brings back the word vectors,
without which nothing runs, and the held-out questions, which export calibrates and verifies on. Both files must be
those that the checkpoint was trained with: the held-out questions are known by their texts, so that the published SQuAD
will do for a copy of it with other ids; the vectors by the SHA-256 that the recipe names, or, of a run that was begun
with --features, by words and dimension alone. A line says which it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qa_edge.features import HELDOUT, SCORES, TOKENIZER, VECTORS, VOCABULARY
from qa_edge.heldout import TEXTS, held_out, texts_sha256
from qa_edge.recipe import FILE as RECIPE
from qa_edge.recipe import read_recipe
from qa_edge.squad import read_squad, write_squad
from qa_edge.vectors import read_vectors
from qa_edge_runtime.errors import DataError, MissingExtraError, QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write, read_json, sha256_file
from qa_edge_runtime.vocabulary import Vocabulary

KEPT = ("config.json", "model.safetensors", VOCABULARY, TOKENIZER)


def keep(run: Path, target: Path, *, force: bool = False) -> None:
    """Copy what has to be kept of a finished run.

    :raises DataError: if a part is missing, `target` exists and `force` is false, or it is more than a kept checkpoint.
    """
    recipe = read_recipe(run)
    _require_kept(target, run, force=force)
    try:
        for found in recipe.get("inputs", {}).values():
            found["path"] = Path(found["path"]).name
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"recipe of {run} is not one that distill wrote (its inputs are no files)") from error
    if (run / HELDOUT).exists():
        recipe[TEXTS] = texts_sha256(read_squad(run / HELDOUT))
    if isinstance(recipe.get("teacher"), str):
        recipe["teacher"] = Path(recipe["teacher"]).name
    with atomic_folder(target, force=force, marker=KEPT[0]) as folder:
        for name in (*KEPT, *([SCORES] if (run / SCORES).exists() else [])):
            try:
                shutil.copyfile(run / name, folder / name)
            except OSError as error:
                raise DataError(f"{run / name} cannot be copied: {error.strerror or error}") from error
        atomic_write(folder / RECIPE, json.dumps(recipe, indent=1) + "\n")


def _require_kept(target: Path, run: Path, *, force: bool) -> None:
    """Refuse to replace anything but what `keep` and `restore` write: a run holds days of work beside it."""
    if not (force and target.is_dir()):
        return  # nothing is replaced
    others = sorted({entry.name for entry in target.iterdir()} - {*KEPT, SCORES, RECIPE, HELDOUT, VECTORS})
    if others or target.resolve() == run.resolve():
        found = f"it holds {others[0]}" if others else "it is the run itself"
        raise DataError(f"{target} is no checkpoint that was kept before ({found}), and stays as it is; name another")


def restore_heldout(checkpoint: Path, source: Path) -> int:
    """Write the held-out questions of a checkpoint's training articles beside it, and say how many there are.

    :raises DataError: if the file is not the one that the checkpoint was trained on, or held nothing out.
    """
    questions = held_out(checkpoint, read_squad(source), source).questions
    write_squad(checkpoint / HELDOUT, questions)
    return sum(1 for _ in questions.items())


class Restored(NamedTuple):
    """How many words got their vectors, and whether the file's SHA-256 was compared with the recipe's."""

    words: int
    compared: bool


def restore_vectors(checkpoint: Path, source: Path) -> Restored:
    """Write the vectors of a checkpoint's words beside it.

    :raises DataError: if the file is not the one that the recipe names, where it names one, or lacks a word; or if the
        checkpoint cannot be read or has no word vectors.
    :raises MissingExtraError: if safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise MissingExtraError('restoring vectors needs safetensors: pip install "qa-edge[train]"') from error

    wanted = _object(_object(read_recipe(checkpoint).get("inputs")).get("vectors")).get("sha256")
    width = _word_dim(checkpoint)
    if wanted is not None and source.is_file() and sha256_file(source) != wanted:
        raise DataError(f"{source} is not the file that {checkpoint} was trained with (its SHA-256 is another)")
    words = Vocabulary.load(checkpoint).words
    found = read_vectors(source, frozenset(words), width)
    row = {word: number for number, word in enumerate(found.words)}
    missing = [word for word in words if word not in row]
    if missing:
        raise DataError(f"{source} has no vector of {len(missing)} words of {checkpoint}, such as {missing[0]!r}")
    array = found.array[[row[word] for word in words]].astype(np.float16)
    content = save({"vectors": np.concatenate([np.zeros((1, width), np.float16), array])})
    atomic_write(checkpoint / VECTORS, content)
    return Restored(len(words), compared=wanted is not None)


def _word_dim(checkpoint: Path) -> int:
    """Numbers of a vector, as the student's configuration says."""
    path = checkpoint / "config.json"
    width = _object(read_json(path, "student config")).get("word_dim")
    if type(width) is not int or width < 0:
        found = "missing" if width is None else repr(width)
        raise DataError(f"{path}: word_dim is {found:.40}, expected a whole number; use a config that distill wrote")
    if width == 0:
        raise DataError(f"{checkpoint} was trained without word vectors (word_dim is 0): there is nothing to restore")
    return width


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="copy a finished run without what is large")
    keeping.add_argument("run", type=Path)
    keeping.add_argument("target", type=Path)
    keeping.add_argument("--force", action="store_true", help="replace a folder that was kept before")
    restoring = commands.add_parser("restore", help="make a kept checkpoint whole")
    restoring.add_argument("checkpoint", type=Path, help="folder with config.json, vocabulary.json and the weights")
    restoring.add_argument("--vectors", type=Path, help="GloVe text file (plain, .gz or .zip) that it was trained with")
    restoring.add_argument("--squad", type=Path, help="SQuAD JSON that it was trained on")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "keep":
            keep(arguments.run, arguments.target, force=arguments.force)
            return 0
        if arguments.vectors is None and arguments.squad is None:
            restoring.error("give --vectors, --squad or both")
        if arguments.vectors is not None:
            words, compared = restore_vectors(arguments.checkpoint, arguments.vectors)
            which = "the file is the one of the recipe" if compared else "the recipe names no SHA-256 to compare with"
            sys.stdout.write(f"{arguments.checkpoint / VECTORS}: vectors of {words:,} words; {which}\n")
        if arguments.squad is not None:
            count = restore_heldout(arguments.checkpoint, arguments.squad)
            sys.stdout.write(f"{arguments.checkpoint / HELDOUT}: {count:,} questions\n")
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
