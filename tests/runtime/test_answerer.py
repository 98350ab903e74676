from __future__ import annotations

import doctest
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_bundle import (
    CHARACTER_TABLE,
    END,
    HIDDEN,
    PROJECTION,
    TABLE,
    WIDTH,
    core_graph,
    graph_specs,
    token_graph,
    write_tiny_bundle,
)

import qa_edge_runtime
from qa_edge_runtime import states as states_module
from qa_edge_runtime.answerer import Answerer, StageTimes
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.engine import OnnxEngine
from qa_edge_runtime.errors import BundleError, EngineError, InputError
from qa_edge_runtime.questions import load_squad_questions
from qa_edge_runtime.states import TokenStates

QUESTION = "Where is the main switch?"
CONTEXT = "The main switch is behind the grey panel. The panel is in the hall, next to the stairs."
CONTEXT_TOKENS = CONTEXT.replace(".", " .").replace(",", " ,").split()

# White space of all kinds, joiners, marks that combine, surrogate-pair emoji, right-to-left text, quotes, affixes.
NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(" \t\n\r\v\f\x1c\x1f\x85\xa0\u2003\u2028\u200b\u200d\u3000\ufeff.,?!()'\"-ab"),
        st.sampled_from("e\u0301👩\u200d🔬🏽ابن日本İßŉ\ud800"),
    ),
    max_size=60,
)


def expected_logits(bundle: Bundle, question: str, context: str) -> tuple[np.ndarray, np.ndarray]:
    """The tiny graphs worked out in numpy, token by token."""
    vocabulary, tokenizer = bundle.vocabulary(), bundle.tokenizer()

    def states(text: str) -> np.ndarray:
        rows = []
        for token in tokenizer(text):
            vector = TABLE[vocabulary.word_id(token.text)].astype(np.float32) @ PROJECTION
            rows.append(vector + CHARACTER_TABLE[vocabulary.character_ids([token.text], WIDTH)[0]].mean(axis=0))
        return np.array(rows)

    asked = states(question).mean(axis=0)
    return states(context) @ asked, states(context) @ END @ asked


def test_logits_are_those_of_the_graphs(answerer: Answerer) -> None:
    start, end, tokens = answerer.logits(QUESTION, CONTEXT)
    expected_start, expected_end = expected_logits(answerer.bundle, QUESTION, CONTEXT)
    assert [token.text for token in tokens][:4] == ["The", "main", "switch", "is"]
    np.testing.assert_allclose(start, expected_start, atol=1e-4)
    np.testing.assert_allclose(end, expected_end, atol=1e-4)


def test_answers_are_the_best_spans_by_brute_force(answerer: Answerer) -> None:
    start, end, tokens = answerer.logits(QUESTION, CONTEXT)
    longest = answerer.bundle.manifest.max_answer_tokens
    logits = {
        (first, last): float(start[first]) + float(end[last])
        for first in range(len(tokens))
        for last in range(first, min(first + longest, len(tokens)))
    }
    best = sorted(logits, key=lambda span: -logits[span])[:4]
    whole = sum(np.exp(value) for value in logits.values())
    answers = answerer.answers(QUESTION, CONTEXT, top_k=4)
    assert [(answer.start, answer.end) for answer in answers] == [(tokens[a].start, tokens[b].end) for a, b in best]
    assert [answer.logit for answer in answers] == pytest.approx([logits[span] for span in best])
    assert [answer.score for answer in answers] == pytest.approx([np.exp(logits[span]) / whole for span in best])


@given(question=NASTY.filter(lambda text: text.strip()), context=NASTY.filter(lambda text: text.strip()))
@example(question="?", context="\n\n a \n\n")
@example(question="?", context="\u2003x")
@example(question=" ?", context="x\r\n")
@example(question="can't", context="(:)")
@settings(max_examples=300, deadline=None)
def test_answer_is_a_piece_of_the_context(answerer: Answerer, question: str, context: str) -> None:
    answers = answerer.answers(question, context, top_k=5)
    assert answers
    for answer in answers:
        assert context[answer.start : answer.end] == answer.text
        assert answer.text == answer.text.strip() != ""
        assert 0.0 <= answer.score <= 1.0
    assert len({(answer.start, answer.end) for answer in answers}) == len(answers)
    assert [answer.logit for answer in answers] == sorted((answer.logit for answer in answers), reverse=True)
    assert answerer.answer(question, context) == answers[0]


