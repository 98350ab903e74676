"""A student in the loop, its teacher, and how much the two disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import STRIDE, WINDOW
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from tiny_models import all_texts, tiny_squad, write_json, write_tiny_squad, write_tiny_teacher
from tiny_teacher import Workshop, ran, run

from qa_edge.active.disagreement import disagreements, divergence
from qa_edge.active.learners import TeacherLearner
from qa_edge.active.loop import LoopSettings, run_loop
from qa_edge.active.readers import LabelReader, PlacedLogits, open_reader
from qa_edge.active.student_learner import StudentLearner
from qa_edge.batches import TrainingData
from qa_edge.experiments.collect import find_runs
from qa_edge.features import Features
from qa_edge.labels import Labels, LabelSettings, label
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.recipe import model_entry
from qa_edge.split import sample_articles
from qa_edge.squad import read_squad
from qa_edge.teach_settings import TeachSettings
from qa_edge.train_settings import TrainSettings
from qa_edge_runtime.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"hidden": 16, "model_blocks": 1, "encoder_convolutions": 1, "model_convolutions": 1, "character_dim": 8}
SOON = TrainSettings(epochs=1, batch_size=8, evaluate_every=50, log_every=2, save_every=2, temperature=2.0)
TEACHING = TeachSettings(epochs=1, least_updates=3, dropout=0.0, window=WINDOW, stride=STRIDE, batch_tokens=1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with its features, labels of a teacher that was there before, and a development set."""
    here = tmp_path_factory.mktemp("student")
    pool = write_tiny_squad(here / "pool.json", articles=2)
    write_tiny_squad(here / "dev.json", articles=1, contexts=1, seed=9)
    prepare(pool, here / "features", settings=PrepareSettings(heldout=0.0, character_count=2))
    teacher = write_tiny_teacher(here / "teacher", all_texts(tiny_squad(articles=2)))
    label(pool, str(teacher), here / "labels", settings=LabelSettings(window=WINDOW, stride=STRIDE, precision="fp32"))
    write_tiny_teacher(here / "encoder", all_texts(tiny_squad(articles=2)), seed=4, head=False)
    return here


def learner(folder: Path, **changed: Any) -> StudentLearner:
    paths = {"pool": str(folder / "pool.json"), "features": str(folder / "features"), "dev": str(folder / "dev.json")}
    return StudentLearner(**{**paths, "settings": SOON, "sizes": SIZES, "device": "cpu", **changed})


def placed(logits: np.ndarray, ranges: list[tuple[int, int]]) -> PlacedLogits:
    first, behind = np.array(ranges, np.int32).T
    return PlacedLogits(
        start=logits[0].astype(np.float32), end=logits[1].astype(np.float32), first=first, behind=behind
    )


@given(arrays(np.float64, (2, 7), elements=st.floats(-30, 30)), st.floats(-5, 5))
def test_divergence_is_scipys(logits: np.ndarray, shift: float) -> None:
    one, other = logits
    # Of two that differ by rounding alone scipy takes the root of a number below 0.
    expected = np.nan_to_num(jensenshannon(softmax(one), softmax(other))) ** 2
    assert divergence(one, other) == pytest.approx(expected, abs=1e-9)
    assert divergence(other, one) == pytest.approx(divergence(one, other), abs=1e-12)
    assert divergence(one + shift, other) == pytest.approx(divergence(one, other), abs=1e-9)
    assert 0 <= divergence(one, other) <= np.log(2) + 1e-12
    assert divergence(one, one) == 0


def test_models_that_cut_a_text_differently_are_compared_by_their_characters() -> None:
    context = "Anna sails  to Malmö"
    tokens = [(0, 4), (5, 10), (10, 12), (12, 14), (15, 20)]  # with one of white space, as spaCy has it
    pieces = [(0, 2), (2, 4), (5, 10), (12, 14), (15, 18), (18, 20)]
    student = np.array([[1.0, 2, -1e30, 0, 3], [0.0, 1, -1e30, 5, 2]])
    teacher = np.array([[4.0, -9, 1, 2, 0, -9], [-9.0, 2, 1, 2, -9, 3]])
    found = disagreements([placed(student, tokens)], [placed(teacher, pieces)], [context])[0]
    # A word's start is that of its first piece, its end that of its last.
    start, end = [4.0, 1, 2, 0], [2.0, 1, 2, 3]
    both = zip((student[0][[0, 1, 3, 4]], student[1][[0, 1, 3, 4]]), (start, end), strict=True)
    expected = np.mean([jensenshannon(softmax(one), softmax(other)) ** 2 for one, other in both])
    assert found == pytest.approx(expected, abs=1e-7)
    nothing = placed(np.zeros((2, 1)), [(10, 11)])
    assert disagreements([nothing], [placed(teacher, pieces)], [context]).tolist() == [0]
    with pytest.raises(InputError, match="1 and 0 logits of 1 contexts"):
        disagreements([nothing], [], [context])


