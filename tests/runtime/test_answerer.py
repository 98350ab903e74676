from __future__ import annotations

import doctest
import gc
import itertools
import json
import os
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_bundle import CHARACTER_TABLE, CONTEXT, END, HIDDEN, QUESTION, UNKNOWN, WIDTH, core_graph, write_tiny_bundle

import qa_edge_runtime
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import BundleError, EngineError, InputError
from qa_edge_runtime.positions import position_signal
from qa_edge_runtime.questions import load_squad_questions
from qa_edge_runtime.times import StageTimes

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

    stored = np.load(bundle.path / "table.npy", allow_pickle=False).astype(np.float32)
    scales = np.load(bundle.path / "table_scales.npy", allow_pickle=False).astype(np.float32)
    table = stored * np.repeat(scales, HIDDEN // scales.shape[1], axis=1)

    def states(text: str) -> np.ndarray:
        rows = []
        for token in tokenizer(text):
            word = vocabulary.word_id(token.text)
            characters = vocabulary.character_ids([token.text], WIDTH)[0]
            rows.append(table[word] if word else UNKNOWN + CHARACTER_TABLE[characters].mean(axis=0))
        return np.array(rows) + position_signal(len(rows), HIDDEN)

    asked = states(question).mean(axis=0)
    return states(context) @ asked, states(context) @ END @ asked


def test_logits_are_those_of_the_graphs(answerer: Answerer) -> None:
    start, end, tokens = answerer.logits(QUESTION, CONTEXT)
    expected_start, expected_end = expected_logits(answerer.bundle, QUESTION, CONTEXT)
    assert [token.text for token in tokens][:4] == ["The", "main", "switch", "is"]
    np.testing.assert_allclose(start, expected_start, atol=1e-4)
    np.testing.assert_allclose(end, expected_end, atol=1e-4)


def test_answers_are_the_best_spans_that_do_not_overlap_by_brute_force(answerer: Answerer) -> None:
    start, end, tokens = answerer.logits(QUESTION, CONTEXT)
    longest = answerer.bundle.manifest.max_answer_tokens
    logits = {
        (first, last): float(start[first]) + float(end[last])
        for first in range(len(tokens))
        for last in range(first, min(first + longest, len(tokens)))
    }
    best: list[tuple[int, int]] = []
    for first, last in sorted(logits, key=lambda span: -logits[span]):
        if len(best) < 4 and all(last < other[0] or other[1] < first for other in best):
            best.append((first, last))
    whole = sum(np.exp(value) for value in logits.values())
    answers = answerer.answers(QUESTION, CONTEXT, top_k=4)
    assert [(answer.start, answer.end) for answer in answers] == [(tokens[a].start, tokens[b].end) for a, b in best]
    assert [answer.logit for answer in answers] == pytest.approx([logits[span] for span in best])
    assert [answer.span_probability for answer in answers] == pytest.approx(
        [np.exp(logits[span]) / whole for span in best]
    )


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
        assert 0.0 <= answer.span_probability <= 1.0
        assert answer.probability is None
    places = sorted((answer.start, answer.end) for answer in answers)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))
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
        write_tiny_bundle(path, files={"core.fp32.onnx": core_graph(scale=scale)}, max_answer_tokens=1)
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
    assert len(answerer.answers("?", "one two", top_k=10)) <= 2


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


def test_context_of_one_window_goes_through_whole(tiny_path: Path) -> None:
    context = " ".join(f"word{number}" for number in range(3_000))
    with Answerer.load(tiny_path, window_tokens=3_000) as answerer:
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
    # where, is, the, main, switch, behind, grey and panel are in the table, as they stand or in lower case; of the
    # question, "?" alone is not. A context that was read before the questions were asked is not in their times.
    distinct, known = len(set(CONTEXT_TOKENS)), len({"The", "main", "switch", "is", "behind", "the", "grey", "panel"})
    assert [times.distinct_tokens for times in seen] == [distinct + 6] * 2 + [6] * 2
    assert [times.unknown_tokens for times in seen] == [distinct - known + 1] * 2 + [1] * 2
    assert [times.remembered_tokens for times in seen] == [0, distinct - known + 1, 1, 1]
    for times in seen:
        stages = (times.tokenise_ms, times.look_up_ms, times.infer_ms, times.decode_ms)
        assert times.windows == 1
        assert min(stages) > 0
        assert times.total_ms == pytest.approx(sum(stages))
        assert (times.context_tokens, times.question_tokens) == (len(CONTEXT_TOKENS), 6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_answers_with_a_table_of_any_dtype(tmp_path: Path, dtype: str) -> None:
    write_tiny_bundle(tmp_path / "whole.qab", dtype="float32", group_size=HIDDEN)
    write_tiny_bundle(tmp_path / "tiny.qab", dtype=dtype, group_size=HIDDEN)
    with Answerer.load(tmp_path / "tiny.qab") as answerer, Answerer.load(tmp_path / "whole.qab") as whole:
        start, _, _ = answerer.logits(QUESTION, CONTEXT)
        expected, _, _ = whole.logits(QUESTION, CONTEXT)
        tolerance = {"float32": 0.0, "float16": 0.02, "int8": 0.2, "int4": 3.0}[dtype]
        assert np.abs(start - expected).max() <= tolerance
        answer = answerer.answer(QUESTION, CONTEXT)
        assert CONTEXT[answer.start : answer.end] == answer.text


def test_a_dropped_answerer_is_gone_at_once(tiny_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        answerer = Answerer.load(tiny_path, observer=lambda times: None)
        answerer.answer(QUESTION, CONTEXT)
        gone = weakref.ref(answerer)
        answerer.close()
        del answerer
        assert gone() is None
    finally:
        gc.enable()


def test_closing_while_another_thread_asks_is_an_engine_error(tiny_path: Path) -> None:
    for _ in range(20):
        answerer, errors = Answerer.load(tiny_path, cache_tokens=0), []

        def ask(answerer: Answerer = answerer, errors: list[BaseException] = errors) -> None:
            try:
                while True:
                    answerer.answer(QUESTION, CONTEXT)
            except BaseException as found:
                errors.append(found)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.002)
        answerer.close()
        for thread in threads:
            thread.join()
        assert [type(error) for error in errors] == [EngineError] * 3, errors


def test_a_question_that_is_none_is_refused_before_it_costs_memory(answerer: Answerer) -> None:
    assert answerer.answer("where " * 399 + "?", CONTEXT).text
    for ask in (answerer.answer, answerer.logits):
        with pytest.raises(InputError, match="the question has 401 tokens, expected at most 400"):
            ask("where " * 400 + "?", CONTEXT)


def test_closed_answerer_says_so(tiny_path: Path) -> None:
    answerer = Answerer.load(tiny_path)
    answerer.close()
    answerer.close()
    answerer.forget()
    with pytest.raises(EngineError, match="closed"):
        answerer.answer(QUESTION, CONTEXT)


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "nan.qab", files={"core.fp32.onnx": core_graph(scale=float("nan"))})
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
