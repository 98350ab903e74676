"""The tables that let the runtime tokenise as spaCy does: its patterns and exceptions, taken from spaCy itself."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from qa_edge_runtime.errors import DataError, MissingExtraError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.tokenizer import FORMAT_VERSION

if TYPE_CHECKING:
    from spacy.language import Language

# Attribute of spaCy's tokenizer and the method of re.Pattern that it must be bound to, by the name in the tables.
_PATTERNS = {
    "prefix": ("prefix_search", "search"),
    "suffix": ("suffix_search", "search"),
    "infix": ("infix_finditer", "finditer"),
    "url": ("url_match", "match"),
    "token_match": ("token_match", "match"),
}


def build_tokenizer_tables(nlp: Language | None = None) -> dict[str, Any]:
    """Read the tokenizer of a spaCy pipeline into tables for `qa_edge_runtime.Tokenizer`; always the same ones.

    :param nlp: a spaCy pipeline; by default `spacy.blank("en")`.
    :returns: values that JSON can hold: format_version, spacy_version, language, a pattern or None for each of prefix,
        suffix, infix, url and token_match, and exceptions (chunk to its pieces, sorted by chunk as spaCy loads them).
    :raises MissingExtraError: if spaCy is not installed.
    :raises DataError: if the pipeline's tokenizer is not made of patterns and exceptions, as Chinese and Japanese are.
    """
    try:
        import spacy
        from spacy.symbols import ORTH
        from spacy.tokenizer import Tokenizer
    except ImportError as error:
        raise MissingExtraError('Tokenizer tables need spaCy: pip install "qa-edge[train]"') from error
    if nlp is None:
        nlp = spacy.blank("en")
    tokenizer: Any = nlp.tokenizer
    if type(tokenizer) is not Tokenizer or not tokenizer.faster_heuristics:
        raise DataError(
            f"the tokenizer of spaCy language {nlp.lang!r} is {type(tokenizer).__name__}, expected spaCy's own, "
            "with its default settings; use a language such as 'en'"
        )
    exceptions = {
        # spaCy's own rules name the text of a piece by number, those of users by name.
        chunk: [piece[ORTH] if ORTH in piece else piece["ORTH"] for piece in pieces]
        for chunk, pieces in sorted(tokenizer.rules.items())
    }
    return {
        "format_version": FORMAT_VERSION,
        "spacy_version": spacy.__version__,
        "language": nlp.lang,
        **{name: _pattern_of(tokenizer, attribute, method) for name, (attribute, method) in _PATTERNS.items()},
        "exceptions": exceptions,
    }


def write_tokenizer_tables(path: str | os.PathLike[str], nlp: Language | None = None) -> None:
    """Write the tables as JSON, UTF-8, the same bytes each time.

    :param path: the file to write, as a rule tokenizer.json of a run or bundle.
    :raises MissingExtraError: if spaCy is not installed.
    :raises DataError: if the file cannot be written, or the pipeline's tokenizer is of another kind.
    """
    # ASCII escapes: an editor or transfer that normalises Unicode would change the patterns unseen.
    atomic_write(path, json.dumps(build_tokenizer_tables(nlp), indent=0) + "\n")


def _pattern_of(tokenizer: Any, attribute: str, method: str) -> str | None:
    """The pattern behind a bound method such as `re.compile(...).search`."""
    function = getattr(tokenizer, attribute)
    if function is None:
        return None
    pattern = getattr(function, "__self__", None)
    # A pattern compiled with flags would not survive as text, unless the text itself sets them, as in French.
    plain = isinstance(pattern, re.Pattern) and re.compile(pattern.pattern) == pattern
    if pattern is None or not plain or function.__name__ != method:
        raise DataError(f"spaCy's {attribute} is not the {method} of a plain pattern; use a language such as 'en'")
    return str(pattern.pattern)