def test_a_part_of_the_questions_is_trained_on(folder: Path) -> None:
    features, labels = Features.open(folder / "features"), Labels(folder / "labels")
    whole = TrainingData(features, labels)
    part = TrainingData(features, labels, questions={3, 20, 7, 500})
    assert features.question_number[part.rows].tolist() == [3, 7, 20]
    for mine, other in zip(part.batch([0, 2]), whole.batch([3, 20]), strict=True):
        for name, value in vars(mine).items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(vars(other)[name]))
    with pytest.raises(DataError, match="none of the 1 chosen questions"):
        TrainingData(features, labels, questions={500})


@pytest.fixture(scope="module")
def honest(folder: Path) -> Path:
    """A loop whose teacher is fine-tuned in each cycle on what was chosen."""
    teacher = TeacherLearner(encoder=str(folder / "encoder"), dev=str(folder / "dev.json"), settings=TEACHING)
    settings = LoopSettings(strategy="disagreement", first=0.25, step=0.5, budget=0.5, start="last")
    with pytest.MonkeyPatch.context() as patch:
        # Some devices multiply fastest in 16 bits, where a logit depends on what else is in its batch.
        patch.setattr("qa_edge.labels.fast_precision", lambda device: "fp32")
        curve = run_loop(folder / "pool.json", learner(folder, teacher=teacher), folder / "honest", settings=settings)
    assert [point.questions for point in curve] == [9, 18]
    assert all(point.scores["total"] == 6 for point in curve)
    return folder / "honest"


