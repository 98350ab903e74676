"""JSON of files that may be damaged or hostile: read in one meaning, in bounded memory, or refused in one sentence."""

from __future__ import annotations

import json
import re
from typing import Any

from qa_edge_runtime.errors import DataError

# No file of a bundle nests deeper than some seven levels. Far from where Python's own limit or the C stack ends.
MAX_DEPTH = 32
# A whole number of more digits is beyond 64 bits, and takes time that grows with their square to read.
MAX_DIGITS = 19

# A text that does not end matches as well: else a search from each of its quotes would go to the end again.
_STRUCTURE = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[][{}]', re.DOTALL)
_STEPS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def parse_strict_json(raw: bytes) -> Any:
    """The value of a JSON text.

    Refused besides what is no JSON: other encodings than UTF-8, an object that has the same key twice, NaN and
    Infinity, numbers that a float or 64 bits do not hold, and nesting beyond `MAX_DEPTH`.

    :raises DataError: saying what is wrong, as the end of a sentence: "is not JSON: ...".
    """
    if not raw.strip():
        raise DataError("is empty; expected JSON")
    if _depth_exceeds(raw):
        raise DataError(f"is nested deeper than {MAX_DEPTH} levels; expected JSON that qa-edge wrote")
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise DataError(f"is not JSON in UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"is not JSON in UTF-8: {error.msg} at {place}") from None
    except RecursionError:  # the caller's own stack is nearly full
        raise DataError("is nested too deep to be read here") from None


def _depth_exceeds(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _STRUCTURE.finditer(raw):
        depth += _STEPS.get(found[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, _ in pairs:  # taken out as they come, the second of two is no longer there
            if key not in found:
                raise DataError(f"has the key {key!r:.80} twice in one object; expected JSON that qa-edge wrote")
            del found[key]
    return found


def _constant(constant: str) -> Any:
    raise DataError(f"is not JSON in UTF-8: {constant} is not a number of JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise DataError(f"holds a value that cannot be read: {digits:.40} is beyond what a float holds")
    return value


def _int(digits: str) -> int:
    count = len(digits.lstrip("-"))
    if count > MAX_DIGITS:
        raise DataError(f"holds a value that cannot be read: a whole number of {count} digits")
    return int(digits)
