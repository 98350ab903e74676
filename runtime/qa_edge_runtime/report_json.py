"""Reports as JSON and back: dataclasses of numbers, texts, lists of them, other such classes and samples."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.latency_samples import LatencySamples

T = TypeVar("T")
# A list of numbers as `indent` writes it, one a line. No text of JSON holds a line end.
_NUMBERS = re.compile(r"\[\n\s*([-+.\deE,\s]+?)\s*\]")


def report_to_json(report: Any, **first: Any) -> str:
    """A report as JSON text; a list of numbers takes one line.

    :param first: entries that come before the report's own.
    """
    text = json.dumps({**first, **_plain(report)}, indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def report_from_content(kind: type[T], content: Any) -> T:
    """The report of that class in parsed JSON; entries that the class does not know are passed over.

    :raises DataError: naming the first entry that is missing or of another type.
    """
    made: T = _read(kind, content, "")
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, LatencySamples):
        return value.columns()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # always of something with None
        return None if value is None else _read(arguments[0], value, where)
    if hint is LatencySamples:
        return LatencySamples.from_columns(value)
    if is_dataclass(hint) and isinstance(hint, type):
        entries = _expect(value, dict, where or "the report", "an object")
        hints, prefix = get_type_hints(hint), f"{where}." if where else ""
        return hint(**{f.name: _read(hints[f.name], entries.get(f.name), prefix + f.name) for f in fields(hint)})
    if origin is tuple:
        entries = _expect(value, list, where, "a list")
        if arguments[-1] is not Ellipsis and len(entries) != len(arguments):
            raise DataError(f"{where} has {len(entries)} entries, expected {len(arguments)}")
        return tuple(_read(arguments[0], entry, f"{where}[{index}]") for index, entry in enumerate(entries))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        entries = _expect(value, dict, where, "an object")
        return {key: _read(arguments[1], entry, f"{where}.{key}") for key, entry in entries.items()}
    if hint is float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise DataError(f"{where} is {value!r:.40}, expected a number")
        return float(value)
    if type(value) is float and not math.isfinite(value):
        raise DataError(f"{where} is {value}, expected a number")
    return value if hint is Any else _expect(value, hint, where, "a text" if hint is str else "a whole number")


def _expect(value: Any, kind: type, where: str, noun: str) -> Any:
    if type(value) is not kind:
        raise DataError(f"{where} is {'missing' if value is None else f'{value!r:.40}'}, expected {noun}")
    return value