@pytest.mark.slow
def test_answers_of_real_questions_are_pieces_of_their_contexts(tmp_path: Path) -> None:
    """All of SQuAD's development set, from QA_EDGE_DATA, with spaCy's own tables and the tiny graphs."""
    data = os.environ.get("QA_EDGE_DATA")
    if not data:
        pytest.skip("QA_EDGE_DATA is not set")
    tables = pytest.importorskip("qa_edge_export.tokenizer_tables").build_tokenizer_tables()
    write_tiny_bundle(tmp_path / "real.qab", files={"tokenizer.json": json.dumps(tables).encode()})
    questions = load_squad_questions(Path(data) / "squad" / "dev-v1.1.json")
    assert len(questions) == 10_570
    with Answerer.load(tmp_path / "real.qab") as answerer:
        for _, question, context, _ in questions:
            for answer in answerer.answers(question, context, top_k=3):
                assert context[answer.start : answer.end] == answer.text == answer.text.strip() != ""


def test_white_space_is_never_the_answer(tmp_path: Path) -> None:
    # With logits turned round, or not, one of the two prefers the token of line ends to the words beside it.
    context = "panel \n\n\n switch"
    preferred = []
    for scale in (100.0, -100.0):
        path = tmp_path / f"{scale}.qab"
        write_tiny_bundle(path, files={"core.onnx": core_graph(scale=scale)}, max_answer_tokens=1)
        with Answerer.load(path) as answerer:
            for question in ("panel", "switch", "grey", "behind", "the", "Where"):
                start, end, tokens = answerer.logits(question, context)
                preferred.append(tokens[int(np.argmax(start + end))].text.isspace())
                answers = answerer.answers(question, context, top_k=9)
                assert sorted(answer.text for answer in answers) == ["panel", "switch"]
                assert answerer.answer(question, context) == answers[0]
    assert any(preferred), "no logits here prefer white space: the test shows nothing"


def test_top_k_gives_fewer_where_there_are_fewer(answerer: Answerer) -> None:
    assert [answer.text for answer in answerer.answers("?", "one", top_k=10)] == ["one"]
    assert len(answerer.answers("?", "one two", top_k=10)) == 3


@pytest.mark.parametrize("wrong", ["", " ", "\n\t ", "\u3000", None, 7, b"bytes", ["text"]])
def test_empty_blank_and_other_than_text(answerer: Answerer, wrong: Any) -> None:
    for noun, arguments in (("question", (wrong, CONTEXT)), ("context", (QUESTION, wrong))):
        for ask in (answerer.answer, answerer.answers, answerer.logits):
            with pytest.raises(InputError, match=f"^the {noun} is ") as caught:
                ask(*arguments)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("top_k", [0, -1, 1.0, True, None])
def test_top_k_out_of_range(answerer: Answerer, top_k: Any) -> None:
    with pytest.raises(InputError, match="top_k"):
        answerer.answers(QUESTION, CONTEXT, top_k=top_k)


def test_many_questions_are_answered_as_one_by_one(answerer: Answerer) -> None:
    questions = [QUESTION, "What is grey?", "Who?"]
    assert answerer.answer_many(questions, CONTEXT) == [answerer.answer(question, CONTEXT) for question in questions]
    assert answerer.answer_many([], CONTEXT) == []
    with pytest.raises(InputError, match="list"):
        answerer.answer_many(QUESTION, CONTEXT)


def test_long_context_goes_through_whole(answerer: Answerer) -> None:
    context = " ".join(f"word{number}" for number in range(3_000))
    start, _, tokens = answerer.logits(QUESTION, context)
    assert len(start) == len(tokens) == 3_000
    expected, _ = expected_logits(answerer.bundle, QUESTION, context)
    np.testing.assert_allclose(start, expected, atol=1e-4)


def test_answer_does_not_depend_on_what_is_remembered(tiny_path: Path) -> None:
    for capacity in (0, 1, 5, 20_000):
        with Answerer.load(tiny_path, cache_tokens=capacity) as answerer:
            first = answerer.answers(QUESTION, CONTEXT)
            again = answerer.answers(QUESTION, CONTEXT)
            answerer.forget()
            for one, other in ((first, again), (first, answerer.answers(QUESTION, CONTEXT))):
                assert [answer.text for answer in one] == [answer.text for answer in other]
                assert [a.logit for a in one] == pytest.approx([a.logit for a in other], abs=1e-5)


def token_states(bundle: Bundle, capacity: int) -> TokenStates:
    engine = OnnxEngine(token_graph(), role="token", spec=graph_specs()["token"])
    return TokenStates(bundle.vocabulary(), bundle.table, engine, hidden=HIDDEN, capacity=capacity)