def test_a_teacher_that_nothing_is_compared_with_reads_the_chosen_questions_alone(
    folder: Path, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qa_edge.labels.fast_precision", lambda device: "fp32")
    teacher = TeacherLearner(encoder=str(folder / "encoder"), dev=str(folder / "dev.json"), settings=TEACHING)
    settings = LoopSettings(strategy="least-confidence", first=0.25, step=0.5, budget=0.5, start="last")
    taught = learner(folder, teacher=teacher, compared=False)
    run_loop(folder / "pool.json", taught, tmp_path / "loop", settings=settings)
    for number, count in enumerate((9, 18)):
        cycle = tmp_path / "loop" / f"cycle-{number:03d}"
        chosen = {question.id for _, _, question in read_squad(cycle / "train.json").items()}
        part, refused = Labels(cycle / "labels"), 0
        for place, (_, _, question) in enumerate(read_squad(folder / "pool.json").items()):
            if question.id in chosen:
                assert len(part.logits(place)[0]) > 0
                continue
            refused += 1
            with pytest.raises(DataError, match=f"of chosen questions alone, not of number {place}"):
                part.logits(place)
        assert len(chosen) == count and refused == part.questions - count
    # The first cycle's questions are those of any strategy, and so is what the student made of them.
    whole = Labels(honest / "cycle-000" / "labels")
    part = Labels(tmp_path / "loop" / "cycle-000" / "labels")
    first = {question.id for _, _, question in read_squad(honest / "cycle-000" / "train.json").items()}
    for place, (_, _, question) in enumerate(read_squad(folder / "pool.json").items()):
        if question.id in first:
            np.testing.assert_allclose(part.logits(place), whole.logits(place), rtol=1e-2, atol=1e-3)


def test_nobody_sees_an_answer_that_was_not_chosen(folder: Path, honest: Path) -> None:
    """Teacher and student of a cycle are trained on its questions alone, and go on from the last cycle's."""
    chosen: set[str] = set()
    for number in range(2):
        cycle = honest / f"cycle-{number:03d}"
        chosen |= set(json.loads((cycle / "chosen.json").read_text())["ids"])
        part = read_squad(cycle / "train.json")
        assert {question.id for _, _, question in part.items()} == chosen
        by_teacher, by_student = (
            json.loads((cycle / name / "recipe.json").read_text()) for name in ("teacher", "model")
        )
        assert by_teacher["inputs"]["squad"]["sha256"] == by_student["inputs"]["questions"]["sha256"] == part.sha256
        assert by_student["inputs"]["labels"]["path"] == str(cycle / "labels")
        assert Labels(cycle / "labels").manifest["teacher"] == str(cycle / "teacher")
        before = honest / "cycle-000"
        assert ("init" in by_student["inputs"]) == (number == 1)
        assert by_teacher["encoder"] == model_entry(str(before / "teacher" if number else folder / "encoder"))
        steps = [json.loads(line) for line in (cycle / "model" / "metrics.jsonl").read_text().splitlines()]
        assert max(one["step"] for one in steps) == len(chosen) // 8  # one pass over the chosen ones


def test_what_the_two_disagree_on_most_is_chosen(folder: Path, honest: Path) -> None:
    squad = read_squad(folder / "pool.json")
    first, second = (json.loads((honest / f"cycle-00{n}" / "chosen.json").read_text())["ids"] for n in range(2))
    items = [(q.id, q.text, p.context) for _, p, q in squad.items() if q.id not in first]
    pairs = [(text, context) for _, text, context in items]
    student = open_reader(str(honest / "cycle-000" / "model"), device="cpu")
    teacher = LabelReader(Labels(honest / "cycle-000" / "labels"), squad)
    values = disagreements(student.placed(pairs), teacher.placed(pairs), [context for _, context in pairs])
    assert values.max() > values.min()
    order = np.argsort(-values, kind="stable")
    assert second == [items[place][0] for place in order[: len(second)]]
    # Stored logits are those of the model, rounded to 16 bits.
    by_model = open_reader(
        str(honest / "cycle-000" / "teacher"), device="cpu", precision="fp32", window=WINDOW, stride=STRIDE
    )
    one, other = teacher.placed(pairs[:4]), by_model.placed(pairs[:4])
    for stored, computed in zip(one, other, strict=True):
        np.testing.assert_array_equal(stored.first, computed.first)
        np.testing.assert_allclose(stored.start, computed.start, rtol=1e-3, atol=1e-3)


def test_what_does_not_go_together(folder: Path, tiny_squad_path: Path) -> None:
    alone = TrainSettings(rho=0.0, mse_weight=0.0)
    teacher = TeacherLearner(encoder="x", dev="y", settings=TeachSettings(precision="bf16"))
    for changed, message in (
        ({}, "without a teacher there is no soft loss"),
        ({"labels": "l", "teacher": teacher}, "not both"),
        ({"teacher": teacher}, "precision bf16, the student in no"),
        ({"settings": alone, "init": "x"}, "leave out hidden"),
    ):
        with pytest.raises(InputError, match=message):
            learner(folder, **changed)
    settings = LoopSettings(strategy="disagreement")
    with pytest.raises(InputError, match="give a student that has one"):
        run_loop(folder / "pool.json", learner(folder, settings=alone), folder / "no", settings=settings)
    with pytest.raises(DataError, match="made from other data"):
        learner(folder, labels=str(folder / "labels"), pool=str(tiny_squad_path)).check()
    prepare(folder / "pool.json", folder / "held", settings=PrepareSettings(heldout=0.5, character_count=2))
    with pytest.raises(DataError, match=r"hold out 18 questions, whose answers nobody chose: .* --heldout 0"):
        learner(folder, labels=str(folder / "labels"), features=str(folder / "held")).check()
    with pytest.raises(DataError, match="have no question 'Who\\?'"):
        LabelReader(Labels(folder / "labels"), read_squad(folder / "pool.json")).placed([("Who?", "A text.")])


def test_the_commands(folder: Path, shop: Workshop, tmp_path: Path) -> None:
    """A loop with a given teacher; a student on the questions of one of its cycles; select by disagreement."""
    pool, dev = folder / "pool.json", folder / "dev.json"
    settings = [word for name, value in SIZES.items() for word in ("--student", f"{name}={value}")]
    settings += ["--student", "epochs=1", "--student", "batch-size=8", "--student", "least_updates=3"]
    asked = ("active", "--squad", pool, "--dev", dev, "--features", folder / "features", "--labels", folder / "labels")
    loop = tmp_path / "loop"
    curve = json.loads(ran(*asked, *settings, "--first", 0.3, "--budget", 0.3, "-o", loop, "--device", "cpu", "--json"))
    assert [point["questions"] for point in curve] == [11]
    recipe = json.loads((loop / "recipe.json").read_text())
    assert (recipe["learner"]["kind"], recipe["learner"]["settings"]["least_updates"]) == ("student", 3)

    assert [one.kind for one in find_runs(loop)[1]] == ["student"]

    chosen = loop / "cycle-000" / "train.json"
    distil = ("distill", "--features", folder / "features", "--labels", folder / "labels", "--questions", chosen)
    sizes = [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    equal = ("--epochs", 1, "--least-updates", 5, "--batch-size", 8, *sizes)
    report = json.loads(ran(*distil, "--squad", pool, *equal, "-o", tmp_path / "part", "--json"))
    assert report["total_steps"] == 5
    whole = json.loads(ran(*distil[:-2], *equal, "-o", tmp_path / "whole", "--json"))
    assert whole["total_steps"] == 5
    assert "give that file too" in run(*distil, *equal, "-o", tmp_path / "no").stderr
    other = run(*distil[:-1], shop.train, "--squad", pool, *equal, "-o", tmp_path / "no")
    assert (other.exit_code, "is no part of" in other.stderr) == (1, True)

    data = json.loads(shop.dev.read_text(encoding="utf-8"))
    for question in [q for article in data["data"] for p in article["paragraphs"] for q in p["qas"]]:
        question["answers"] = []
    unlabelled = write_json(tmp_path / "unlabelled.json", data)
    select = ("select", "--pool", unlabelled, "--model", shop.run, "--device", "cpu", "--count", 4)
    two = ("--strategy", "disagreement", "--teacher", shop.teacher, "-o", tmp_path / "out.json", "--near-duplicates")
    ids = json.loads(ran(*select, *two, "--json"))["ids"]
    items = [(q.id, q.text, p.context) for _, p, q in read_squad(unlabelled).items()]
    pairs = [(text, context) for _, text, context in items]
    first, second = (open_reader(str(one), device="cpu").placed(pairs) for one in (shop.run, shop.teacher))
    values = disagreements(first, second, [context for _, context in pairs])
    assert ids == [items[place][0] for place in np.argsort(-values, kind="stable")[:4]]
    for options, message, code in (
        (("--strategy", "disagreement"), "needs --teacher", 2),
        (("--teacher", shop.teacher), "has no use for --teacher", 2),
    ):
        refused = run(*select, "-o", tmp_path / "no.json", *options)
        assert (refused.exit_code, message in refused.stderr) == (code, True), refused.stderr
    # What was compared with a teacher says all that the model alone does.
    scores = tmp_path / "out.json.scores"
    dates = {one.name: one.stat().st_mtime_ns for one in scores.iterdir()}
    ran(*select, "-o", tmp_path / "alone.json", "--scores", scores)
    assert dates == {one.name: one.stat().st_mtime_ns for one in scores.iterdir()}


def test_a_fixed_part_of_a_data_set(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "all.json", articles=5)
    whole = {q.id: (a, p.context, q) for a, p, q in read_squad(path).items()}
    part = ("labels", "part", path, "--seed", 3)
    facts = json.loads(ran(*part, "--questions", 20, "--whole-articles", "-o", tmp_path / "articles.json", "--json"))
    articles = read_squad(tmp_path / "articles.json")
    assert (facts["articles"], facts["questions"]) == (2, 36)
    assert facts["sha256"] == articles.sha256
    assert len({whole[q.id][0] for _, _, q in articles.items()}) == 2
    ran(*part, "--questions", 20, "--without-answers", "-o", tmp_path / "pool.json")
    pool = read_squad(tmp_path / "pool.json")
    assert len([q for _, _, q in pool.items() if q.unlabelled]) == 20
    assert all((p.context, q.text) == (whole[q.id][1], whole[q.id][2].text) for _, p, q in pool.items())
    assert "91 questions are more than the 90" in run(*part, "--questions", 91, "-o", tmp_path / "no.json").stderr
    assert sample_articles(read_squad(path), 20, 3).articles == articles.articles


def test_labels_of_chosen_questions_are_not_taken_for_those_of_all(folder: Path, tmp_path: Path) -> None:
    settings = LabelSettings(window=WINDOW, stride=STRIDE, precision="fp32")
    pool, teacher = folder / "pool.json", str(folder / "teacher")
    label(pool, teacher, tmp_path / "part", settings=settings, only={0})
    label(pool, teacher, tmp_path / "part", settings=settings, only={0})  # goes on
    with pytest.raises(DataError, match=r"were made with only_sha256 .*, this run has None: name another folder"):
        label(pool, teacher, tmp_path / "part", settings=settings)
    with pytest.raises(DataError, match="were made with only_sha256 None"):
        label(pool, teacher, folder / "labels", settings=settings, only={0})
