"""A trained student as export reads it: sizes, named arrays, word vectors, vocabulary and tokenizer of a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.errors import BundleError, DataError, MissingExtraError
from qa_edge_runtime.files import read_json
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.vocabulary import Vocabulary

FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
VECTORS_NAME = "vectors.safetensors"
VOCABULARY_NAME = "vocabulary.json"
TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class StudentSizes:
    """The sizes of a QANet student that its graphs depend on; `config.json` has them among others.

    :raises DataError: if one is not a whole number in its range.
    """

    hidden: int
    heads: int
    encoder_kernel: int
    encoder_convolutions: int
    model_kernel: int
    model_convolutions: int
    model_blocks: int
    passes: int
    word_dim: int
    character_dim: int
    characters: int
    characters_per_word: int
    character_kernel: int
    max_answer_tokens: int

    def __post_init__(self) -> None:
        may_be_zero = {"word_dim", "encoder_convolutions", "model_convolutions"}
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in may_be_zero else 1
            if type(value) is not int or value < least:
                raise DataError(f"{field.name} is {value!r:.40}, expected a whole number from {least}")
        if self.hidden % 2 or self.hidden % self.heads:
            raise DataError(f"hidden is {self.hidden}, expected an even multiple of the {self.heads} heads")
        if self.encoder_kernel % 2 == 0 or self.model_kernel % 2 == 0:
            raise DataError("encoder_kernel and model_kernel must be odd, so that a token stays at its place")
        if self.character_kernel > self.characters_per_word:
            raise DataError("character_kernel must not exceed characters_per_word")
        if self.passes != 3:
            raise DataError(f"passes is {self.passes}, expected 3: the output layer reads three of them")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that export needs of a run folder.

    :ivar config: `config.json` as it is; goes into the manifest.
    :ivar arrays: the weights by name, float32, Linear weights as [out, in]; see `array_shapes`.
    :ivar vectors: word vectors, float16, shape (words + 1, word_dim); row 0, the unknown word's, is not used.
    :ivar tokenizer_json: bytes of `tokenizer.json`, as they go into the bundle.
    """

    folder: Path
    config: Mapping[str, Any]
    sizes: StudentSizes
    arrays: Mapping[str, np.ndarray]
    vectors: np.ndarray
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    tokenizer_json: bytes


def read_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a run folder.

    :raises DataError: if the folder or a file is missing or unreadable, the config is of a newer format, an array is
        missing or of another shape, or vocabulary, vectors and config do not fit each other; one sentence.
    :raises MissingExtraError: if safetensors is not installed.
    """
    run = Path(folder)
    if not run.is_dir():
        found = "is a file" if run.exists() else "does not exist"
        raise DataError(f"run folder {run} {found}; expected the folder that qa-edge distill wrote")
    for name in (CONFIG_NAME, WEIGHTS_NAME, VOCABULARY_NAME, TOKENIZER_NAME):
        if not (run / name).is_file():
            raise DataError(f"run folder {run} has no {name}; expected the folder that qa-edge distill wrote")
    config = read_config(run)
    sizes = _sizes(run, config)
    try:
        vocabulary, tokenizer = Vocabulary.load(run / VOCABULARY_NAME), Tokenizer.load(run / TOKENIZER_NAME)
    except BundleError as error:
        raise DataError(str(error)) from error
    if vocabulary.character_rows != sizes.characters:
        raise DataError(
            f"run folder {run}: {VOCABULARY_NAME} has {vocabulary.character_rows} character ids but {CONFIG_NAME} says"
            f" {sizes.characters}; the files are of different runs"
        )
    return Checkpoint(
        folder=run,
        config=config,
        sizes=sizes,
        arrays=_read_arrays(run, sizes),
        vectors=_read_vectors(run, vocabulary.word_rows, sizes.word_dim),
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        tokenizer_json=(run / TOKENIZER_NAME).read_bytes(),
    )


def read_config(run: Path) -> dict[str, Any]:
    """The content of `config.json`, its format checked.

    :raises DataError: if it is not an object of a format that this version reads.
    """
    config = read_json(run / CONFIG_NAME, "student config")
    version = config.get("format_version") if isinstance(config, dict) else None
    if type(version) is not int or version < 1:
        raise DataError(f"student config {run / CONFIG_NAME} has no format_version; expected one that distill wrote")
    if version > FORMAT_VERSION:
        raise DataError(
            f"student config {run / CONFIG_NAME} of format {version} is newer than this version reads"
            f" ({FORMAT_VERSION}): upgrade qa-edge"
        )
    return dict(config)


def array_shapes(sizes: StudentSizes) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a student: what `model.safetensors` holds, and nothing else."""
    hidden = sizes.hidden
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)

    def block(name: str, kernel: int, convolutions: int) -> None:
        for number in range(convolutions):
            norm(f"{name}.convolutions.{number}.norm")
            shapes[f"{name}.convolutions.{number}.depthwise"] = (hidden, kernel)
            dense(f"{name}.convolutions.{number}.pointwise", hidden, hidden)
        for layer, parts in (("attention", ("query", "key", "value", "output")), ("feedforward", ("inner", "outer"))):
            norm(f"{name}.{layer}.norm")
            for part in parts:
                dense(f"{name}.{layer}.{part}", hidden, hidden)

    shapes["token.unknown"] = (sizes.word_dim,)
    shapes["token.characters"] = (sizes.characters, sizes.character_dim)
    dense("token.convolution", sizes.character_kernel * sizes.character_dim, hidden)
    dense("token.projection", sizes.word_dim + hidden, hidden, bias=False)
    for number in range(2):
        dense(f"token.highway.{number}.transform", hidden, hidden)
        dense(f"token.highway.{number}.gate", hidden, hidden)
    block("encoder", sizes.encoder_kernel, sizes.encoder_convolutions)
    norm("encoder_norm")
    for name in ("context", "question", "product"):
        shapes[f"fusion.{name}"] = (hidden,)
    dense("fusion.projection", 4 * hidden, hidden)
    for number in range(sizes.model_blocks):
        block(f"blocks.{number}", sizes.model_kernel, sizes.model_convolutions)
    norm("output_norm")
    dense("start", 2 * hidden, 1)
    dense("end", 2 * hidden, 1)
    return shapes


