from __future__ import annotations

import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.strict_json import MAX_DEPTH, parse_strict_json

NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=40),
)


@given(VALUES, st.booleans())
def test_json_is_read_as_by_python(value: object, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert parse_strict_json(text.encode("utf-8", "surrogatepass")) == json.loads(text)


@given(st.integers(1, 3 * MAX_DEPTH), st.booleans())
def test_depth_is_counted_outside_of_texts(depth: int, objects: bool) -> None:
    opened, closed = ('{"[": ', "}") if objects else ("[", "]")
    quoted = json.dumps('[{\\"' * 50)
    raw = f"{opened * depth}{quoted}{closed * depth}".encode()
    if depth <= MAX_DEPTH:
        assert parse_strict_json(raw) == json.loads(raw)
    else:
        with pytest.raises(DataError, match="nested deeper than 32 levels"):
            parse_strict_json(raw)


def test_many_brackets_beside_each_other_are_not_deep() -> None:
    assert parse_strict_json(b"[" + b"[],{}," * 1_000 + b"0]")[-1] == 0


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is not JSON in UTF-8: Expecting property name"),
        (b"\xff\xfe{}", "is not JSON in UTF-8"),
        ("\ufeff{}".encode(), "is not JSON in UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is not JSON in UTF-8"),
        (b'{"a": 1, "a": 1}', "has the key 'a' twice"),
        (b'[{"b": {"a": 1, "c": 2, "a": 3}}]', "has the key 'a' twice"),
        (b"NaN", "NaN is not a number of JSON"),
        (b"[-Infinity]", "-Infinity is not a number of JSON"),
        (b"[1e999]", "1e999 is beyond what a float holds"),
        (b"9" * 20, "a whole number of 20 digits"),
        (b"9" * 5_000, "a whole number of 5000 digits"),
        (b"[" * 100_000, "nested deeper than 32 levels"),
        (b'{"a":' * 100_000, "nested deeper than 32 levels"),
        (b'"' + b"[" * 100_000, "is not JSON"),
        (b"]" * 100_000 + b"[" * 100_000, "is not JSON"),
        (b'["\\', "is not JSON"),
    ],
)
def test_what_has_no_one_meaning_is_refused(raw: bytes, part: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_strict_json(raw)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_deep_nesting_is_refused_whatever_the_recursion_limit() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**8)  # with which Python's own parser would run out of its stack, and crash
    try:
        with pytest.raises(DataError, match="nested deeper"):
            parse_strict_json(b"[" * 10**6)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    "raw",
    [
        b'"' * 1_000_001,
        b"\\" * 1_000_000,
        b'"\\' * 500_000,
        b"[" * 40 + b'"\\' * 500_000,
        b'["a' * 300_000,
        b"1" * 10**6,
    ],
)
def test_a_megabyte_of_anything_is_refused_at_once(raw: bytes) -> None:
    began = time.process_time()
    with pytest.raises(DataError):
        parse_strict_json(raw)
    assert time.process_time() - began < 2
