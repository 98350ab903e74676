"""Vectors out of an encoder: one a word, the same ones again, and a student that goes on with wider ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import student_of, write_tiny_squad
from tiny_teacher import Workshop, ran, run, write_example_teacher

from qa_edge.batches import TrainingData
from qa_edge.checkpoint import copy_inputs, load_student, save_checkpoint
from qa_edge.features import Features
from qa_edge.static_vectors import static_vectors
from qa_edge.vectors import read_vectors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_teacher(tmp_path_factory.mktemp("encoder") / "encoder", head=False)


def test_words_keep_their_vectors_whatever_words_come_with_them(encoder: Path) -> None:
    """And a list of other lengths, so that padding and batches tell nothing."""
    few = static_vectors(str(encoder), ["water", "lid"], 8)
    many = static_vectors(str(encoder), [*(f"long{n}word" for n in range(40)), "lid", "water", "Water"], 8)
    assert few.words == ("water", "lid") and "Water" not in many.words
    for word in few.words:
        one, other = few.array[few.words.index(word)], many.array[many.words.index(word)]
        np.testing.assert_allclose(one, other, atol=0.02)
    assert not np.allclose(few.array[0], few.array[1], atol=0.1)
    assert 0.2 < few.variance <= 1 and few.covered == 2 and few.beside is None


def test_the_command_writes_what_prepare_reads(encoder: Path, shop: Workshop, tmp_path: Path) -> None:
    beside = tmp_path / "beside.txt"
    beside.write_text("water 1 2\nlid 3 4\n", encoding="utf-8")
    (tmp_path / "own.txt").write_text("zorb Zorbs\n", encoding="utf-8")
    options = ("--encoder", encoder, "--squad", shop.train, "--words", tmp_path / "own.txt", "--dim", 6)
    made = ("vectors", *map(str, options), "--beside", str(beside), "--min-count", "3")
    report = json.loads(ran(*made, "-o", tmp_path / "v.txt.gz", "--json"))
    found = read_vectors(tmp_path / "v.txt.gz", {"water", "zorb", "zorbs", "Zorbs", "the", "The"})
    assert report["words"] == found.lines and report["dim"] == found.dim == 8 and 1 <= report["beside"] <= 2
    # The encoder folds case: what stands capitalised is found by its lower case.
    assert set(found.words) == {"water", "zorb", "zorbs", "the"}
    water, zorb = (found.array[found.words.index(word)] for word in ("water", "zorb"))
    assert water[:2].tolist() == [1, 2] and zorb[:2].tolist() == [0, 0] and np.abs(zorb[2:]).max() > 0
    ran(*made, "-o", tmp_path / "again.txt.gz")
    assert (tmp_path / "again.txt.gz").read_bytes() == (tmp_path / "v.txt.gz").read_bytes()
    everything = json.loads(ran(*made[:-1], "1", "-o", tmp_path / "all.txt.gz", "--json"))
    assert everything["words"] > report["words"]
    ran("prepare", "--squad", shop.train, "--vectors", tmp_path / "v.txt.gz", "--heldout", "0", "-o", tmp_path / "f")


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--squad", "SQUAD", "--dim", "9999"), "expected 1 to ", 1),
        (("--squad", "SQUAD", "--dim", "8", "--min-count", "99999"), "no word occurs 99999 times", 1),
        ((), "whose words?", 2),
        (("--words", "nowhere.txt"), "nowhere.txt", 1),
    ],
)
def test_wrong_input_is_one_sentence(
    encoder: Path, shop: Workshop, tmp_path: Path, options: tuple[str, ...], message: str, code: int
) -> None:
    given = [str(shop.train) if option == "SQUAD" else option for option in options]
    result = run("vectors", "--encoder", str(encoder), *given, "-o", str(tmp_path / "v.txt"))
    assert result.exit_code == code and message in result.stderr and not (tmp_path / "v.txt").exists()
    lines = [line for line in result.stderr.splitlines() if line.startswith("qa-edge: error:")]
    assert code == 2 or len(lines) == 1


def test_a_student_goes_on_with_wider_vectors(tmp_path: Path, tiny_features: Features, tiny_squad_path: Path) -> None:
    """It answers as before at first: the new numbers have weights of 0."""
    start, student = tmp_path / "start", student_of(tiny_features)
    start.mkdir()
    save_checkpoint(start, student.model.config, dict(student.model.named_parameters()))
    copy_inputs(tiny_features.folder, start)
    words, narrow = tiny_features.vocabulary().words, tiny_features.vectors()[1:].astype(np.float32)
    wide = np.concatenate([narrow, np.random.default_rng(0).normal(size=(len(words), 3))], 1)

    def write(path: Path, rows: np.ndarray) -> Path:
        lines = (f"{word} {' '.join(f'{x:.4f}' for x in row)}\n" for word, row in zip(words[1:], rows[1:], strict=True))
        path.write_text("".join(lines) + "zorbs " + "0.5 " * 14 + "0.5\n", encoding="utf-8")
        return path

    squad = write_tiny_squad(tmp_path / "own.json", articles=2)
    common = ("distill", "--squad", squad, "--init", start, "--teacher", "none", "--rho", "0", "--mse-weight", "0")
    common = (*common, "--heldout", "0", "--batch-size", "2", "--max-steps", "1", "--rate", "1e-9")
    ran(*common, "--vectors", write(tmp_path / "wide.txt", wide), "-o", tmp_path / "run")
    vectors = Features.open(tmp_path / "run" / "features").vectors()
    assert vectors.shape[1] == 15 and (vectors[:, :12] == tiny_features.vectors()).all()
    assert not vectors[1, 12:].any() and vectors[2, 12:].any()  # the first word is not in the wide file
    ran("distill", "--resume", tmp_path / "run")
    model = load_student(tmp_path / "run").eval()
    assert model.config.word_dim == 15
    features = Features.open(tmp_path / "run" / "features")
    batch = TrainingData(features, None).batch(np.arange(2))[0]
    narrower = type(batch)(**{**vars(batch), "word_vectors": batch.word_vectors[:, :12]})
    with torch.no_grad():
        torch.testing.assert_close(model(batch), student.model.eval()(narrower), atol=1e-4, rtol=1e-4)

    other = run(*common, "--vectors", write(tmp_path / "other.txt", wide + 1), "-o", tmp_path / "no")
    assert other.exit_code == 1 and "wider ones that begin with them" in other.stderr
