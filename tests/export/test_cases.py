"""The conformance cases of a bundle: what they hold is what the trained student and spaCy do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_student import TABLES
from trained_run import Trained

import qa_edge_export.cases as cases_module
from qa_edge_export.case_texts import CASE_TEXTS, LONG_TEXTS, TEXTS, WINDOWED_TEXTS
from qa_edge_export.cases import make_cases
from qa_edge_export.settings import ExportSettings
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.cases import Cases
from qa_edge_runtime.conformance import verify_bundle
from qa_edge_runtime.errors import BundleError
from qa_edge_runtime.tokenizer import Tokenizer

pytest.importorskip("onnxruntime")

PAIRS = (*CASE_TEXTS, *WINDOWED_TEXTS, *LONG_TEXTS)
EVERY_TEXT = list(dict.fromkeys([*(text for pair in PAIRS for text in pair), *TEXTS]))


def cases_of(path: Path) -> Cases:
    return Cases.from_json((path / "cases.json").read_bytes())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A student of which all forms of the texts are in a float32 table."""
    trained = Trained(tmp_path_factory.mktemp("full"))
    return trained, trained.export(required_words=trained.reference.forms([*CASE_TEXTS, *WINDOWED_TEXTS])).path


def test_logits_and_answers_are_the_trained_students(full: tuple[Trained, Path]) -> None:
    trained, path = full
    cases = cases_of(path)
    assert len(cases.cases) == len(CASE_TEXTS) == len(Bundle.open(path).cases()) >= 24
    assert len(cases.documents) == len(WINDOWED_TEXTS) + len(LONG_TEXTS)
    (graph,) = cases.graphs
    assert (graph.engine, graph.precision) == ("onnx", "fp32")
    for case in cases.cases:
        (expected,) = case.expected
        logits = trained.reference.logits(case.question, case.context)
        assert expected.start_logits is not None and expected.end_logits is not None
        np.testing.assert_allclose([expected.start_logits, expected.end_logits], logits, atol=3e-4)
        start, end = expected.answers[0]
        answer = case.context[start:end]
        assert answer and answer == answer.strip()
    assert all(result.ok for result in verify_bundle(path))


def test_states_and_ids_are_the_trained_students(full: tuple[Trained, Path]) -> None:
    trained, path = full
    cases, vocabulary, tokenizer = cases_of(path), Bundle.open(path).vocabulary(), Tokenizer(TABLES)
    with_state = [word for word in cases.words if word.state is not None]
    states = trained.reference.states([word.word for word in with_state])
    for word, state in zip(with_state, states, strict=True):
        assert word.state is not None
        np.testing.assert_allclose(word.state, state, atol=cases.state_tolerance)
    assert len({bool(word.word_id) for word in with_state}) == 2, "out of the table and out of the token graph"
    for text in cases.texts:
        assert [tuple(token) for token in tokenizer(text.text)] == list(text.tokens)
        assert all(text.text[start:end] == token for token, start, end in text.tokens)
        assert list(text.word_ids) == vocabulary.word_ids([token[0] for token in text.tokens]).tolist()
    assert any(len(word.word) > 16 for word in cases.words) and any(max(word.word) > "\uffff" for word in cases.words)


def test_the_texts_are_cut_as_spacy_cuts_them() -> None:
    spacy = pytest.importorskip("spacy")
    from qa_edge_export.tokenizer_tables import build_tokenizer_tables

    tokenizer, nlp = Tokenizer(build_tokenizer_tables()), spacy.blank("en")
    for text in EVERY_TEXT:
        assert [tuple(token) for token in tokenizer(text)] == [
            (token.text, token.idx, token.idx + len(token)) for token in nlp(text)
        ]


def test_the_texts_hold_what_runtimes_stumble_over() -> None:
    joined = "".join(EVERY_TEXT)
    spaces = {chr(code) for code in range(0x3001) if chr(code).isspace() and not 0x2000 <= code <= 0x200A}
    assert spaces <= set(joined)
    found = ["\u200d", "\u0301", "\r\n", "\u202e", "\u05e9", "\u0641", "東", "\ufe0f", "\x00", "\U0001f3ff", "n’t"]
    for text in found:
        assert text in joined, repr(text)
    assert "" in EVERY_TEXT and " " in EVERY_TEXT and max(map(len, joined.split())) >= 1_000


def test_every_graph_has_its_own_logits_but_float_graphs_of_a_precision_share_them(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert.interpreter")
    trained = Trained(tmp_path)
    settings = ExportSettings(
        engines=("onnx", "tflite"), precisions=("fp32", "fp16", "int8"), table="float32", f1_margin=100
    )
    path = trained.export(settings=settings).path
    cases = cases_of(path)
    kinds = [(graph.engine, graph.precision) for graph in cases.graphs]
    groups = [[kinds[number] for number in expected.graphs] for expected in cases.cases[0].expected]
    assert sorted(kinds) == sorted(kind for group in groups for kind in group)
    assert [("onnx", "int8")] in groups and [("tflite", "int8")] in groups
    assert any(sorted(group) == [("onnx", "fp32"), ("tflite", "fp32")] for group in groups)
    by_kind = dict(zip(kinds, cases.graphs, strict=True))
    assert by_kind["onnx", "fp32"].logit_tolerance < by_kind["onnx", "int8"].logit_tolerance / 20
    assert (path / "cases.json").stat().st_size < 300_000
    assert all(result.ok for result in verify_bundle(path))


def test_a_runtime_that_answers_otherwise_is_refused(
    full: tuple[Trained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = full
    monkeypatch.setattr(cases_module._Group, "answers", lambda self, number: [(0, 1)])
    with Answerer.load(path) as answerer, pytest.raises(BundleError, match="answers the conformance case 'How long"):
        make_cases(answerer, CASE_TEXTS)


def test_the_same_bundle_gives_the_same_cases(full: tuple[Trained, Path]) -> None:
    _, path = full
    with Answerer.load(path) as answerer:
        assert make_cases(answerer, CASE_TEXTS) == (path / "cases.json").read_bytes()
