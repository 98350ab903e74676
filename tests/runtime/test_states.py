from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import CHARACTER_TABLE, HIDDEN, UNKNOWN, WIDTH, WORDS, graph_spec, npy, token_graph, write_tiny_bundle

from qa_edge_runtime import states as states_module
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle, TableSpec
from qa_edge_runtime.errors import EngineError
from qa_edge_runtime.onnx_engine import OnnxEngine
from qa_edge_runtime.states import TokenStates

TOKENS = st.lists(st.sampled_from([*"abcdefgh", "the", "The", "THE", "paris", "Paris", "switch"]), max_size=12)


class CountingEngine:
    """The token graph in numpy; remembers how many tokens each call had."""

    name, version = "numpy", "0"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (ids,) = inputs.values()
        assert ids.dtype == np.int32
        self.calls.append(len(ids))
        return {"states": UNKNOWN + CHARACTER_TABLE[ids].mean(axis=1)}


def token_states(path: Path, capacity: int, engine: CountingEngine | None = None) -> TokenStates:
    bundle = Bundle.open(path)
    chosen = engine or OnnxEngine(token_graph(), graph_spec("token"))
    return TokenStates(bundle.vocabulary(), bundle.table, chosen, capacity=capacity)


def test_known_words_come_from_the_table_and_need_no_graph(tiny_path: Path) -> None:
    engine = CountingEngine()
    states = token_states(tiny_path, 10, engine)
    found = states([*WORDS, "THE", *WORDS])
    assert found[1:] == (len(WORDS) + 1, 0, 0)
    assert engine.calls == []
    rows = Bundle.open(tiny_path).table.rows(range(1, len(WORDS) + 1))
    np.testing.assert_array_equal(found.states, [*rows, rows[WORDS.index("the")], *rows])


def test_all_unknown_words_of_a_text_go_through_the_graph_in_one_call(tiny_path: Path) -> None:
    engine = CountingEngine()
    states = token_states(tiny_path, 100, engine)
    text = ["the", "lamp", "is", "Lamp", "paris", "lamp"]  # "Paris" is in the table, "paris" is not
    assert states(text)[1:] == (5, 3, 0)
    assert engine.calls == [3]
    assert states([*text, "new"])[1:] == (6, 4, 3)
    assert engine.calls == [3, 1]


def test_states_of_unknown_words_are_those_of_the_graph(tiny_path: Path) -> None:
    vocabulary = Bundle.open(tiny_path).vocabulary()
    tokens = ["lamp", "the", "İ", "x" * 40]
    found = token_states(tiny_path, 10)(tokens).states
    for index in (0, 2, 3):
        expected = UNKNOWN + CHARACTER_TABLE[vocabulary.character_ids([tokens[index]], WIDTH)[0]].mean(axis=0)
        np.testing.assert_allclose(found[index], expected, atol=1e-6)


def test_cache_is_bounded_and_forgets_the_least_recently_used(tiny_path: Path) -> None:
    states = token_states(tiny_path, capacity=3)
    assert states(["a", "b", "a", "c", "the"])[1:] == (4, 3, 0)
    assert states(["a"])[1:] == (1, 1, 1)
    states(["d"])  # b was used least recently
    assert len(states) == 3
    assert states(["b"])[1:] == (1, 1, 0)
    assert states(["a", "d"])[1:] == (2, 2, 2)
    states([f"word{number}" for number in range(100)])
    assert len(states) == 3


