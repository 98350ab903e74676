"""The sentence around an answer."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from qa_edge_runtime.answers import Sentence
from qa_edge_runtime.tokens import Tokens

# In a text without full stops, so many tokens on either side of the answer are shown.
MAX_TOKENS = 80
_STOPS = frozenset(".!?…。！？")
_CLOSING = frozenset("\"'”’»)]}")
_LINE_ENDS = "\n\r\u2028\u2029\x85"


def sentence_around(context: str, tokens: Tokens, start: int, end: int) -> Sentence:
    """The sentence, or sentences, that hold the characters `start` to `end` of a context.

    A sentence ends with a token of full stops, question or exclamation marks and the quotes and brackets that close
    behind it, or at a blank line. The tokenizer leaves the dot in "Dr." and "U.S.", so that these end none.

    :param tokens: of the context.
    """
    first = bisect_right(tokens.starts, start) - 1
    last = bisect_left(tokens.starts, end) - 1
    lowest, highest = max(first - MAX_TOKENS, 0), min(last + MAX_TOKENS, len(tokens) - 1)
    while first > lowest and not _ends(tokens, first - 1):
        first -= 1
    while last < highest and not _ends(tokens, last):
        last += 1
    begin, stop = tokens[first].start, tokens[last].end
    text = context[begin:stop]
    begin += len(text) - len(text.lstrip())
    text = text.strip()
    return Sentence(text=text, start=begin, end=begin + len(text))


def _ends(tokens: Tokens, number: int) -> bool:
    """Whether a sentence ends with this token."""
    token = tokens[number]
    if token.text.isspace():
        return sum(token.text.replace("\r\n", "\n").count(line_end) for line_end in _LINE_ENDS) > 1
    if number + 1 < len(tokens) and tokens[number + 1].start == token.end and tokens[number + 1].text in _CLOSING:
        return False  # ends with what closes behind it
    while token.text in _CLOSING and number and tokens[number - 1].end == token.start:
        number -= 1
        token = tokens[number]
    return set(token.text) <= _STOPS
