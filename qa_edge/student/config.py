"""Sizes of a student, with the presets that people name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qa_edge.settings import require_types
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_write, read_json

FORMAT_VERSION = 1

REGULARISATION = ("dropout", "character_dropout", "survival")
"""What no weight depends on: a student whose training goes on may be given it anew."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Every size of a QANet student. Defaults are the paper's; QANet's where the paper is silent.

    :param hidden: width of the network, even, a multiple of `heads`.
    :param word_dim: width of the word vectors; 0 trains on characters alone.
    :param characters: character ids, padding (0) and unknown (1) included.
    :param survival: share of steps in which the last sub-layer of a stack is kept (stochastic depth).
    """

    preset: str = "edge"
    hidden: int = 128
    heads: int = 1
    encoder_kernel: int = 7
    encoder_convolutions: int = 4
    model_kernel: int = 5
    model_convolutions: int = 2
    model_blocks: int = 7
    passes: int = 3
    word_dim: int = 300
    character_dim: int = 64
    characters: int = 2
    characters_per_word: int = 16
    character_kernel: int = 5
    dropout: float = 0.1
    character_dropout: float = 0.05
    survival: float = 0.9
    max_answer_tokens: int = 30

    def __post_init__(self) -> None:
        require_types(self)
        for name in (
            "hidden",
            "heads",
            "encoder_kernel",
            "model_kernel",
            "model_blocks",
            "character_dim",
            "character_kernel",
            "characters",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.hidden % 2 or self.hidden % self.heads:
            raise InputError(f"hidden is {self.hidden}, expected an even multiple of the {self.heads} heads")
        if self.encoder_kernel % 2 == 0 or self.model_kernel % 2 == 0:
            raise InputError("convolution kernels must be odd, so that a token stays at its place")
        if self.passes != 3:
            raise InputError(f"passes is {self.passes}, expected 3: the output layer reads three of them")
        if self.character_kernel > self.characters_per_word:
            raise InputError("character_kernel must not exceed characters_per_word")
        for name in ("dropout", "character_dropout"):
            if not 0 <= getattr(self, name) <= 0.99:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 <= {name} <= 0.99")
        for name in ("encoder_convolutions", "model_convolutions"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.survival <= 1:
            raise InputError(f"survival is {self.survival}, expected 0 < survival <= 1")
        if self.word_dim < 0 or self.max_answer_tokens < 1:
            raise InputError("word_dim must be 0 or more, max_answer_tokens at least 1")

    def to_json(self) -> dict[str, Any]:
        """The config as `config.json` holds it."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write `config.json`, whole or not at all."""
        atomic_write(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str = "student config") -> StudentConfig:
        """Read what `to_json` gave.

        :raises DataError: on another format, or a field that this version does not know.
        """
        if not isinstance(data, Mapping) or data.get("format_version") != FORMAT_VERSION:
            found = data.get("format_version") if isinstance(data, Mapping) else type(data).__name__
            raise DataError(f"{source} has format {found}, expected {FORMAT_VERSION}: use the qa-edge that wrote it")
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known - {"format_version"})
        if unknown:
            raise DataError(f"{source} has a field {unknown[0]!r} that this version does not know: upgrade qa-edge")
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except InputError as error:
            raise DataError(f"{source} cannot be followed: {error}; use a file that qa-edge wrote") from error

    @classmethod
    def load(cls, path: str | Path) -> StudentConfig:
        """Read a `config.json`."""
        return cls.from_json(read_json(path, "student config"), f"student config {path}")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"heads": 8},
    "edge": {"heads": 1},
    "edge-small": {"heads": 1, "model_blocks": 4},
    "edge-tiny": {"heads": 1, "model_blocks": 5, "hidden": 64},
}


def split_sizes(sizes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides a student's weights, and its regularisation."""
    fixed = {name: value for name, value in sizes.items() if name not in REGULARISATION}
    return fixed, {name: value for name, value in sizes.items() if name in REGULARISATION}


def preset_config(name: str, **sizes: Any) -> StudentConfig:
    """A preset by name, with any size replaced.

    :raises InputError: if there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(sorted(PRESETS))}")
    return StudentConfig(**{"preset": name, **PRESETS[name], **sizes})
