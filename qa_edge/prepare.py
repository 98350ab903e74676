"""SQuAD JSON to features: spaCy tokens, vocabulary, word vectors, answer spans, held-out articles."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from qa_edge.features import (
    FORMAT_VERSION,
    HELDOUT,
    MANIFEST,
    TENSORS,
    TOKENIZER,
    VECTORS,
    VOCABULARY,
    offsets_of,
)
from qa_edge.noisy_questions import write_noisy_questions
from qa_edge.progress import progress
from qa_edge.settings import require_types
from qa_edge.split import TrainingParagraph, require_unseen, split_articles
from qa_edge.squad import Paragraph, Question, read_squad, write_squad
from qa_edge.start import Start, halves, most_frequent
from qa_edge.vectors import read_vectors
from qa_edge_runtime.errors import DataError, InputError, MissingExtraError
from qa_edge_runtime.files import atomic_folder, atomic_write, sha256_file
from qa_edge_runtime.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How features are made.

    :param heldout: share of the articles kept out of training for choices and calibration (DESIGN: decision 4).
    :param vocabulary_size: words with a vector of their own, the most frequent ones; None keeps all.
    :param character_count: a character that the training text holds fewer times is unknown, so that the unknown
        character's vector is trained.
    :param noisy: noisy copies of each question to make beside it (see `noisy_questions`); None makes none.
    :param seed: which articles are held out.
    """

    heldout: float = 0.05
    vocabulary_size: int | None = None
    character_count: int = 5
    characters_per_word: int = 16
    noisy: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_types(self)
        if not 0 <= self.heldout < 1:
            raise InputError(f"heldout is {self.heldout}, expected a share of the articles, 0 <= heldout < 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}, expected 0 or more")
        if self.noisy is not None and self.noisy < 1:
            raise InputError(f"noisy is {self.noisy}, expected at least 1 copy of each question")
        if self.vocabulary_size is not None and self.vocabulary_size < 1:
            raise InputError(f"vocabulary_size is {self.vocabulary_size}, expected at least 1")


