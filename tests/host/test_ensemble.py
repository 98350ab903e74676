"""The mean of several teachers: what it says, and what has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from tiny_models import write_json
from tiny_teacher import ran, run

from qa_edge.evaluate import predict_with_teacher
from qa_edge.labels import CONTEXTS, Labels
from qa_edge.question_scores import score_questions
from qa_edge.squad import read_squad, references
from qa_edge.teacher import Teacher


def test_the_mean_is_the_geometric_mean_at_any_temperature(
    tiny_labels: Labels, other_labels: Labels, tmp_path: Path
) -> None:
    teachers = (tiny_labels, other_labels)
    lines = ("labels", "average", *(one.folder for one in teachers), "-o", tmp_path / "mean")
    told = json.loads(ran(*lines, "--json"))
    mean = Labels(tmp_path / "mean")
    assert told["questions"] == mean.questions == 108 and told["output"] == str(mean.folder)
    assert [one["teacher_sha256"] for one in mean.manifest["sources"]] == [
        one.manifest["teacher_sha256"] for one in teachers
    ]
    mean.require(tiny_labels.manifest["squad_sha256"])
    for context in range(18):
        own, first = mean.pieces(context), tiny_labels.pieces(context)
        assert np.array_equal(own.starts, first.starts) and np.array_equal(own.ends, first.ends)
    for question in range(mean.questions):
        pairs = zip(*(one.logits(question) for one in teachers), strict=True)
        for (one, other), own in zip(pairs, mean.logits(question), strict=True):
            assert own.dtype == np.float16
            for temperature in (1.0, 3.0, 10.0):
                product = np.sqrt(np.prod([softmax(z.astype(float) / temperature) for z in (one, other)], axis=0))
                np.testing.assert_allclose(softmax(own.astype(float) / temperature), product / product.sum(), rtol=0.02)
            # The squared errors of any student differ by the same number.
            students = np.random.default_rng(question).normal(size=(16, len(own)))
            each = [np.mean([(student - z.astype(float)) ** 2 for z in (one, other)]) for student in students]
            apart = each - ((students - own.astype(float)) ** 2).mean(axis=1)
            assert np.ptp(apart) < 0.01 * np.ptp(each)
    again = run(*lines)
    assert again.exit_code == 1 and "exists already" in again.stderr
    assert "mean of teacher, other-teacher" in ran(*lines, "--force")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokenizer_sha256": "0"}, "their tokenizer differs"),
        ({"squad_sha256": "0"}, "their data differs"),
        ({"window": 80}, "their window differs"),
        ({"stride": 8}, "their stride differs"),
        ({"sources": []}, "are an average already"),
    ],
)
def test_labels_that_have_no_mean(
    change: Mapping[str, Any], sentence: str, tiny_labels: Labels, other_labels: Labels, tmp_path: Path
) -> None:
    folder = shutil.copytree(other_labels.folder, tmp_path / "changed")
    write_json(folder / "manifest.json", {**other_labels.manifest, **change})
    refused = run("labels", "average", tiny_labels.folder, folder, "-o", tmp_path / "mean")
    assert refused.exit_code == 1 and sentence in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "mean").exists()


def test_other_pieces_one_teacher_twice_and_one_alone(
    tiny_labels: Labels, other_labels: Labels, tmp_path: Path
) -> None:
    folder = shutil.copytree(other_labels.folder, tmp_path / "pieces")
    tensors = load_file(folder / CONTEXTS)
    save_file({**tensors, "ends": tensors["ends"] + 1}, folder / CONTEXTS)
    for folders, sentence, code in (
        ((tiny_labels.folder, folder), "their contexts have other pieces", 1),
        ((tiny_labels.folder, tiny_labels.folder), "are of one teacher", 1),
        ((tiny_labels.folder,), "two teachers or more, 1 given", 2),
        ((tiny_labels.folder, tmp_path / "none"), "does not exist", 1),
    ):
        refused = run("labels", "average", *folders, "-o", tmp_path / "mean")
        assert refused.exit_code == code and sentence in " ".join(refused.stderr.split()), refused.stderr
    refused = run("labels", "average", tiny_labels.folder, other_labels.folder, "-o", tiny_labels.folder, "--force")
    assert refused.exit_code == 2 and "name another folder for the mean" in " ".join(refused.stderr.split())
    assert Labels(tiny_labels.folder).manifest == tiny_labels.manifest


def test_labels_score_what_their_teacher_scores(
    tiny_labels: Labels, other_labels: Labels, tiny_squad_path: Path, tiny_teacher: Teacher, tmp_path: Path
) -> None:
    squad = read_squad(tiny_squad_path)
    expected = predict_with_teacher(tiny_teacher, squad)
    asked = ("labels", "score", tiny_labels.folder, "--squad", tiny_squad_path)
    told = json.loads(ran(*asked, "-o", tmp_path / "answers.json", "--json"))
    answers = json.loads((tmp_path / "answers.json").read_text())
    scores = score_questions(references(squad), answers)
    assert told == {"exact_match": scores.exact_match_percent, "f1": scores.f1_percent, "total": 108}
    # Labels are kept in 16 bits, which may turn a near tie of this untrained teacher.
    assert answers.keys() == expected.keys() and sum(answers[key] == expected[key] for key in expected) >= 100
    again = json.loads(
        ran("evaluate", "--predictions", tmp_path / "answers.json", "--squad", tiny_squad_path, "--json")
    )
    assert again == told and "108" in ran(*asked)
    ran("labels", "average", tiny_labels.folder, other_labels.folder, "-o", tmp_path / "mean")
    assert json.loads(ran("labels", "score", tmp_path / "mean", "--squad", tiny_squad_path, "--json"))["total"] == 108
    other = json.loads(tiny_squad_path.read_text())
    other["data"].pop()
    refused = run("labels", "score", tiny_labels.folder, "--squad", write_json(tmp_path / "other.json", other))
    assert refused.exit_code == 1 and "were made from other data" in refused.stderr