def test_cache_is_bounded_and_forgets_the_least_recently_used(tiny_path: Path) -> None:
    states = token_states(Bundle.open(tiny_path), capacity=3)
    assert states(["a", "b", "a", "c"])[1:] == (3, 0)
    assert states(["a"])[1:] == (1, 1)
    states(["d"])  # b was used least recently
    assert len(states) == 3
    assert states(["b"])[1:] == (1, 0)
    assert states(["a", "d"])[1:] == (2, 2)
    states([f"word{number}" for number in range(100)])
    assert len(states) == 3


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=8), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_remembered_states_are_the_computed_ones(tiny_path: Path, texts: list[list[str]], capacity: int) -> None:
    bundle = Bundle.open(tiny_path)
    states, fresh = token_states(bundle, capacity), token_states(bundle, 0)
    for tokens in texts:
        np.testing.assert_allclose(states(tokens)[0], fresh(tokens)[0], atol=1e-6)
        assert len(states) <= capacity


def test_long_tokens_are_not_remembered(tiny_path: Path) -> None:
    states = token_states(Bundle.open(tiny_path), capacity=10)
    states(["x" * 10_000])
    assert len(states) == 0


def test_many_tokens_go_through_the_graph_in_several_calls(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [f"word{number % 70}" for number in range(100)]
    whole, _, _ = token_states(Bundle.open(tiny_path), capacity=10)(tokens)
    monkeypatch.setattr(states_module, "TOKENS_PER_CALL", 8)
    parts, distinct, _ = token_states(Bundle.open(tiny_path), capacity=10)(tokens)
    assert distinct == 70
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_threads_get_the_answers_of_one(tiny_path: Path) -> None:
    contexts = [" ".join(f"w{(number * step) % 97}" for number in range(60)) for step in range(1, 25)]
    with Answerer.load(tiny_path) as alone:
        expected = [alone.answer(QUESTION, context) for context in contexts]
    # A cache that is always full, and a start at the same moment, make the threads meet.
    barrier = threading.Barrier(6)
    with Answerer.load(tiny_path, cache_tokens=40) as shared:

        def ask(offset: int) -> list[Any]:
            barrier.wait()
            return [shared.answer(QUESTION, context) for context in contexts[offset:] + contexts[:offset]]

        with ThreadPoolExecutor(6) as pool:
            for offset, answers in enumerate(pool.map(ask, range(6))):
                for answer, wanted in zip(answers, expected[offset:] + expected[:offset], strict=True):
                    assert (answer.start, answer.end) == (wanted.start, wanted.end)
                    assert answer.logit == pytest.approx(wanted.logit, abs=1e-5)


def test_observer_sees_every_question(tiny_path: Path) -> None:
    seen: list[StageTimes] = []
    with Answerer.load(tiny_path, observer=seen.append) as answerer:
        answerer.answer(QUESTION, CONTEXT)
        answerer.answer(QUESTION, CONTEXT)
        answerer.answer_many([QUESTION, QUESTION], CONTEXT)
    assert len(seen) == 4
    assert seen[0].remembered_tokens == 0 < seen[0].distinct_tokens
    assert all(times.remembered_tokens == times.distinct_tokens for times in seen[1:])
    for times in seen:
        stages = (times.tokenise_ms, times.look_up_ms, times.infer_ms, times.decode_ms)
        assert min(stages) > 0
        assert times.total_ms == pytest.approx(sum(stages))
        assert (times.context_tokens, times.question_tokens) == (len(CONTEXT_TOKENS), 6)


def test_closed_answerer_says_so(tiny_path: Path) -> None:
    answerer = Answerer.load(tiny_path)
    answerer.close()
    answerer.close()
    answerer.forget()
    with pytest.raises(EngineError, match="closed"):
        answerer.answer(QUESTION, CONTEXT)


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "nan.qab", files={"core.onnx": core_graph(scale=float("nan"))})
    with Answerer.load(tmp_path / "nan.qab") as answerer, pytest.raises(BundleError, match="NaN"):
        answerer.answer(QUESTION, CONTEXT)


@pytest.mark.parametrize("cache_tokens", [-1, 1.5, None])
def test_cache_size_out_of_range(tiny_path: Path, cache_tokens: Any) -> None:
    with pytest.raises(InputError, match="cache_tokens"):
        Answerer.load(tiny_path, cache_tokens=cache_tokens)


def test_example_of_the_package_runs(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_path, tmp_path / "first.qab")
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(qa_edge_runtime)
    assert outcome.attempted >= 4
    assert outcome.failed == 0


def test_package_exports_at_most_eight_names_each_with_a_docstring() -> None:
    assert len(qa_edge_runtime.__all__) <= 8
    assert all(getattr(qa_edge_runtime, name).__doc__ for name in qa_edge_runtime.__all__)
