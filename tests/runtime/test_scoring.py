"""Exact match and F1: the known scores of published predictions, and the official rules one by one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.questions import load_squad_questions
from qa_edge_runtime.scoring import exact_match, f1, normalize_answer, read_predictions, score_predictions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published_exact_match", "published_f1", "unanswered", "extra"),
    [
        ("bert-ensemble", "86.206", "92.196", 0, 0),
        ("match-lstm-ensemble", "67.635", "76.756", 0, 0),
        ("logistic-regression", "40.142", "50.982", 13, 28),
    ],
)
def test_published_predictions_have_their_known_scores(name, published_exact_match, published_f1, unanswered, extra):
    if "QA_EDGE_DATA" not in os.environ:
        pytest.skip("needs QA_EDGE_DATA, the folder of real data")
    squad = Path(os.environ["QA_EDGE_DATA"]) / "squad"
    references = {question.id: question.answers for question in load_squad_questions(squad / "dev-v1.1.json")}
    scores = score_predictions(references, read_predictions(squad / "predictions" / f"{name}.json"))
    assert f"{scores.exact_match:.3f}" == published_exact_match
    assert f"{scores.f1:.3f}" == published_f1
    assert (scores.total, scores.unanswered, scores.extra) == (10570, unanswered, extra)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Broncos", "broncos"),
        ("a  an\tthe\n", ""),
        ("theatre, another", "theatre another"),
        ("U.S.", "us"),
        ("well-known (1990s)", "wellknown 1990s"),
        ("the-end", "theend"),  # punctuation goes before articles, so this one is no longer a word of its own
        ("“quoted”", "“quoted”"),
        ("A$AP", "aap"),
        ("x the\u00a0y", "x y"),
    ],
)
def test_normalize_answer(text, normal):
    assert normalize_answer(text) == normal


@given(st.text())
def test_normalizing_leaves_neither_capitals_nor_odd_spaces(text):
    normal = normalize_answer(text)
    assert normal == normal.lower() or any(character.lower() != character for character in text.lower())
    assert normal == " ".join(normal.split())


def test_f1_counts_shared_words_as_often_as_both_have_them():
    assert f1("the cat sat", "cat") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert f1("cat cat cat", "cat cat") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert f1("dog", "cat") == 0.0
    assert f1("", "") == 0.0 and exact_match("", "the")


@given(st.text(alphabet="ab ,", max_size=12), st.text(alphabet="ab ,", max_size=12))
def test_f1_is_symmetric_and_one_exactly_for_the_same_words(one, other):
    assert f1(one, other) == f1(other, one)
    assert 0.0 <= f1(one, other) <= 1.0
    same_words = sorted(normalize_answer(one).split()) == sorted(normalize_answer(other).split()) != []
    assert (f1(one, other) == 1.0) == same_words


def test_best_reference_counts_and_missing_predictions_score_nothing():
    references = {"1": ["a red car", "automobile"], "2": ["blue"], "3": ["green"], "4": ["big tree"]}
    scores = score_predictions(references, {"1": "Automobile!", "2": "yellow", "4": "tree", "99": "extra"})
    assert scores.exact_match == 25.0
    assert scores.f1 == pytest.approx(100 * (1 + 0 + 0 + 2 / 3) / 4)
    assert (scores.total, scores.unanswered, scores.extra) == (4, 1, 1)


def test_exact_match_and_f1_may_have_different_best_references():
    scores = score_predictions({"1": ["x y z", "w"]}, {"1": "x y"})
    assert (scores.exact_match, scores.f1) == (0.0, pytest.approx(80.0))


def test_no_questions_or_no_references_is_refused():
    with pytest.raises(InputError, match="no question to score"):
        score_predictions({}, {"1": "a"})
    with pytest.raises(InputError, match="question q7 has no reference answer"):
        score_predictions({"q7": []}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "not an object"), ('{"q1": 3}', "question 'q1' is not text"), ("", "is empty"), ("{", "is not JSON")],
)
def test_bad_prediction_file_is_refused(tmp_path, content, message):
    file = tmp_path / "predictions.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_predictions(file)


def test_read_predictions(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"q": "é"}))
    assert read_predictions(tmp_path / "p.json") == {"q": "é"}
