"""Bundles that were cut, changed, swapped or made to harm: refused in a sentence, within bounds of memory and time.

The same damage is done to a tiny bundle, as a folder and as a single file, and (slow) to those under models/.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import change_manifest, put, seal
from tiny_bundle import CHARACTERS, TOKENIZER, WORDS, npy, tiny_files

from qa_edge_runtime.archive import write_archive
from qa_edge_runtime.bundle import Bundle, copy_bundle
from qa_edge_runtime.cli import main
from qa_edge_runtime.errors import QaEdgeError

MODELS = Path(__file__).resolve().parents[2] / "models"
BUNDLES = [
    pytest.param(None, id="tiny"),
    *(pytest.param(path, id=path.name, marks=pytest.mark.slow) for path in sorted(MODELS.rglob("*.qab"))),
]
CUTS, FLIPS = 20, 200
# Beyond the bytes of the bundle's largest file that is parsed; the interpreter's own noise is some hundred kB.
SPIKE_BYTES = 4 << 20
SECONDS = 10.0
"""Of the processor: tracing the allocations of 300,000 small lists takes one or two, what grows with the square of a
file's size minutes."""

_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and not isinstance(arguments[0], int):  # a descriptor was opened before
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hook)  # for the whole process: it cannot be taken away again


@contextmanager
def watched(path: Path) -> Iterator[None]:
    """Nothing is opened but the bundle, and neither memory nor time goes beyond bounds."""
    global _opened
    _opened = []
    tracemalloc.start()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        yield
    finally:
        seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        opened, _opened = _opened, None
    assert not [name for name in opened if not name.startswith(str(path))]
    assert peak < SPIKE_BYTES + _largest_json(path), f"{peak} bytes"
    assert seconds < SECONDS


def _largest_json(path: Path) -> int:
    """What parsing the bundle as it should be may take: some twenty times its JSON."""
    files = path.iterdir() if path.is_dir() else []
    return 20 * max((file.stat().st_size for file in files if file.suffix == ".json" and file.is_file()), default=0)


def read_all(path: Path) -> Bundle:
    """All that a device reads of a bundle before an engine sees a graph."""
    bundle = Bundle.open(path)
    bundle.tokenizer()
    bundle.vocabulary()
    bundle.cases()
    for graph in bundle.manifest.graphs:
        bundle.graph_bytes(graph)
    return bundle


def sentence(path: Path) -> str:
    """The one sentence with which a bundle is refused."""
    with pytest.raises(QaEdgeError) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable()
    assert len(message) < 500
    return message


