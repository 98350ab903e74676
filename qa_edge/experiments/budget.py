"""How much an experiment may cost, named so that a small one is never taken for the paper's."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from qa_edge.settings import require_types
from qa_edge_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The size of an experiment's runs, the same for all of them.

    :param share: of the articles to train on, whole ones, drawn by a fixed seed.
    :param epochs: passes over their questions.
    :param seeds: runs of each variant, with seeds 0, 1, ...
    :param dev: questions of the development set that are asked, drawn by a fixed seed; None asks all.
    :param articles: questions that are asked of whole articles, where an experiment does that.
    :param labels: share of the questions that active learning may label.
    """

    share: float = 1.0
    epochs: int = 30
    seeds: int = 1
    dev: int | None = None
    articles: int = 300
    labels: float = 1.0

    def __post_init__(self) -> None:
        require_types(self)
        for name in ("share", "labels"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 < {name} <= 1")
        for name in ("epochs", "seeds", "articles", *(() if self.dev is None else ("dev",))):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")

    @property
    def is_short(self) -> bool:
        """Whether it has fewer passes than the paper's 30, which asks for a schedule that ends."""
        return self.epochs < Budget.epochs

    def __str__(self) -> str:
        return f"{self.epochs} pass{'' if self.epochs == 1 else 'es'} over {self._articles}, {self._seeds}"

    @property
    def of_loops(self) -> str:
        """Its size where encoders learn alone, whose passes are no budget's."""
        return f"labels up to {100 * self.labels:g} % of the questions of {self._articles}, {self._seeds}"

    @property
    def _articles(self) -> str:
        return "all articles" if self.share == 1 else f"{100 * self.share:g} % of the articles"

    @property
    def _seeds(self) -> str:
        return f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"


PRESETS = {
    "tiny": Budget(share=0.02, epochs=1, dev=500, articles=50, labels=0.2),
    "small": Budget(share=0.25, epochs=4, seeds=2, labels=0.4),
    "paper": Budget(),
}


def parse_budget(text: str) -> Budget:
    """Read `small`, `share=0.25,epochs=4,seeds=2` or `small,seeds=3`.

    What is not named is the preset's, and the paper's without one.

    :raises InputError: if a name or a value is none that a budget has.
    """
    first, *rest = [part.strip() for part in text.split(",")]
    base = PRESETS.get(first)
    return replace(base or Budget(), **read_values(rest if base else [first, *rest], Budget, "budget", PRESETS))


def read_values(parts: list[str], kind: type, what: str, presets: Any = ()) -> dict[str, Any]:
    """Values of NAME=VALUE pairs, of the types of a dataclass's fields.

    :raises InputError: if a name or a value is none that it has.
    """
    types = {field.name: str(field.type) for field in fields(kind)}
    values: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in types:
            beside = f", or one of {', '.join(presets)} first" if presets else ""
            raise InputError(f"{what} has {part!r}, expected NAME=VALUE with a name of {', '.join(types)}{beside}")
        if value == "all" and "None" in types[name]:
            values[name] = None
            continue
        number = float if "float" in types[name] else int if "int" in types[name] else str
        try:
            values[name] = number(value)
        except ValueError as error:
            kinds = "a whole number" if number is int else "a number"
            raise InputError(f"{what} has {part!r}, expected {kinds} behind the =") from error
    return values
