"""Questions as people type them: what each noise changes and never changes, what it costs, and training with it."""

from __future__ import annotations

import itertools
import json
import re
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_train import assert_same_run, lines
from tiny_models import tiny_squad
from tiny_teacher import Workshop, ran, run
from train_tiny import SETTINGS, train

from qa_edge.batches import TrainingData
from qa_edge.features import TENSORS, Features, read_tensors
from qa_edge.labels import Labels
from qa_edge.noise import NEIGHBOURS, NOISES, add_noise, noisy_squad
from qa_edge.noisy_questions import Noisy, add_noisy_questions, noisy_copies, write_noisy_questions
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.robustness import measure_robustness
from qa_edge.squad import Squad, read_squad, references, write_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
COPIES = 2
TEXTS = st.one_of(
    st.text(min_size=1).filter(str.strip), st.text(string.ascii_letters + " ?'-,.9", min_size=1).filter(str.strip)
)


def one_slip(word: str) -> set[str]:
    """All that a single slip can make of a word, written down another way than the product does."""
    made = {word[:i] + word[i + 1 :] for i in range(len(word))} | {
        word[:i] + word[i] + word[i:] for i in range(len(word))
    }
    made |= {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    for i, letter in enumerate(word):
        for typed in NEIGHBOURS.get(letter.lower(), ""):
            made.add(word[:i] + (typed.upper() if letter.isupper() else typed) + word[i + 1 :])
    return made - {word}


# What noise does


@given(text=TEXTS, seed=st.integers(0, 3))
def test_one_or_two_words_of_four_letters_and_more_have_one_slip_each(text: str, seed: int) -> None:
    noisy = add_noise(text, "typos", seed)
    parts = re.split(r"([^\W\d_]{4,})", text)
    assert add_noise(text, "typos", seed) == noisy
    # Which of the long words differ: what stands between them is untouched, so that each can be found again.
    left, slips = noisy, 0
    for place, part in enumerate(parts):
        found = [made for made in ({part} | one_slip(part) if place % 2 else {part}) if left.startswith(made)]
        after = re.escape(parts[place + 1]) if place % 2 else ""
        found = [made for made in found if re.match(after, left[len(made) :])]
        assert found, (text, noisy)
        made = max(found, key=len)
        slips += made != part
        left = left[len(made) :]
    words = len(parts) // 2
    assert slips <= 2 and (noisy != text) == bool(words)


def test_what_each_noise_does() -> None:
    text = 'Who\'s the U.S. vice-president — in "1,000.5 BC", at 10:30?'
    assert add_noise(text, "unpunctuated") == "Whos the US vice president in 1,000.5 BC at 10:30"
    assert add_noise(text, "lowercase") == text.lower()
    for question in (text, "How is Łódź spelt?"):
        typed = add_noise(question, "typos", 5)
        combined = add_noise(question, "combined", 5)
        assert combined == add_noise(add_noise(typed, "unpunctuated"), "lowercase")
    assert add_noise("?!", "unpunctuated") == "?!" and add_noise("Is it 9?", "typos") == "Is it 9?"
    with pytest.raises(InputError, match="noise is 'loud', expected one of lowercase, typos"):
        add_noise("x", "loud")


def test_neighbours_lie_beside_each_other_both_ways() -> None:
    assert set(NEIGHBOURS) == set(string.ascii_lowercase)
    for letter, beside in NEIGHBOURS.items():
        assert letter not in beside and all(letter in NEIGHBOURS[other] for other in beside), letter
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    assert all(b in NEIGHBOURS[a] for row in rows for a, b in itertools.pairwise(row))


def test_all_kinds_come_before_one_comes_again_and_seeds_differ() -> None:
    text = "What Colour, is the Kettle of Anna?"
    assert {noisy_copies(text, "0 q", 4)[k] for k in range(4)} & {add_noise(text, "lowercase")}
    assert noisy_copies(text, "0 q", 4)[:2] == noisy_copies(text, "0 q", 2)
    drawn = {tuple(noisy_copies(text, f"{seed} q", 2)) for seed in range(20)}
    assert len(drawn) > 10


# What it costs


def test_the_loss_against_clean_questions_is_that_of_each_question() -> None:
    squad = tiny_squad()
    truths = references(squad)

    def answer(asked: Squad) -> dict[str, str]:
        """Right wherever the question has its question mark."""
        return {q.id: truths[q.id][0] if q.text.endswith("?") else "nothing" for _, _, q in asked.items()}

    found = measure_robustness(answer, squad, ("typos", "unpunctuated"), resamples=200)
    typos, unpunctuated = found.noises
    assert found.f1 == found.exact_match == typos.f1 == 100 and typos.f1_change.difference == 0
    assert unpunctuated.f1 == 0 and unpunctuated.exact_match_change.low == -1
    assert found.questions == typos.changed == unpunctuated.changed == len(truths)


def test_evaluate_prints_clean_and_noisy_questions_side_by_side(shop: Workshop, tmp_path: Path) -> None:
    asked = ("evaluate", shop.bundle, "--squad", shop.dev)
    found = json.loads(ran(*asked, "--noise", "all", "--json"))
    assert [one["noise"] for one in found["noises"]] == list(NOISES)
    write_squad(tmp_path / "typos.json", noisy_squad(read_squad(shop.dev), "typos", 0))
    plain, typed = (
        json.loads(ran("evaluate", shop.bundle, "--squad", data, "--json"))
        for data in (shop.dev, tmp_path / "typos.json")
    )
    typos = found["noises"][NOISES.index("typos")]
    assert (plain["f1"], typed["f1"]) == (found["f1"], typos["f1"])
    assert typos["f1_change"]["difference"] == pytest.approx((typed["f1"] - plain["f1"]) / 100)
    assert typos["f1_change"]["low"] <= typos["f1_change"]["difference"] <= typos["f1_change"]["high"]
    shown = ran(*asked, "--noise", "typos", "--sample", "5")
    assert "5 questions of" in shown and "as they are" in shown and "lowercase" not in shown
    wrong = run(*asked, "--noise", "typos", "-o", tmp_path / "answers.json")
    assert wrong.exit_code == 2 and "leave out --predictions, -o and --report" in wrong.stderr


# Training with it


@pytest.fixture(scope="module")
def noisy_features(
    tmp_path_factory: pytest.TempPathFactory, tiny_features: Features, tiny_squad_path: Path
) -> Features:
    folder = tmp_path_factory.mktemp("noisy") / "features"
    add_noisy_questions(tiny_features.folder, tiny_squad_path, folder, copies=COPIES)
    return Features.open(folder)


def test_noisy_questions_are_added_and_nothing_else_changes(
    noisy_features: Features, tiny_features: Features, tiny_squad_path: Path
) -> None:
    clean, noisy = (read_tensors(features.folder / TENSORS) for features in (tiny_features, noisy_features))
    assert noisy.keys() - clean.keys() == {"noisy_offsets", "noisy_tokens"} and tiny_features.noisy_copies == 0
    for name, array in clean.items():
        assert np.array_equal(noisy[name][: len(array)], array) and noisy[name].dtype == array.dtype, name
    grown = {name for name, array in clean.items() if len(noisy[name]) > len(array)}
    assert grown == {"form_words", "form_characters"} and noisy_features.noisy_copies == COPIES
    tokenizer, vocabulary = Tokenizer.load(noisy_features.folder), noisy_features.vocabulary()
    assert vocabulary == tiny_features.vocabulary()
    items = [question for _, _, question in read_squad(tiny_squad_path).items()]
    for row, place in enumerate(noisy_features.question_number):
        texts = [items[place].text, *noisy_copies(items[place].text, f"0 {items[place].id}", COPIES)]
        for copy, text in enumerate(texts, start=-1):
            forms, tokens = noisy_features.question(row, copy), tokenizer(text).texts
            assert np.array_equal(noisy_features.form_words[forms], vocabulary.word_ids(tokens))
            assert np.array_equal(noisy_features.form_characters[forms], vocabulary.character_ids(tokens))


def test_prepare_makes_at_once_what_can_be_added_later(
    tmp_path: Path, noisy_features: Features, tiny_features: Features, tiny_squad_path: Path, tiny_vectors_path: Path
) -> None:
    settings = PrepareSettings(**{**tiny_features.manifest["settings"], "noisy": COPIES})
    prepare(tiny_squad_path, tmp_path / "whole", vectors_path=tiny_vectors_path, settings=settings)
    options = ("--features", tiny_features.folder, "--noisy", str(COPIES), "-o", tmp_path / "added")
    ran("prepare", "--squad", tiny_squad_path, *options)
    for path in noisy_features.folder.iterdir():
        assert path.read_bytes() == (tmp_path / "added" / path.name).read_bytes(), path.name
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes(), path.name
    wrong = run("prepare", "--squad", tiny_squad_path, *options, "--vectors", "none", "--force")
    assert wrong.exit_code == 2 and "leave out --vectors" in wrong.stderr


def test_questions_of_another_file_are_refused(
    tmp_path: Path, tiny_features: Features, noisy_features: Features
) -> None:
    write_squad(tmp_path / "other.json", tiny_squad(seed=9))
    with pytest.raises(DataError, match="made from other data"):
        add_noisy_questions(tiny_features.folder, tmp_path / "other.json", tmp_path / "features", copies=1)
    with pytest.raises(DataError, match="other questions"):
        write_noisy_questions(tiny_features.folder, tiny_squad(seed=9), tmp_path, copies=1, seed=0)
    with pytest.raises(DataError, match="noisy questions already"):
        write_noisy_questions(noisy_features.folder, tiny_squad(), tmp_path, copies=1, seed=0)


def test_a_batch_in_noise_asks_other_questions_and_learns_the_same_answers(
    noisy_features: Features, tiny_labels: Labels
) -> None:
    data = TrainingData(noisy_features, tiny_labels)
    rows = list(range(8))
    clean, targets = data.batch(rows)
    for share in (0.5, 1.0):
        noisy, same = data.batch(rows, noisy=Noisy.of_update(share, COPIES, seed=0, step=3, process=0))
        copies = Noisy.of_update(share, COPIES, seed=0, step=3, process=0).draw(len(rows))
        assert (copies >= 0).any() and ((copies < 0).any() or share == 1) and copies.max() < COPIES
        for name, value in vars(targets).items():
            assert np.array_equal(value, vars(same)[name]), name
        for row, copy in enumerate(copies.tolist()):
            length = int(noisy.question_lengths[row])
            characters = noisy.character_ids[noisy.question[row, :length]]
            forms = noisy_features.question(data.rows[row], copy)
            assert np.array_equal(characters, noisy_features.form_characters[forms])
            context = int(clean.context_lengths[row])
            pair = [batch.character_ids[batch.context[row, :context]] for batch in (clean, noisy)]
            assert np.array_equal(*pair)


def test_a_run_in_noise_resumes_to_the_same_numbers(
    tmp_path: Path, noisy_features: Features, tiny_features: Features, tiny_labels: Labels
) -> None:
    settings = replace(SETTINGS, epochs=1, noise=0.5)
    whole, parts, clean = (tmp_path / name for name in ("whole", "parts", "clean"))
    train(whole, noisy_features, tiny_labels, settings)
    train(parts, noisy_features, tiny_labels, replace(settings, max_steps=4))
    train(parts, noisy_features, tiny_labels, settings)
    assert_same_run(whole, parts)
    # Features with noisy questions that are not asked for train as those without.
    train(clean, noisy_features, tiny_labels, replace(settings, noise=None))
    train(tmp_path / "plain", tiny_features, tiny_labels, replace(settings, noise=None))
    assert_same_run(clean, tmp_path / "plain")
    assert lines(clean) != lines(whole)
    with pytest.raises(InputError, match="prepare them with --noisy 2"):
        train(tmp_path / "none", tiny_features, tiny_labels, settings)
