"""Answers questions out of a text on a small device: needs numpy and one inference engine.

    >>> from qa_edge_runtime import Answerer
    >>> context = "The main switch is behind the grey panel."
    >>> with Answerer.load("first.qab") as answerer:
    ...     answer = answerer.answer("Where is the main switch?", context)
    >>> context[answer.start : answer.end] == answer.text
    True

A bundle such as `first.qab` is made by `qa-edge export`; `load` without a path takes the one of qa-edge-models, if that
is installed. All errors raised on purpose are `QaEdgeError`.
"""

from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.answers import Answer
from qa_edge_runtime.bundle import Bundle
from qa_edge_runtime.errors import QaEdgeError
from qa_edge_runtime.passage import Passage
from qa_edge_runtime.tokenizer import Token, Tokenizer

__version__ = "0.1.0"
__all__ = ["Answer", "Answerer", "Bundle", "Passage", "QaEdgeError", "Token", "Tokenizer"]
