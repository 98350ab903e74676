from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_teacher import Workshop, ran

from qa_edge_runtime.scoring import score_answer

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import expected_f1


def test_what_each_rule_answers() -> None:
    texts = ["blue", "the big cat", "The Cat", "cat"]
    logits = np.log([0.35, 0.3, 0.2, 0.15])
    scores = np.array([[float(score) for score in score_answer(text, ["big cat"])] for text in texts])
    chosen = expected_f1.choices(expected_f1.Candidates(texts, logits, scores))
    assert texts[chosen["likeliest span"]] == "blue"
    assert texts[chosen["best of 20"]] == "the big cat"
    # By exact match "blue" and "The Cat" with "cat" are as likely, and whose words overlap with others' gains by F1.
    assert texts[chosen["expected score, T 1, F1 0.25"]] == "The Cat"
    assert texts[chosen["expected score, T 1, F1 1"]] == "The Cat"  # 0.35 + 2/3 0.3, against 0.3 + 2/3 0.35
    assert texts[chosen["expected score, T 1.5, F1 0"]] == "The Cat"  # a flatter one, in which two small ones are more


def test_the_likeliest_span_is_what_the_product_answers(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected_f1.main([str(shop.bundle), "--squad", str(shop.dev)]) == 0
    printed = capsys.readouterr().out
    scores = json.loads(ran("evaluate", shop.bundle, "--squad", shop.dev, "--json"))
    line = next(line for line in printed.splitlines() if "likeliest span" in line)
    assert line.split()[-2:] == [f"{scores['exact_match']:.2f}", f"{scores['f1']:.2f}"]
    assert expected_f1.main([str(shop.bundle), "--squad", "none.json"]) == 1
    assert "none.json" in capsys.readouterr().err
