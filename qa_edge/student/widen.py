"""A trained student for wider word vectors: it answers as before, and learns what the new numbers are good for."""

from __future__ import annotations

from dataclasses import replace

import torch

from qa_edge.student.qanet import QANet
from qa_edge_runtime.errors import InputError


def widen_words(model: QANet, word_dim: int) -> QANet:
    """A student whose word vectors have more numbers behind the ones that it knows, with weights of 0 at first.

    :raises InputError: if `word_dim` is not more than it has.
    """
    before = model.config.word_dim
    if word_dim <= before:
        raise InputError(f"word_dim is {word_dim}, expected more than the student's {before}")
    wide = QANet(replace(model.config, word_dim=word_dim), seed=model.pool.seed)
    state = model.state_dict()
    added = word_dim - before
    unknown, projection = state["token.unknown"], state["token.projection.weight"]
    state["token.unknown"] = torch.cat([unknown, unknown.new_zeros(added)])
    # The word's columns come first, then the characters'.
    zeros = projection.new_zeros(len(projection), added)
    state["token.projection.weight"] = torch.cat([projection[:, :before], zeros, projection[:, before:]], 1)
    wide.load_state_dict(state)
    return wide
