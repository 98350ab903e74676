from __future__ import annotations

from qa_edge_runtime.lexical import LOGITS_A_POINT, WordIndex, best_windows, window_priors
from qa_edge_runtime.windows import Windows


def best(text: str, question: str, count: int, tokens: int = 4) -> list[int]:
    words = text.split()
    windows = Windows(tokens=tokens, overlap=0).cut(len(words))
    return best_windows(WordIndex(words).scores(question.split(), windows), count)


def test_rare_words_count_more_than_common_ones() -> None:
    text = "the a the b  the c the d  zebra e f g  the h the i"
    assert best(text, "the Zebra ?", 1) == [2]
    assert best(text, "THE the the", 3) == [0, 1, 3]


def test_more_words_and_more_often_count_more() -> None:
    text = "red x x x  red pot x x  red red x x  x x x x"
    assert best(text, "red pot", 1) == [1]
    assert best(text, "red", 1) == [2]
    assert best(text, "red pot", 2) == [1, 2]


def test_of_equal_windows_the_first_and_in_the_order_of_the_text() -> None:
    text = "a a a a  b b b b  c c c c  a a a a"
    assert best(text, "nothing of it", 2) == [0, 1]
    assert best(text, "?", 3) == [0, 1, 2]
    assert best(text, "a", 2) == [0, 3]
    assert best(text, "c", 2) == [0, 2]


def test_priors_follow_the_scores_and_one_window_has_none() -> None:
    words = ["red", "x", "x", "x", "red", "pot", "x", "x"]
    windows = Windows(tokens=4, overlap=0).cut(8)
    scores = WordIndex(words).scores(["pot"], windows)
    assert window_priors(words, ["pot"], windows).tolist() == (LOGITS_A_POINT * scores).tolist()
    assert scores[1] > scores[0] == 0
    assert window_priors(words, ["pot"], Windows().cut(8)).tolist() == [0]
