"""Which words a text has, and how often: what a bundle's words are picked by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from qa_edge.features import Features
from qa_edge.squad import read_squad
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.tokenizer import Tokenizer


def count_words_of_features(features: Features) -> Counter[str]:
    """How often each word, as it is written, stands in the training contexts."""
    counts = np.bincount(features.context_tokens)
    return Counter({form: int(counts[number]) for form, number in features.context_forms().items()})


def count_words_of_text(path: str | Path, tokenizer: Tokenizer) -> Counter[str]:
    """How often each word stands in the contexts and questions of a SQuAD file, or in any text in UTF-8.

    :raises DataError: if the file cannot be read, or is neither.
    """
    source = Path(path)
    if source.suffix == ".json":
        words: Counter[str] = Counter()
        for _, paragraph in read_squad(source).paragraphs():
            for text in (paragraph.context, *(question.text for question in paragraph.questions)):
                words.update(token.text for token in tokenizer(text))
        return words
    return Counter(token.text for line in _lines(source, "text") for token in tokenizer(line))


def read_words(path: str | Path, tokenizer: Tokenizer) -> list[str]:
    """A domain's own words, one or several a line, as the tokenizer cuts them: a row that no token finds is no use.

    :raises DataError: if the file cannot be read, or is not UTF-8.
    """
    tokens = (token.text for line in _lines(Path(path), "list of words") for token in tokenizer(line.strip()))
    return list(dict.fromkeys(tokens))


def _lines(source: Path, noun: str) -> list[str]:
    try:
        return source.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{noun} {source} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{noun} {source} is not UTF-8 ({error}); convert it") from error
