from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.sentences import sentence_around


@pytest.mark.parametrize(
    ("context", "answer", "sentence"),
    [
        ("One is here. Two is there. Three.", "there", "Two is there."),
        ("One is here! Is two? Three", "Three", "Three"),
        ('He said "it is two." Then he left.', "two", 'He said "it is two."'),
        ('He said "it is two." Then he left.', "he left", "Then he left."),
        ("(It is one.) It is two.", "one", "(It is one.)"),
        ("A title\n\nThe text of it\nin two lines. More", "lines", "The text of it\nin two lines."),
        ("A title\r\n\r\nThe text", "title", "A title"),
        ("Wait ... what? Yes.", "what", "what?"),
        ("one", "one", "one"),
        ("  one  ", "one", "one"),
        ("First end. Second end.", "end. Second", "First end. Second end."),
    ],
)
def test_sentences(answerer: Answerer, context: str, answer: str, sentence: str) -> None:
    tokens = answerer._reader.tokenizer(context)
    start = context.index(answer)
    found = sentence_around(context, tokens, start, start + len(answer))
    assert found.text == sentence == context[found.start : found.end]


@given(st.text(alphabet="ab .!?\n\r\"')\u2028\u3000é", min_size=1, max_size=60), st.data())
def test_a_sentence_holds_the_answer(answerer: Answerer, context: str, data: st.DataObject) -> None:
    tokens = [token for token in answerer._reader.tokenizer(context) if not token.text.isspace()]
    if not tokens:
        return
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(tokens) - 1)] * 2)))
    start, end = tokens[first].start, tokens[last].end
    found = sentence_around(context, answerer._reader.tokenizer(context), start, end)
    assert found.start <= start < end <= found.end
    assert context[found.start : found.end] == found.text == found.text.strip()


def test_a_text_without_full_stops_is_cut(answerer: Answerer) -> None:
    context = " ".join(["word"] * 1_000)
    found = sentence_around(context, answerer._reader.tokenizer(context), 2_500, 2_504)
    assert 100 < len(found.text.split()) < 200