def _sizes(run: Path, config: Mapping[str, Any]) -> StudentSizes:
    names = [field.name for field in fields(StudentSizes)]
    for name in names:
        if name not in config:
            raise DataError(f"student config {run / CONFIG_NAME} does not say {name}; expected one that distill wrote")
    try:
        return StudentSizes(**{name: config[name] for name in names})
    except DataError as error:
        raise DataError(f"student config {run / CONFIG_NAME}: {error}") from error


def _read_arrays(run: Path, sizes: StudentSizes) -> dict[str, np.ndarray]:
    source, expected = run / WEIGHTS_NAME, array_shapes(sizes)
    found = _read_safetensors(source)
    for name, shape in expected.items():
        if name not in found:
            raise DataError(f"{source} has no array {name}; expected one of shape {list(shape)} for {CONFIG_NAME}")
        array = found[name]
        if array.shape != shape or array.dtype != np.float32:
            raise DataError(
                f"{source}: {name} is {array.dtype} {list(array.shape)}, expected float32 {list(shape)};"
                f" the weights do not belong to {CONFIG_NAME}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{source}: {name} holds NaN or infinity; training went wrong, take another checkpoint")
    for name in found:
        if name not in expected:
            raise DataError(f"{source} has an array {name:.80} that {CONFIG_NAME} leaves no place for: upgrade qa-edge")
    return {name: found[name] for name in expected}


def _read_vectors(run: Path, rows: int, word_dim: int) -> np.ndarray:
    """The word vectors; characters alone (word_dim 0) need no file."""
    if word_dim == 0:
        return np.zeros((rows, 0), dtype=np.float16)
    source = run / VECTORS_NAME
    if not source.is_file():
        raise DataError(
            f"run folder {run} has no {VECTORS_NAME}: a checkpoint that was kept without its word vectors gets them"
            " back by tools/keep_checkpoint.py restore"
        )
    found = _read_safetensors(source)
    if "vectors" not in found:
        raise DataError(f"{source} has no array vectors; expected one of shape [{rows}, {word_dim}]")
    vectors = found["vectors"]
    if vectors.dtype != np.float16 or vectors.shape != (rows, word_dim):
        raise DataError(
            f"{source}: vectors is {vectors.dtype} {list(vectors.shape)}, expected float16 [{rows}, {word_dim}]"
            f" for {rows - 1} words of {VOCABULARY_NAME} and {CONFIG_NAME}"
        )
    if not np.isfinite(vectors).all():
        raise DataError(f"{source}: vectors holds NaN or infinity; prepare the data again")
    return vectors


def _read_safetensors(source: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtraError('reading a checkpoint needs safetensors: pip install "qa-edge[train]"') from error
    try:
        return load_file(source)
    except (SafetensorError, OSError, KeyError) as error:  # KeyError: a dtype that numpy has not
        raise DataError(f"{source} is not a safetensors file that can be read ({error}); copy the run again") from error
