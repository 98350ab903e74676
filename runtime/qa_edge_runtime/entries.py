"""Checks of a manifest's entries: each refuses in one sentence that names the entry and says what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from qa_edge_runtime.errors import BundleError

MANIFEST_NAME = "manifest.json"

# Numbers in a state, and characters read of a token: a runtime makes arrays of these sizes before it has seen data.
MAX_HIDDEN = 1 << 16
MAX_CHARACTERS = 1 << 10

# What is shown with a fixed number of digits, where it is there.
_FIGURES: Mapping[str, frozenset[str]] = {
    "scores": frozenset({"exact_match", "f1", "total"}),
    "verification": frozenset({"questions", "equal_spans", "largest_difference"}),
}

# Objects in a verification that hold figures as `scores` does.
_VERIFIED_SCORES = frozenset({"scores", "reference_scores"})

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_plain_name(name: Any) -> None:
    """Refuse a file name that could lead out of the bundle's folder, or that would overwrite the manifest.

    :raises BundleError: if it is anything but letters, digits, dots, dashes and underscores, or starts with a dot.
    """
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise BundleError(f"{name!r:.120} is not a plain file name inside the bundle; expected one such as core.onnx")


def expect(value: Any, kind: type, entry: str) -> Any:
    """The value, if it is of a kind (dict, list or str).

    :raises BundleError: if it is missing or of another kind.
    """
    if not isinstance(value, kind):
        words: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
        found = "missing" if value is None else repr(value)
        raise BundleError(f"{entry} is {found:.80}, expected {words[kind]}")
    return value


def expect_known(found: Mapping[str, Any], known: Iterable[str], entry: str) -> None:
    """Refuse an object with an entry that the format does not have: what it would mean nobody here knows.

    :raises BundleError: naming it.
    """
    for name in sorted(found.keys() - set(known)):
        raise BundleError(f"{f'{entry}.{name}'!r:.80} is no entry of this format; export the bundle again")


def expect_one_of(value: Any, known: tuple[str, ...], entry: str) -> None:
    """Refuse a value that is none of those known.

    :raises BundleError: naming them.
    """
    if value not in known:
        found = "missing" if value is None else repr(value)
        raise BundleError(f"{entry} is {found:.80}, expected {', '.join(known[:-1])} or {known[-1]}")


def expect_whole(value: Any, entry: str, *, most: int = 1 << 31) -> None:
    """Refuse what is no whole number from 1 to `most`.

    :raises BundleError: if it is missing, of another kind or out of range.
    """
    if type(value) is not int or not 1 <= value <= most:
        raise BundleError(f"{entry} is {_shown(value)}, expected a whole number from 1 to {most}")


def expect_number(value: Any, lowest: float, highest: float, entry: str) -> None:
    """Refuse what is no number of a range.

    :raises BundleError: if it is missing, of another kind or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise BundleError(f"{entry} is {_shown(value)}, expected a number from {lowest:g} to {highest:g}")


def list_names(names: Iterable[str]) -> str:
    """Names out of a file, for a message of one line: at most some 200 characters, all of which print."""
    return printable(", ".join(names))[:200] or "none"


def printable(text: str) -> str:
    """Text out of a file with all that could act on a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.80}"


def check_figures(entry: str, found: Mapping[str, Any]) -> None:
    """Refuse figures that cannot be shown as such, where they are there; in a verification its scores' too.

    :param entry: "scores" or "verification".
    :raises BundleError: naming the figure.
    """
    _check_numbers(entry, found, _FIGURES[entry])
    if entry == "verification":
        for name in _VERIFIED_SCORES & found.keys():
            _check_numbers(f"{entry}.{name}", expect(found[name], dict, f"{entry}.{name}"), _FIGURES["scores"])


def _check_numbers(entry: str, found: Mapping[str, Any], names: frozenset[str]) -> None:
    for name in sorted(names & found.keys()):
        value = found[name]
        # The bound keeps out whole numbers that no float holds.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
            raise BundleError(f"{entry}.{name} is {value!r:.80}, expected a number from 0; export the bundle again")
