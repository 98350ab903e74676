"""The reader of word vectors: what it keeps, what it refuses and the line that it names."""

from __future__ import annotations

import gzip
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_edge import vectors as module
from qa_edge.vectors import read_vectors
from qa_edge_runtime.errors import DataError, InputError

SAMPLE = "the 0.1 -0.2 3\n, 1e-3 .5 -4.\nThe 1 2 3\nfour 4 4 4\n"


def write_plain(folder: Path, raw: bytes) -> Path:
    (folder / "vectors.txt").write_bytes(raw)
    return folder / "vectors.txt"


def write_gzip(folder: Path, raw: bytes) -> Path:
    (folder / "vectors.txt.gz").write_bytes(gzip.compress(raw))
    return folder / "vectors.txt.gz"


def write_zip(folder: Path, raw: bytes) -> Path:
    with zipfile.ZipFile(folder / "vectors.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.txt", raw)
    return folder / "vectors.zip"


writers = pytest.mark.parametrize("write", [write_plain, write_gzip, write_zip])
Writer = Callable[[Path, bytes], Path]


@writers
def test_wanted_words_in_file_order(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, SAMPLE.encode())
    vectors = read_vectors(path, {"four", ",", "the", "absent", "FOUR"})
    assert vectors.words == ("the", ",", "four")
    assert vectors.array.dtype == np.float32
    expected = np.array([[0.1, -0.2, 3], [1e-3, 0.5, -4], [4, 4, 4]], dtype=np.float32)
    np.testing.assert_array_equal(vectors.array, expected)
    assert (vectors.dim, vectors.lines) == (3, 4)


def test_reading_shows_progress_over_the_file_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[int]]] = []

    @contextmanager
    def watched(description: str, total: int) -> Iterator[Callable[[int], None]]:
        seen.append((total, []))
        yield seen[-1][1].append

    monkeypatch.setattr(module, "progress", watched)
    noise = random.Random(0)
    raw = "".join(f"w{n} {noise.random()} {noise.random()}\n" for n in range(90_000)).encode()
    for write in (write_plain, write_gzip, write_zip):
        path = write(tmp_path, raw)
        assert read_vectors(path, {"w7"}).lines == 90_000
        total, steps = seen.pop()
        assert total == -(-path.stat().st_size // (1 << 20)) > 1 and sum(steps) == total and min(steps) >= 0


@writers
def test_no_wanted_word_still_checks_and_measures_the_file(tmp_path: Path, write: Writer) -> None:
    vectors = read_vectors(write(tmp_path, SAMPLE.encode()), [])
    assert vectors.words == ()
    assert vectors.array.shape == (0, 3)
    assert vectors.lines == 4


def test_the_kind_of_file_is_told_by_its_bytes_not_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(gzip.compress(SAMPLE.encode()))
    assert read_vectors(path, {"the"}).words == ("the",)
    (tmp_path / "plain.gz").write_bytes(SAMPLE.encode())
    assert read_vectors(tmp_path / "plain.gz", {"the"}).words == ("the",)
    (tmp_path / "pk.txt").write_bytes(b"PKK 1 2\nKurds 3 4\n")
    assert read_vectors(tmp_path / "pk.txt", {"PKK"}).words == ("PKK",)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a 1 2\nb 3 4", ("a", "b")),  # no line feed at the end
        (b"a 1 2\r\nb 3 4\r\n", ("a", "b")),
        (b"a 1 2 \nb 3 4 \n", ("a", "b")),  # fastText's space at the end
        (b"a\t1\t2\nb\t3\t4\n", ("a", "b")),
        (b"a\t1 2\nb\t3 4\n", ("a", "b")),  # a tab behind the word only
        (b"a 1 2\nb 3 4\n\n\n", ("a", "b")),
        (b"\xef\xbb\xbfa 1 2\nb 3 4\n", ("a", "b")),  # byte order mark
        (b"2 2\na 1 2\nb 3 4\n", ("a", "b")),  # word2vec's header
        (b"a 1 2\nb 3 4\na 5 6\n", ("a", "b")),  # the first of two
    ],
)
def test_variants_of_the_format(tmp_path: Path, raw: bytes, words: tuple[str, ...]) -> None:
    for dim in (None, 2):
        vectors = read_vectors(write_plain(tmp_path, raw), {"a", "b"}, dim)
        assert vectors.words == words
        np.testing.assert_array_equal(vectors.array, [[1, 2], [3, 4]])