def prepare(
    squad_path: str | Path,
    output: str | Path,
    *,
    vectors_path: str | Path | None = None,
    init: str | Path | None = None,
    settings: PrepareSettings | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a features folder and return its manifest.

    :param vectors_path: GloVe-format vectors; None trains on characters alone.
    :param init: folder of a trained student to go on from: its tokenizer, characters, words and vectors are taken, and
        the words that it does not know but `vectors_path` does are added behind its own.
    :raises DataError: if the data cannot be read, hold nothing to train on, or the vectors do not fit the student.
    """
    settings = settings or PrepareSettings()
    if vectors_path is not None and Path(vectors_path).is_fifo():  # read once, and once more for its hash
        raise DataError(f"vector file {vectors_path} is a pipe, and is read more than once: write it to a file first")
    start = None if init is None else Start.load(Path(init))
    if start is not None:
        settings = replace(settings, characters_per_word=start.config.characters_per_word)
    squad = read_squad(squad_path)
    if init is not None:
        require_unseen(Path(init), squad.sha256, heldout=settings.heldout, seed=settings.seed)
    training, heldout = split_articles(squad, settings.heldout, settings.seed)
    with atomic_folder(output, force=force) as folder:
        encoder = _Encoder(start)
        tables = encoder.encode(training)
        if not tables["question_context"]:
            raise DataError(f"{squad_path} has no question outside the held-out articles; add questions")
        if start is None:
            vocabulary, vectors = _build_vocabulary(encoder, vectors_path, settings)
        else:
            vocabulary, vectors = start.extend(encoder.counts, vectors_path, settings.vocabulary_size)
        _write_numbers(folder, tables, encoder.forms, vocabulary, vectors, settings)
        vocabulary.save(folder / VOCABULARY)
        atomic_write(folder / TOKENIZER, json.dumps(encoder.tables))
        write_squad(folder / HELDOUT, heldout)
        known = sum(encoder.counts[form] for form in encoder.forms if vocabulary.word_id(form))
        manifest = {
            "format_version": FORMAT_VERSION,
            "squad": Path(squad_path).name,
            "squad_sha256": squad.sha256,
            "spacy_version": encoder.tables["spacy_version"],
            "vectors": None if vectors_path is None else Path(vectors_path).name,
            "vectors_sha256": None if vectors_path is None else sha256_file(vectors_path),
            "init": None if init is None else Path(init).name,
            "contexts": len(tables["context_number"]),
            "questions": len(tables["question_context"]),
            "heldout_articles": len(heldout.articles),
            "heldout_questions": sum(1 for _ in heldout.items()),
            "impossible_questions": squad.impossible,
            "unlabelled_questions": encoder.unlabelled,
            "misplaced_answers": encoder.misplaced,
            "forms": len(encoder.forms),
            "words": len(vocabulary.words),
            "characters": len(vocabulary.characters),
            "known_token_share": round(known / max(sum(encoder.counts.values()), 1), 4),
            "settings": {**vars(settings)},
        }
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        if settings.noisy is not None:
            manifest = write_noisy_questions(folder, squad, folder, copies=settings.noisy, seed=settings.seed)
    return manifest


class _Tables(TypedDict):
    context_lengths: array[int]
    context_tokens: array[int]
    context_starts: array[int]
    context_ends: array[int]
    texts: list[bytes]
    question_lengths: array[int]
    question_tokens: array[int]
    question_context: array[int]
    question_number: array[int]
    context_number: array[int]
    context_article: array[int]
    answer_start: array[int]
    answer_end: array[int]


_Split = Callable[[str], Iterable[tuple[str, int]]]
"""Gives a text's tokens, each with its first character."""


def spacy_tokenizer() -> tuple[_Split, dict[str, Any]]:
    """spaCy's English tokenizer, and the tables by which the runtime makes the same tokens.

    :raises MissingExtraError: if spaCy is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError('preparing data needs: pip install "qa-edge[train]"') from error
    from qa_edge_export.tokenizer_tables import build_tokenizer_tables

    nlp = spacy.blank("en")
    return lambda text: ((token.text, token.idx) for token in nlp.tokenizer(text)), build_tokenizer_tables(nlp)


class _Encoder:
    """spaCy tokens to numbers of surface forms; those of a student to go on from by its own tables."""

    def __init__(self, start: Start | None = None) -> None:
        self.split, self.tables = spacy_tokenizer() if start is None else (start.split, start.tables)
        self.forms: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.misplaced = 0
        self.unlabelled = 0

    def tokens(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Numbers of the forms, first characters and characters after the last, one a token."""
        forms, starts, ends = [], [], []
        for form, start in self.split(text):
            self.counts[form] += 1
            forms.append(self.forms.setdefault(form, len(self.forms)))
            starts.append(start)
            ends.append(start + len(form))
        return forms, starts, ends

    def encode(self, paragraphs: Sequence[TrainingParagraph]) -> _Tables:
        tables = _Tables(
            context_lengths=array("q"),
            context_tokens=array("i"),
            context_starts=array("i"),
            context_ends=array("i"),
            texts=[],
            question_lengths=array("q"),
            question_tokens=array("i"),
            question_context=array("i"),
            question_number=array("i"),
            context_number=array("i"),
            context_article=array("i"),
            answer_start=array("i"),
            answer_end=array("i"),
        )
        with progress("tokens", len(paragraphs)) as advance:
            for paragraph in paragraphs:
                self._encode_paragraph(tables, *paragraph)
                advance(1)
        return tables

    def _encode_paragraph(
        self, tables: _Tables, article: int, context_number: int, question_number: int, paragraph: Paragraph
    ) -> None:
        forms, starts, ends = self.tokens(paragraph.context)
        row = len(tables["context_number"])
        tables["context_number"].append(context_number)
        tables["context_article"].append(article)
        tables["context_lengths"].append(len(forms))
        tables["context_tokens"].extend(forms)
        tables["context_starts"].extend(starts)
        tables["context_ends"].extend(ends)
        tables["texts"].append(paragraph.context.encode("utf-8"))
        for question in paragraph.questions:
            if question.impossible:
                continue
            words, _, _ = self.tokens(question.text)
            tables["question_lengths"].append(len(words))
            tables["question_tokens"].extend(words)
            tables["question_context"].append(row)
            tables["question_number"].append(question_number)
            first, last = self._answer(question, paragraph.context, starts, ends)
            tables["answer_start"].append(first)
            tables["answer_end"].append(last)
            question_number += 1

    def _answer(self, question: Question, context: str, starts: list[int], ends: list[int]) -> tuple[int, int]:
        """First and last token of the first reference that stands at its offset; -1, -1 without one."""
        self.unlabelled += question.unlabelled
        for answer in question.answers:
            if answer.stands_in(context):
                # A border inside a token takes the whole token.
                first = int(np.searchsorted(ends, answer.start, side="right"))
                last = int(np.searchsorted(starts, answer.end, side="left")) - 1
                return first, last
        self.misplaced += bool(question.answers)
        return -1, -1


def _build_vocabulary(
    encoder: _Encoder, vectors_path: str | Path | None, settings: PrepareSettings
) -> tuple[Vocabulary, np.ndarray]:
    """Words of the training text that have a vector, most frequent first, and the characters that occur enough."""
    characters: Counter[str] = Counter()
    for form, count in encoder.counts.items():
        for character in form[: settings.characters_per_word]:
            characters[character] += count
    kept = tuple(c for c, count in sorted(characters.items()) if count >= settings.character_count)
    if vectors_path is None:
        return Vocabulary(words=(), characters=kept), np.zeros((1, 0), np.float16)
    wanted = {spelling for form in encoder.counts for spelling in (form, form.lower())}
    found = read_vectors(vectors_path, wanted)
    words, array = most_frequent(encoder.counts, found, settings.vocabulary_size)
    vectors = np.concatenate([np.zeros((1, found.dim), np.float16), halves(words, array, vectors_path)])
    return Vocabulary(words=tuple(words), characters=kept), vectors


def _write_numbers(
    folder: Path,
    tables: _Tables,
    forms: dict[str, int],
    vocabulary: Vocabulary,
    vectors: np.ndarray,
    settings: PrepareSettings,
) -> None:
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {
        "context_offsets": offsets_of(tables["context_lengths"]),
        "text_offsets": offsets_of(len(text) for text in tables["texts"]),
        "text": np.frombuffer(b"".join(tables["texts"]), np.uint8),
        "question_offsets": offsets_of(tables["question_lengths"]),
        "form_words": vocabulary.word_ids(list(forms)).astype(np.int32),
        "form_characters": vocabulary.character_ids(list(forms), settings.characters_per_word).astype(np.int32),
    }
    for name in (
        "context_tokens",
        "context_starts",
        "context_ends",
        "question_tokens",
        "question_context",
        "question_number",
        "context_number",
        "context_article",
        "answer_start",
        "answer_end",
    ):
        arrays[name] = np.asarray(tables[name], np.int32)
    # Not save_file: on a full disk that raises an error of its own, which is no OSError.
    atomic_write(folder / TENSORS, save(arrays))
    atomic_write(folder / VECTORS, save({"vectors": vectors}))