@pytest.fixture(params=BUNDLES)
def damaged(request: pytest.FixtureRequest, tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to be damaged and mended."""
    target = tmp_path / "damaged.qab"
    shutil.copytree(request.param or tiny_path, target)
    if request.param is not None and "manifest_sha256" not in json.loads((target / "manifest.json").read_text()):
        change_manifest(target, lambda manifest: None)  # from before there was a checksum
    return target


def places(size: int, count: int) -> list[int]:
    """At most `count` places of a file, its first and last byte among them."""
    chosen = random.Random(size).sample(range(size), min(count, size))
    return sorted({0, size - 1, *chosen[: max(0, count - 2)]})


def test_each_file_cut_at_twenty_places(damaged: Path) -> None:
    for file in sorted(damaged.iterdir()):
        whole = file.read_bytes()
        for size in places(len(whole), CUTS):
            file.write_bytes(whole[:size])
            assert file.name in sentence(damaged)
        file.write_bytes(whole)
    read_all(damaged)


def test_each_of_two_hundred_single_bits_of_each_file_flipped(damaged: Path) -> None:
    for file in sorted(damaged.iterdir()):
        whole = file.read_bytes()
        with file.open("r+b") as stream:
            for number, place in enumerate(places(len(whole), FLIPS)):
                stream.seek(place)
                stream.write(bytes([whole[place] ^ 1 << number % 8]))
                stream.flush()
                sentence(damaged)
                stream.seek(place)
                stream.write(whole[place : place + 1])
                stream.flush()
    read_all(damaged)


def test_each_two_files_swapped(damaged: Path) -> None:
    contents = {file.name: file.read_bytes() for file in damaged.iterdir()}
    for one, other in itertools.combinations(sorted(contents), 2):
        (damaged / one).write_bytes(contents[other])
        (damaged / other).write_bytes(contents[one])
        sentence(damaged)
        (damaged / one).write_bytes(contents[one])
        (damaged / other).write_bytes(contents[other])
    read_all(damaged)


def test_a_single_file_cut_or_with_a_flipped_bit(damaged: Path) -> None:
    expected = {
        name: hashlib.sha256(read_all(damaged).read(name)).digest() for name in read_all(damaged).manifest.files
    }
    path = damaged.with_name("damaged.qab.zip")
    copy_bundle(damaged, path)
    whole = path.read_bytes()
    for size in places(len(whole), 10 * CUTS):
        path.write_bytes(whole[:size])
        sentence(path)
    path.write_bytes(whole)
    # Dates and the like mean nothing to a bundle: where a flip is not refused, all files read as they were.
    ends = [*range(200), *range(len(whole) - 1_000, len(whole))] if len(whole) > 10_000 else []
    refused = 0
    flips = sorted({*places(len(whole), 10 * FLIPS), *ends})
    with path.open("r+b") as stream:
        for number, place in enumerate(flips):
            stream.seek(place)
            stream.write(bytes([whole[place] ^ 1 << number % 8]))
            stream.flush()
            try:
                bundle = read_all(path)
                assert {name: hashlib.sha256(bundle.read(name)).digest() for name in bundle.manifest.files} == expected
            except QaEdgeError as error:
                assert "\n" not in str(error) and len(str(error)) < 500
                refused += 1
            stream.seek(place)
            stream.write(whole[place : place + 1])
            stream.flush()
    assert refused > len(flips) * 0.8, (refused, len(flips))


def test_files_swapped_with_their_records(copied_path: Path) -> None:
    """With all hashes right, what a file holds is no longer what its name says."""
    contents = {name: (copied_path / name).read_bytes() for name in tiny_files()}
    parsed = {"tokenizer.json", "vocabulary.json", "cases.json", "table.npy", "table_scales.npy"}
    for one, other in itertools.combinations(sorted(contents), 2):
        if not {one, other} & parsed:
            continue  # graphs alone: engines refuse those, and tests/runtime/test_engine.py has them
        put(copied_path, one, contents[other])
        put(copied_path, other, contents[one])
        with watched(copied_path):
            sentence(copied_path)
        put(copied_path, one, contents[one])
        put(copied_path, other, contents[other])
    read_all(copied_path)


VALUES: list[Any] = [None, True, 0, -1, 0.5, 1e308, 10**12, 10**18, "", "x", "../x", "\u202e\n\0", [], {}, [[]], [{}]]
VALUES += [{"a": [{}]}, ["x"] * 1_000, "x" * 100_000]


def every_path(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of some JSON stands."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from every_path(value[key], (*path, key))


def changed(whole: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    copy = json.loads(json.dumps(whole))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return copy


def damages(whole: Any) -> Iterator[Any]:
    """Some JSON with every one of its values replaced by several others, or taken away."""
    values = itertools.cycle(VALUES)
    for path in every_path(whole):
        yield changed(whole, path, lambda parent, key: parent.pop(key))
        # A third of them at each place, another third at the next: places that are read alike are many.
        for value in itertools.islice(values, len(VALUES) // 3):
            yield changed(whole, path, lambda parent, key, value=value: parent.__setitem__(key, value))


def test_wrong_kinds_everywhere_in_the_manifest(copied_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, or shown: what the runtime does not read may be anything."""
    file, shown = copied_path / "manifest.json", 0
    whole = json.loads(file.read_text(encoding="utf-8"))
    fit = {"temperature": 1.5, "expected_calibration_error": 0.1, "questions": 9, "no_answer_below": 0.25}
    whole = {**whole, "probability": fit, "scores": {"exact_match": 70, "f1": 80.5, "total": 9}}
    for number, manifest in enumerate(damages(whole)):
        file.write_bytes(seal(manifest) if isinstance(manifest, dict) else json.dumps(manifest).encode())
        if number % 50 == 0:
            with watched(copied_path):
                shown += 1 - main(["info", str(copied_path)])
        else:
            shown += 1 - main(["info", str(copied_path)])
        said = capsys.readouterr()
        assert said.out or said.err.count("\n") == 1, manifest
    assert shown


@pytest.mark.parametrize("name", ["tokenizer.json", "vocabulary.json", "cases.json"])
def test_wrong_kinds_everywhere_in_what_hashes_protect(copied_path: Path, name: str) -> None:
    whole = json.loads(tiny_files()[name])
    for number, content in enumerate(damages(whole)):
        put(copied_path, name, json.dumps(content).encode())
        if number % 50 == 0:
            with watched(copied_path):
                read_or_refuse(copied_path)
        else:
            read_or_refuse(copied_path)


def read_or_refuse(path: Path) -> None:
    try:
        read_all(path)
    except QaEdgeError as error:
        assert "\n" not in str(error) and len(str(error)) < 500


DEEP = [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
BOMBS = [
    *DEEP,
    b'{"format_version": ' + DEEP[1] + b"}",
    b"9" * 900_000,
    b'{"format_version": 1e999999999}',
    b"-" * 900_000,
    b'"' + b"\\" * 900_000,
    b"[" + b'"\\' * 450_000,
    b"\xf0\x9f" * 450_000,
    b'{"format_version": 1, "format_version": 1}',
    b"[" + b"[]," * 300_000 + b"1]",
    b"{" + b"".join(b'"%d":1,' % number for number in range(80_000)) + b'"79999":2}',
]


@pytest.mark.parametrize("number", range(len(BOMBS)))
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "vocabulary.json", "cases.json"])
def test_json_that_is_made_to_harm(copied_path: Path, name: str, number: int) -> None:
    if name == "manifest.json":
        (copied_path / name).write_bytes(BOMBS[number])
    else:
        put(copied_path, name, BOMBS[number])
    with watched(copied_path):
        sentence(copied_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocabulary.json", "cases.json"])
def test_files_beyond_reason_are_not_read_though_their_hash_is_right(copied_path: Path, name: str) -> None:
    put(copied_path, name, b" " * (9 << 20))
    with watched(copied_path):
        assert f"{name} has more than" in sentence(copied_path)


@pytest.mark.parametrize(
    "table",
    [
        {"rows": 10**12},
        {"rows": 10**9},
        {"rows": 10**9, "hidden": 65_536, "group_size": 65_536},
        {"hidden": 10**12},
        {"group_size": 10**12},
        {"rows": -1},
        {"rows": 1e9},
        {"rows": "10"},
    ],
)
def test_absurd_sizes_of_the_table(copied_path: Path, table: dict[str, Any]) -> None:
    change_manifest(copied_path, lambda manifest: manifest["table"].update(table))
    with watched(copied_path):
        sentence(copied_path)


@pytest.mark.parametrize("name", sorted(tiny_files()))
@pytest.mark.parametrize("size", [10**15, 10**18, 0, 1])
def test_absurd_sizes_of_files(copied_path: Path, name: str, size: int) -> None:
    change_manifest(copied_path, lambda manifest: manifest["files"][name].update(size_bytes=size))
    with watched(copied_path):
        assert f"{name} has " in sentence(copied_path)


@pytest.mark.parametrize("shape", ["(10000000000, 6)", "(10, 10000000000)", "(0, 0)", "(10, 6, 1)", "(60,)", "()"])
def test_absurd_shapes_in_a_table_whose_hash_is_right(copied_path: Path, shape: str) -> None:
    raw = npy(np.zeros((10, 6), np.int8)).replace(b"(10, 6)", shape.encode())
    for name in ("table.npy", "table_scales.npy"):
        put(copied_path, name, raw)
        with watched(copied_path):
            assert name in sentence(copied_path)
        put(copied_path, name, tiny_files()[name])


@pytest.mark.parametrize(
    "tables",
    [
        {"prefix": "(" * 100_000},
        {"prefix": "(" * 50_000 + ")" * 50_000},
        {"suffix": "a{1,99999999999}"},
        {"infix": "(?P<a>x)(?P<a>y)"},
        {"url": "[" + "a" * 10_000},
        {"token_match": "(?<=a+)b"},
        {"exceptions": {"a" * 100_000: ["a"]}},
        {"exceptions": {"ab": ["a", "b", ""]}},
    ],
)
def test_tokenizer_tables_that_are_made_to_harm(copied_path: Path, tables: dict[str, Any]) -> None:
    put(copied_path, "tokenizer.json", json.dumps({**TOKENIZER, **tables}).encode())
    with watched(copied_path):
        assert "tokenizer.json" in sentence(copied_path)


def test_exceptions_that_begin_alike_are_read_in_time(copied_path: Path) -> None:
    """Many of them, which is odd but not wrong."""
    exceptions = {f"(({number}": [f"(({number}"] for number in range(100_000)}
    put(copied_path, "tokenizer.json", json.dumps({**TOKENIZER, "exceptions": exceptions}).encode())
    began = time.process_time()
    assert [token.text for token in read_all(copied_path).tokenizer()("((7 ((x")] == ["((7", "(", "(", "x"]
    assert time.process_time() - began < SECONDS


def test_a_checksum_of_another_length_makes_nothing_grow(copied_path: Path) -> None:
    manifest = {"format_version": 2, "name": "a" * 1_000_000, "manifest_sha256": "a"}
    (copied_path / "manifest.json").write_bytes(json.dumps(manifest).encode())
    tracemalloc.start()
    assert "has changed since it was exported" in sentence(copied_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6, peak


@pytest.mark.parametrize(
    "words", [[*WORDS[:-1], WORDS[0]], [*WORDS[:-1], ""], [*WORDS[:-1], 7], [*WORDS, "one"], [], {}, "words", [[]] * 9]
)
def test_vocabularies_that_do_not_fit(copied_path: Path, words: Any) -> None:
    content = {"format_version": 1, "words": words, "characters": CHARACTERS}
    put(copied_path, "vocabulary.json", json.dumps(content).encode())
    with watched(copied_path):
        assert "vocabulary.json" in sentence(copied_path)


@pytest.mark.parametrize("name", ["../outside.npy", "/etc/passwd", "..", "a/../../b", "C:\\x", ".."])
@pytest.mark.parametrize("single", [False, True])
def test_nothing_outside_of_the_bundle_is_read(copied_path: Path, name: str, single: bool) -> None:
    outside = copied_path.parent / "outside.npy"
    outside.write_bytes(tiny_files()["table.npy"])
    record = {"sha256": hashlib.sha256(outside.read_bytes()).hexdigest(), "size_bytes": outside.stat().st_size}

    def lead_out(manifest: dict[str, Any]) -> None:
        manifest["table"]["file"] = name
        manifest["files"][name] = record

    change_manifest(copied_path, lead_out)
    path = copied_path
    if single:
        stream = io.BytesIO()
        files = {file.name: file.read_bytes() for file in copied_path.iterdir()}
        write_archive(stream, [*files.items(), (name, outside.read_bytes())])
        path = copied_path.with_name("single.zip")
        path.write_bytes(stream.getvalue())
    with watched(path):
        assert "is not a plain file name" in sentence(path)
