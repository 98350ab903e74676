"""The token table of a bundle: which words get a row, and the rows."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qa_edge_export.checkpoint import Checkpoint
from qa_edge_export.fold import fold_states
from qa_edge_runtime.errors import InputError
from qa_edge_runtime.manifest import VOCABULARY_NAME
from qa_edge_runtime.table import SCALES_NAME, TABLE_DTYPES, TABLE_NAME, TableSpec, quantise_rows
from qa_edge_runtime.vocabulary import Vocabulary

# Neighbouring numbers of a 4-bit row that share a scale; of a row of 8 bits all do.
INT4_GROUP = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table as it goes into a bundle.

    :ivar files: by name: rows, scales if there are any, and the vocabulary that numbers the rows.
    """

    spec: TableSpec
    files: Mapping[str, bytes]


def rank_words(checkpoint: Checkpoint, counts: Mapping[str, int], *, required: Collection[str] = ()) -> list[str]:
    """Words that a row is worth having, the most worthy first: those required, then by frequency.

    Only words that the checkpoint has a vector for: without a row they would be read by their characters alone. A word
    without a vector is read in that way at any rate, by the token graph, so that a row would only save its time; it
    gets one if it is required.

    :param counts: how often each word, as it is written, stands in a text.
    """
    first = dict.fromkeys(word for word in required if word)
    known = checkpoint.vocabulary.word_ids(list(counts)) > 0
    by_count = sorted((-count, word) for (word, count), has in zip(counts.items(), known, strict=True) if has)
    return [*first, *(word for _, word in by_count if word not in first)]


def default_counts(vocabulary: Vocabulary) -> dict[str, int]:
    """Counts for want of a text: the words of a checkpoint's vocabulary, which begins with the most frequent."""
    return {word: len(vocabulary.words) - number for number, word in enumerate(vocabulary.words)}


def choose_words(ranked: Sequence[str], count: int | None, *, required: int = 0) -> list[str]:
    """The first `count` words; all if it is None.

    :param required: how many words at the front must get a row.
    :raises InputError: if there are fewer words than asked for, or more that must get a row.
    """
    if count is not None and count < required:
        raise InputError(f"a vocabulary of {count:,} words cannot hold the {required:,} that are required: allow more")
    if count is not None and not 0 <= count <= len(ranked):
        raise InputError(
            f"a vocabulary of {count:,} words was asked for, but there are {len(ranked):,}: those of the text that the"
            " student knows a vector of, and those required; ask for fewer, or name a larger text"
        )
    return list(ranked[:count])


def choose_words_within(
    ranked: Sequence[str], checkpoint: Checkpoint, dtype: str, budget_bytes: int, *, required: int = 0
) -> list[str]:
    """As many words, the most worthy first, as fit with their rows into a number of bytes.

    :param budget_bytes: what the rest of the bundle leaves over.
    :param required: how many words at the front must get a row.
    :raises InputError: if these do not fit; it says how many bytes are missing.
    """
    row = row_bytes(dtype, checkpoint.sizes.hidden)
    empty = sum(map(len, build_table(checkpoint, [], dtype).files.values()))
    sizes = np.array([row + len(json.dumps(word)) + 1 for word in ranked], np.int64)
    least = empty + int(sizes[:required].sum())
    if budget_bytes < least:
        raise InputError(f"a table of {required} words takes {least - budget_bytes:,} bytes more than there are left")
    return list(ranked[: int(np.searchsorted(np.cumsum(sizes), budget_bytes - empty, side="right"))])


def table_keys(words: Sequence[str]) -> list[str]:
    """What each word's row is looked up by: the word, or its lower case where no other row stands there.

    A look-up tries a token as it is and then in lower case. So `British` finds its row under `british` as well, and so
    do `british`, which would find nothing under `British`, and `BRITISH`. The state stays that of the word.
    """
    taken, keys = set(words), []
    for word in words:
        lower = word.lower()
        # A lower case of another length (U+0130 alone) could take more bytes than the word was counted with.
        key = word if lower in taken or len(lower) != len(word) else lower
        taken.add(key)
        keys.append(key)
    return keys


def build_table(checkpoint: Checkpoint, words: Sequence[str], dtype: str) -> Table:
    """Fold the words' embedding stage into rows, found by `table_keys`.

    :param dtype: "float32", "float16", "int8" or "int4".
    :raises InputError: if there is no such dtype, or it cannot hold the states.
    """
    if dtype not in TABLE_DTYPES:
        raise InputError(f"table dtype is {dtype!r:.40}, expected {', '.join(TABLE_DTYPES)}")
    states = np.concatenate([np.zeros((1, checkpoint.sizes.hidden), np.float32), fold_states(checkpoint, words)])
    group = group_size(dtype, checkpoint.sizes.hidden)
    rows, scales = quantise_rows(states, dtype, group)
    vocabulary = {
        "format_version": 1,
        "words": table_keys(words),
        "characters": list(checkpoint.vocabulary.characters),
    }
    files = {
        TABLE_NAME: _npy(rows),
        VOCABULARY_NAME: json.dumps(vocabulary, separators=(",", ":")).encode("ascii") + b"\n",
    }
    if scales is not None:
        files[SCALES_NAME] = _npy(scales)
    spec = TableSpec(
        scales_file=None if scales is None else SCALES_NAME,
        dtype=dtype,
        rows=len(states),
        hidden=checkpoint.sizes.hidden,
        group_size=group,
    )
    return Table(spec=spec, files=files)


def group_size(dtype: str, hidden: int) -> int:
    """Numbers that share a scale in a table of this dtype."""
    return INT4_GROUP if dtype == "int4" and hidden % INT4_GROUP == 0 else hidden


def row_bytes(dtype: str, hidden: int) -> int:
    """Bytes of a row and its scales."""
    numbers = {"float32": 4 * hidden, "float16": 2 * hidden, "int8": hidden, "int4": hidden // 2}[dtype]
    return numbers + (2 * hidden // group_size(dtype, hidden) if dtype.startswith("int") else 0)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