@given(texts=st.lists(TOKENS, max_size=8), capacity=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_remembered_states_are_the_computed_ones(tiny_path: Path, texts: list[list[str]], capacity: int) -> None:
    states, fresh = token_states(tiny_path, capacity), token_states(tiny_path, 0)
    for tokens in texts:
        found = states(tokens)
        assert 0 <= found.remembered <= found.unknown <= found.distinct == len(set(tokens))
        np.testing.assert_allclose(found.states, fresh(tokens).states, atol=1e-6)
        assert len(states) <= capacity


def test_long_tokens_are_not_remembered(tiny_path: Path) -> None:
    states = token_states(tiny_path, capacity=10)
    states(["x" * 10_000])
    assert len(states) == 0


def test_many_tokens_go_through_the_graph_in_several_calls(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [f"word{number % 70}" for number in range(100)]
    whole = token_states(tiny_path, capacity=10)(tokens).states
    monkeypatch.setattr(states_module, "TOKENS_PER_CALL", 8)
    engine = CountingEngine()
    parts = token_states(tiny_path, capacity=10, engine=engine)(tokens)
    assert parts[1:] == (70, 70, 0)
    assert engine.calls == [8] * 8 + [6]
    np.testing.assert_allclose(parts.states, whole, atol=1e-6)


def test_prepared_tokens_are_found_remembered(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "TOKENS_PER_CALL", 8)
    engine = CountingEngine()
    states = token_states(tiny_path, capacity=40, engine=engine)
    tokens = [*WORDS, *(f"word{number % 20}" for number in range(60)), "x" * 100]
    assert states.prepare(iter(tokens)) == 20
    assert engine.calls == [8, 8, 4]
    assert states.prepare(tokens) == 0
    found = states(tokens[:-1])
    assert (found.unknown, found.remembered) == (20, 20)
    assert engine.calls == [8, 8, 4]
    np.testing.assert_allclose(found.states, token_states(tiny_path, 0)(tokens[:-1]).states, atol=1e-6)


def test_more_to_prepare_than_can_be_remembered(tiny_path: Path) -> None:
    engine = CountingEngine()
    states = token_states(tiny_path, capacity=4, engine=engine)
    states(["word3", "other"])
    tokens = [f"word{number}" for number in range(10)]
    assert states.prepare(tokens) == 3  # word3 was remembered and stays
    assert len(states) == 4
    assert states(tokens[:4]).remembered == 4
    np.testing.assert_allclose(states(tokens).states, token_states(tiny_path, 0)(tokens).states, atol=1e-6)
    assert token_states(tiny_path, 0, engine).prepare(tokens) == 0


@given(texts=st.lists(TOKENS, max_size=6), capacity=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_preparing_changes_no_state(tiny_path: Path, texts: list[list[str]], capacity: int) -> None:
    states, fresh = token_states(tiny_path, capacity), token_states(tiny_path, 0)
    for tokens in texts:
        assert 0 <= states.prepare(tokens) <= capacity
        np.testing.assert_allclose(states(tokens).states, fresh(tokens).states, atol=1e-6)
        assert len(states) <= capacity


def test_threads_share_the_states(tiny_path: Path) -> None:
    shared = token_states(tiny_path, capacity=5)
    texts = [[f"word{(number + step) % 12}" for step in range(8)] + ["the"] for number in range(12)] * 20
    expected = [token_states(tiny_path, 0)(tokens).states for tokens in texts[:12]]

    def look_up(number: int) -> np.ndarray:
        if number % 3 == 0:
            shared.prepare(texts[number])
        return shared(texts[number]).states

    with ThreadPoolExecutor(6) as pool:
        for number, states in enumerate(pool.map(look_up, range(len(texts)))):
            np.testing.assert_allclose(states, expected[number % 12], atol=1e-6)
    assert len(shared) <= 5


def test_a_graph_that_gives_another_shape(tiny_path: Path, tmp_path: Path) -> None:
    class Short(CountingEngine):
        def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"states": np.zeros((1, HIDDEN), np.float32)}

    with pytest.raises(EngineError, match=r"shape \(1, 6\), expected \(2, 6\)"):
        token_states(tiny_path, 10, Short())(["a", "b"])


def test_a_bundle_without_words_answers_by_characters_alone(tmp_path: Path) -> None:
    empty = {
        "vocabulary.json": b'{"format_version": 1, "words": [], "characters": ["a"]}',
        "table.npy": npy(np.zeros((1, HIDDEN), np.float32)),
    }
    spec = TableSpec(dtype="float32", rows=1, hidden=HIDDEN, group_size=HIDDEN)
    write_tiny_bundle(tmp_path / "none.qab", files=empty, dtype="float32", group_size=HIDDEN, table=spec)
    with Answerer.load(tmp_path / "none.qab") as answerer:
        assert answerer.answer("a?", "b a").text
