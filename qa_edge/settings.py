"""Types of settings and sizes, which JSON and callers may give wrong: 96.5 where a whole number is meant."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from qa_edge_runtime.errors import InputError

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a finite number"),
    "str": ((str,), "text"),
    "None": ((type(None),), "none"),
}


def require_types(settings: Any) -> None:
    """Look at each value of a dataclass whose fields are int, float, str or one of these or None.

    :raises InputError: if a value is not of its field's type, true and false being no numbers, or not finite.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        expected = [_TYPES[name] for name in str(field.type).split(" | ")]
        known = any(type(value) in types for types, _ in expected)
        if not known or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{field.name} is {value!r}, expected {' or '.join(said for _, said in expected)}")
