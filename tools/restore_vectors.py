"""Give a checkpoint its word vectors back: they are left out where it is kept, being larger than all the rest.

    python tools/restore_vectors.py models/edge glove.6B.100d.txt

The file must be the one that the checkpoint was trained with: export, evaluate and distill --init then find
vectors.safetensors beside the weights. Where the recipe names the file's SHA-256 (a run that was begun with --vectors)
it is compared; a run that was begun with --features names none, and then only words and their dimension are checked.
The last line says which it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qa_edge.features import VECTORS
from qa_edge.recipe import read_recipe
from qa_edge.vectors import read_vectors
from qa_edge_runtime.errors import DataError, MissingExtraError, QaEdgeError
from qa_edge_runtime.files import atomic_write, read_json, sha256_file
from qa_edge_runtime.vocabulary import Vocabulary


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
    parser.add_argument("checkpoint", type=Path, help="folder with config.json, vocabulary.json and the weights")
    parser.add_argument("vectors", type=Path, help="GloVe text file (plain, .gz or .zip) that it was trained with")
    arguments = parser.parse_args(argv)
    try:
        restored = restore_vectors(arguments.checkpoint, arguments.vectors)
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    compared = (
        "the file is the one of the recipe"
        if restored.compared
        else "the recipe names no SHA-256 to compare the file's with"
    )
    sys.stdout.write(f"{arguments.checkpoint / VECTORS}: vectors of {restored.words:,} words; {compared}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
