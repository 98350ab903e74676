"""Noisy questions beside the features' own, so that a student learns to answer what is typed in a hurry.

A noisy question keeps its context, its answer and the teacher's logits to the question as it was: nothing is labelled
again, and an update reads no more than before.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import MANIFEST, TENSORS, TOKENIZER, Features, read_tensors
from qa_edge.noise import NOISES, add_noise
from qa_edge.progress import progress
from qa_edge.squad import Squad, read_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_folder, atomic_write
from qa_edge_runtime.tokenizer import Tokenizer

# Which of an update's questions are noisy is drawn apart from all else that is random in it.
_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """Draws the questions of an update that are asked in noise.

    :param share: of the questions, 0 to 1.
    :param copies: noisy ones that the features hold of each question.
    """

    share: float
    copies: int
    generator: np.random.Generator

    @classmethod
    def of_update(cls, share: float, copies: int, *, seed: int, step: int, process: int) -> Noisy:
        """What is drawn follows from the update's number alone, so that a resumed run goes on alike."""
        source = np.random.SeedSequence([seed, step, process, _STREAM])
        return cls(share=share, copies=copies, generator=np.random.default_rng(source))

    def draw(self, count: int) -> NDArray[np.int64]:
        """Which noisy copy each of so many questions is asked as, -1 as it is; shape (count,)."""
        chosen = self.generator.random(count) < self.share
        return np.where(chosen, self.generator.integers(self.copies, size=count), -1)


def noisy_copies(text: str, key: str, copies: int) -> list[str]:
    """A question in noise: each kind once, in an order that the key decides, before any comes again."""
    kinds = random.Random(key).sample(NOISES, len(NOISES))
    return [add_noise(text, kinds[copy % len(kinds)], f"{key} {copy}") for copy in range(copies)]


def add_noisy_questions(
    source: str | Path, squad_path: str | Path, output: str | Path, *, copies: int, seed: int = 0, force: bool = False
) -> dict[str, Any]:
    """Copy features, add noisy questions to the copy and return its manifest; words and vectors stay as they are.

    :param squad_path: what the features were made from.
    :raises DataError: if it is other data.
    """
    features, squad = Features.open(source), read_squad(squad_path)
    if features.manifest["squad_sha256"] != squad.sha256:
        raise DataError(f"features {source} were made from other data than {squad_path}: name the file they came from")
    with atomic_folder(output, force=force) as folder:
        for path in sorted(features.folder.iterdir()):
            if path.is_file() and path.name not in (TENSORS, MANIFEST):
                shutil.copyfile(path, folder / path.name)
        return write_noisy_questions(features.folder, squad, folder, copies=copies, seed=seed)


def write_noisy_questions(source: Path, squad: Squad, folder: Path, *, copies: int, seed: int) -> dict[str, Any]:
    """Write tensors and manifest of features with noisy questions into a folder, which can be their own.

    :param source: folder of the features.
    :param squad: what they were made from.
    :raises InputError: if no copy is asked for.
    :raises DataError: if the questions are not those of the features.
    """
    from safetensors.numpy import save

    if copies < 1:
        raise InputError(f"noisy is {copies}, expected at least 1 copy of each question")
    features = Features.open(source)
    if features.noisy_copies:
        raise DataError(f"features {source} have noisy questions already: name those without")
    tokenizer = Tokenizer.load(features.folder / TOKENIZER)
    items = [question for _, _, question in squad.items()]
    known = _forms(features, [items[place].text for place in features.question_number], tokenizer)
    count = len(features.form_words)
    added: dict[str, int] = {}

    def number(form: str) -> int:
        found = known.get(form)
        return added.setdefault(form, count + len(added)) if found is None else found

    tokens: list[list[int]] = []
    with progress("noise", len(features)) as advance:
        for place in features.question_number:
            question = items[place]
            for copy in noisy_copies(question.text, f"{seed} {question.id}", copies):
                tokens.append(list(map(number, tokenizer(copy).texts)))
            advance(1)
    vocabulary, width = features.vocabulary(), features.form_characters.shape[1]
    words, characters = vocabulary.word_ids(list(added)), vocabulary.character_ids(list(added), width)
    arrays = {
        **read_tensors(features.folder / TENSORS),
        "form_words": np.append(features.form_words, words.astype(np.int32)),
        "form_characters": np.concatenate([features.form_characters, characters.astype(np.int32)]),
        "noisy_offsets": np.cumsum([0, *map(len, tokens)], dtype=np.int64),
        "noisy_tokens": np.fromiter(chain.from_iterable(tokens), np.int32),
    }
    settings = {**features.manifest["settings"], "noisy": copies}
    manifest = {**features.manifest, "forms": count + len(added), "settings": settings}
    atomic_write(folder / TENSORS, save(arrays))
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _forms(features: Features, questions: list[str], tokenizer: Tokenizer) -> dict[str, int]:
    """Numbers of the surface forms in the features' texts; they hold no text of the questions themselves."""
    forms = features.context_forms()
    with progress("forms", len(questions)) as advance:
        for row, question in enumerate(questions):
            texts, own = tokenizer(question).texts, features.question(row).tolist()
            pairs = list(zip(texts, own, strict=False))
            if len(texts) != len(own) or any(forms.setdefault(form, number) != number for form, number in pairs):
                raise DataError(f"features {features.folder} have other questions than the file: prepare them again")
            advance(1)
    return forms