def test_words_may_hold_spaces_and_odd_line_separators(tmp_path: Path) -> None:
    words = [",", ". . .", "at name@domain.com", "\u00a0", "a\u0085b", "\u2028", "x\u3000y", "1/2", "2nd 1st", "-"]
    path = write_plain(tmp_path, "".join(f"{word} 1 2 {n}\n" for n, word in enumerate(words)).encode())
    for dim in (None, 3):
        vectors = read_vectors(path, words, dim)
        assert list(vectors.words) == words
        assert vectors.array[:, 2].tolist() == list(range(len(words)))


def test_words_that_are_numbers(tmp_path: Path) -> None:
    vectors = read_vectors(write_plain(tmp_path, b"1 0.5 2\n2000 3 4\nnan 5 6\n"), {"1", "2000", "nan"})
    assert vectors.words == ("1", "2000", "nan")


def test_vectors_of_one_number(tmp_path: Path) -> None:
    path = write_plain(tmp_path, b"5 3\na 4\n")
    assert read_vectors(path, {"5", "a"}, 1).words == ("5", "a")


@writers
@pytest.mark.parametrize(
    ("raw", "line", "part"),
    [
        (b"a 1 2\nb 3\n", 2, "1 numbers"),
        (b"a 1 2\nb 3 4 5\n", 2, "3 numbers"),
        (b"a 1 2\nb\n", 2, "0 numbers"),
        (b"a 1 2\nb 3  4\n", 2, "broken"),
        (b"a 1 2\nb x 4\n", 2, "'x'"),
        (b"a 1 2\nb 1_0 4\n", 2, "'1_0'"),
        (b"a 1 2\nb 3 infinity\n", 2, "'infinity'"),
        (b"a 1 2\nb 3 nan\n", 2, "NaN"),
        (b"a 1 2\nb -inf 4\n", 2, "NaN"),
        (b"a 1 2\nb 3 1e39\n", 2, "float32"),
        (b"a 1 2\n 3 4\n", 2, "no word"),
        (b"a 1 2\n\nb 3 4\n", 2, "blank"),
        (b"a 1 2\nb\xff 3 4\n", 2, "UTF-8"),
        (b"a 1 2\n\xed\xa0\x80 3 4\n", 2, "UTF-8"),
        (b"<!DOCTYPE html>\n<html>\n", 1, "number"),
        (b"\n\na 1 2\n", 1, "blank"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, write: Writer, raw: bytes, line: int, part: str) -> None:
    path = write(tmp_path, raw)
    with pytest.raises(DataError) as caught:
        read_vectors(path, {"a", "b"})
    message = str(caught.value)
    assert f"line {line} " in message and part in message and str(path) in message
    assert "\n" not in message


def test_the_number_counts_the_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 "):
        read_vectors(write_plain(tmp_path, b"2 2\na 1 2\nb 3\n"), {"a"})


@pytest.mark.parametrize("dim", [2, 4, 50])
def test_another_dimension_than_expected(tmp_path: Path, dim: int) -> None:
    with pytest.raises(DataError, match=f"line 1 .*3 numbers; expected a word and {dim} numbers"):
        read_vectors(write_plain(tmp_path, SAMPLE.encode()), {"the"}, dim)
    with pytest.raises(DataError, match=f"3 numbers a word .line 1.; expected {dim}"):
        read_vectors(write_plain(tmp_path, b"4 3\n" + SAMPLE.encode()), {"the"}, dim)


def test_a_header_that_announces_other_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="announces 5 words in line 1 and has 4"):
        read_vectors(write_plain(tmp_path, b"5 3\n" + SAMPLE.encode()), {"the"})
    with pytest.raises(DataError, match="announces vectors of 0 numbers"):
        read_vectors(write_plain(tmp_path, b"5 0\n"), {"the"})


@writers
@pytest.mark.parametrize("raw", [b"", b"\n", b" \n\n", b"0 3\n"])
def test_an_empty_file(tmp_path: Path, write: Writer, raw: bytes) -> None:
    with pytest.raises(DataError, match="is empty"):
        read_vectors(write(tmp_path, raw), {"the"})


def test_missing_file_folder_and_wrong_dimension(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_vectors(tmp_path / "nowhere.txt", {"the"})
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(tmp_path, {"the"})
    with pytest.raises(InputError, match="1 or more"):
        read_vectors(write_plain(tmp_path, SAMPLE.encode()), {"the"}, 0)


@pytest.mark.parametrize("write", [write_gzip, write_zip])
def test_every_cut_of_a_packed_file_is_refused(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, SAMPLE.encode())
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_vectors(path, {"the"})


@pytest.mark.parametrize("write", [write_gzip, write_zip])
def test_a_changed_byte_is_a_clear_error_or_harmless(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, SAMPLE.encode() * 3)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            vectors = read_vectors(path, {"the"})
        except DataError:
            continue
        assert vectors.array.tolist() == [[np.float32(0.1), np.float32(-0.2), 3]]


def test_a_zip_with_several_members(tmp_path: Path) -> None:
    path = tmp_path / "vectors.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("glove/", b"")
        archive.writestr("glove/README.md", b"about")
        archive.writestr("__MACOSX/glove/._vectors.txt", b"rubbish")
        archive.writestr("glove/vectors.txt", SAMPLE)
    assert read_vectors(path, {"The"}).words == ("The",)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("glove/more.txt", SAMPLE)
    with pytest.raises(DataError, match=r"glove/vectors\.txt, glove/more\.txt"):
        read_vectors(path, {"The"})


def test_a_zip_member_without_a_name_is_no_stack_trace(tmp_path: Path) -> None:
    path = write_zip(tmp_path, SAMPLE.encode())
    path.write_bytes(path.read_bytes().replace(b"vectors.txt", b"\0ectors.txt"))
    with pytest.raises(DataError):
        read_vectors(path, {"the"}, 4)


def test_a_zip_without_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vectors.zip", "w"):
        pass
    with pytest.raises(DataError, match="0 members"):
        read_vectors(tmp_path / "vectors.zip", {"The"})


def test_a_file_without_lines_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="line 1 is longer"):
        read_vectors(path, {"the"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_memory_is_bounded_by_the_wanted_words(tmp_path: Path) -> None:
    line = " ".join(["0.1234"] * 100)
    path = write_plain(tmp_path, "".join(f"w{n} {line}\n" for n in range(20_000)).encode())  # 14 MB
    tracemalloc.start()
    vectors = read_vectors(path, {"w7", "w19999"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert vectors.words == ("w7", "w19999")
    assert peak < 8 << 20


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        stream.write(SAMPLE.encode())
    try:
        assert read_vectors(f"/dev/fd/{reading}", {"four"}).words == ("four",)
    finally:
        os.close(reading)


word_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n "), min_size=1, max_size=8)
tables = st.integers(2, 6).flatmap(
    lambda dim: st.dictionaries(
        word_texts.filter(lambda word: not word.startswith("\ufeff")),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=dim, max_size=dim),
        min_size=1,
        max_size=12,
    )
)


@given(tables, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[float]], choice: random.Random, header: bool
) -> None:
    dim = len(next(iter(table.values())))
    lines = [" ".join([word, *map(repr, values)]) + "\n" for word, values in table.items()]
    text = (f"{len(table)} {dim}\n" if header else "") + "".join(lines)
    path = tmp_path_factory.mktemp("vectors") / "out.txt"
    path.write_bytes(text.encode())
    wanted = [word for word in table if choice.random() < 0.6]
    vectors = read_vectors(path, wanted)
    assert list(vectors.words) == wanted
    expected = np.array([table[word] for word in wanted], dtype=np.float32).reshape(len(wanted), dim)
    np.testing.assert_array_equal(vectors.array, expected)
    assert (vectors.dim, vectors.lines) == (dim, len(table))


@pytest.mark.slow
def test_glove() -> None:
    folder = os.environ.get("QA_EDGE_DATA")
    if not folder:
        pytest.skip("QA_EDGE_DATA is not set")
    path = Path(folder) / "vectors" / "glove.6B.100d.sub.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        expected = {line.split(" ", 1)[0]: line for line in stream}
    vectors = read_vectors(path, expected.keys(), 100)
    assert vectors.lines == len(vectors.words) == len(expected) == 159_724
    for row in range(0, len(vectors.words), 997):
        values = expected[vectors.words[row]].split(" ")[1:]
        np.testing.assert_array_equal(vectors.array[row], np.array(values, dtype=np.float32))
