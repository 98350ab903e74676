"""A share of a training set, by whole articles: of its features, or of its SQuAD JSON."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import HELDOUT, MANIFEST, TENSORS, TOKENIZER, VECTORS, VOCABULARY, Features, offsets_of
from qa_edge.split import SHARE_SEED, drawn_articles
from qa_edge.squad import Squad
from qa_edge_runtime.files import atomic_folder, atomic_write


def share_of_squad(squad: Squad, share: float, seed: int = SHARE_SEED) -> Squad:
    """The data set with a share of its articles."""
    places = drawn_articles(len(squad.articles), share, seed).tolist()
    return replace(squad, articles=tuple(squad.articles[place] for place in places))


def share_of_features(
    source: str | Path, output: str | Path, share: float, *, rest: bool = False, seed: int = SHARE_SEED
) -> None:
    """Write features of a share of the articles that others train on; labels of all of them fit it as they did.

    Words, characters, vectors and held-out articles stay those of the whole.

    :param rest: keep the other articles too, as if nobody had answered their questions; else they are left out.
    :raises DataError: if the features cannot be read, or `output` cannot be written.
    """
    whole = Features.open(source)
    articles = np.unique(whole.context_article)
    chosen = articles[drawn_articles(len(articles), share, seed)]
    contexts = np.flatnonzero(np.isin(whole.context_article, articles if rest else chosen))
    questions = np.flatnonzero(np.isin(whole.question_context, contexts))
    context_rows, context_offsets = _rows(whole.context_offsets, contexts)
    text_rows, text_offsets = _rows(whole.text_offsets, contexts)
    question_rows, question_offsets = _rows(whole.question_offsets, questions)
    arrays: dict[str, NDArray[Any]] = {
        "context_offsets": context_offsets,
        "text_offsets": text_offsets,
        "question_offsets": question_offsets,
        "text": whole.text[text_rows],
        "form_words": whole.form_words,
        "form_characters": whole.form_characters,
        "question_tokens": whole.question_tokens[question_rows],
        "question_context": np.searchsorted(contexts, whole.question_context[questions]).astype(np.int32),
    }
    for name in ("context_tokens", "context_starts", "context_ends"):
        arrays[name] = getattr(whole, name)[context_rows]
    for name in ("context_number", "context_article"):
        arrays[name] = getattr(whole, name)[contexts]
    arrays["question_number"] = whole.question_number[questions]
    answered = np.isin(whole.context_article[whole.question_context[questions]], chosen)
    for name in ("answer_start", "answer_end"):
        arrays[name] = np.where(answered, getattr(whole, name)[questions], -1).astype(np.int32)
    if whole.noisy_tokens is not None and whole.noisy_offsets is not None:
        copies = (questions[:, None] * whole.noisy_copies + np.arange(whole.noisy_copies)).ravel()
        noisy_rows, arrays["noisy_offsets"] = _rows(whole.noisy_offsets, copies)
        arrays["noisy_tokens"] = whole.noisy_tokens[noisy_rows]
    tokens = np.concatenate([arrays["context_tokens"], arrays["question_tokens"]])
    known = np.count_nonzero(whole.form_words[tokens])
    manifest = {
        **whole.manifest,
        "contexts": len(contexts),
        "questions": len(questions),
        # Those that are misplaced are not told apart from those without an answer here.
        "unlabelled_questions": int((arrays["answer_start"] < 0).sum()),
        "misplaced_answers": 0,
        "known_token_share": round(known / max(len(tokens), 1), 4),
        "share": {
            # Of the data set: the features may be a share themselves.
            "share": round(share * whole.share, 6),
            "seed": seed,
            "articles": len(chosen),
            "of_articles": whole.manifest.get("share", {}).get("of_articles", len(articles)),
            **({"rest": "without answers"} if rest else {}),
        },
    }
    with atomic_folder(output) as folder:
        from safetensors.numpy import save

        atomic_write(folder / TENSORS, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
        for name in (VECTORS, VOCABULARY, TOKENIZER, HELDOUT):
            shutil.copyfile(whole.folder / name, folder / name)
        atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _rows(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in the flat array of some rows of a ragged one, and the offsets that these rows then have."""
    lengths = np.diff(offsets)[chosen]
    new = offsets_of(lengths)
    places = np.repeat(offsets[:-1][chosen] - new[:-1], lengths) + np.arange(new[-1])
    return places, new
