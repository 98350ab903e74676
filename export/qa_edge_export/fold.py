"""The embedding stage folded: words to the states that the core graph reads, computed once and for all by numpy.

Word vector, character convolution, projection and highway layers depend on the word alone (QANet, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qa_edge_export.checkpoint import Checkpoint
from qa_edge_export.inference_form import Dense, token_form

WORDS_AT_ONCE = 4096


def fold_states(checkpoint: Checkpoint, words: Sequence[str]) -> np.ndarray:
    """States of words as the trained student has them.

    :returns: float32, shape (words, hidden).
    """
    parts = [_fold(checkpoint, words[first : first + WORDS_AT_ONCE]) for first in range(0, len(words), WORDS_AT_ONCE)]
    return np.concatenate([np.empty((0, checkpoint.sizes.hidden), np.float32), *parts])


def _fold(checkpoint: Checkpoint, words: Sequence[str]) -> np.ndarray:
    sizes, form = checkpoint.sizes, token_form(checkpoint.sizes, checkpoint.arrays)
    ids = checkpoint.vocabulary.word_ids(words)
    vectors = checkpoint.vectors[ids].astype(np.float32)
    vectors[ids == 0] = checkpoint.arrays["token.unknown"]
    letters = form.characters[checkpoint.vocabulary.character_ids(words, sizes.characters_per_word)]
    features: np.ndarray | None = None
    for first in range(sizes.characters_per_word - sizes.character_kernel + 1):
        window = letters[:, first : first + sizes.character_kernel].reshape(len(words), -1)
        value = _dense(window, form.windows)
        features = value if features is None else np.maximum(features, value)
    assert features is not None
    joined = np.concatenate([vectors, np.maximum(features, 0)], axis=1)
    x = joined @ checkpoint.arrays["token.projection.weight"].T
    for transform, gate in form.highways:
        with np.errstate(over="ignore"):  # of a gate that is shut
            opened = 1 / (1 + np.exp(-_dense(x, gate)))
        x = x + opened * (np.maximum(_dense(x, transform), 0) - x)
    return np.asarray(x, np.float32)


def _dense(x: np.ndarray, layer: Dense) -> np.ndarray:
    product = x @ layer.weight.T
    return product if layer.bias is None else product + layer.bias
