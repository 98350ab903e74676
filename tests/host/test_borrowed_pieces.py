"""Students and other models as teachers: their logits at the pieces of a teacher's labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_teacher import SIZES, TRAINING, Workshop, ran, run

from qa_edge.active.readers import open_reader
from qa_edge.align import align, align_logits
from qa_edge.borrowed_pieces import BELOW
from qa_edge.labels import Labels
from qa_edge.squad import read_squad


@pytest.fixture(scope="module")
def student(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's logits at its teacher's pieces."""
    folder = tmp_path_factory.mktemp("borrowed") / "student"
    ran("label", "--squad", shop.train, "--teacher", shop.run, "--pieces", shop.run / "labels", "-o", folder)
    return folder


def test_a_students_logits_come_back_by_offset(shop: Workshop, student: Path) -> None:
    labels, reader = Labels(student), open_reader(str(shop.run), device="cpu")
    seen = shared = number = 0
    for context, (_, paragraph) in enumerate(read_squad(shop.train).paragraphs()):
        pieces = labels.pieces(context)
        for question in paragraph.questions:
            (one,) = reader.placed([(question.text, paragraph.context)])
            found = align("offset", paragraph.context, one.first, one.behind, pieces.starts, pieces.ends)
            start, end, mask = align_logits(found, *labels.logits(number))
            for back, own, chosen, all_pieces in (
                (start, one.start, found.start_piece, labels.logits(number)[0]),
                (end, one.end, found.end_piece, labels.logits(number)[1]),
            ):
                alone = mask & (np.bincount(chosen[mask], minlength=len(pieces.starts))[chosen] == 1)
                np.testing.assert_allclose(back[alone], own[alone], rtol=2e-3, atol=2e-3)
                # Of tokens that share a piece the largest counts; no other piece is within reach of the lowest.
                assert (back[mask] >= own[mask] - 0.01).all()
                others = np.setdiff1d(np.arange(len(pieces.starts)), chosen[mask])
                assert (all_pieces[others] < own[mask].min() - BELOW + 0.05).all()
                seen, shared = seen + int(alone.sum()), shared + len(others)
            number += 1
    assert number == labels.questions and seen > 1000 and shared > 100  # words of several pieces, which the test needs


def test_a_bundle_says_what_its_run_does_and_a_teacher_what_it_did(
    shop: Workshop, student: Path, tmp_path: Path
) -> None:
    asked = ("label", "--squad", shop.train, "--pieces", shop.run / "labels")
    ran(*asked, "--teacher", shop.bundle, "-o", tmp_path / "bundle")
    manifest = json.loads(ran(*asked, "--teacher", shop.teacher, "-o", tmp_path / "teacher", "--json"))
    assert manifest["pieces_of"] == Labels(shop.run / "labels").manifest["teacher"]
    pairs = ((tmp_path / "bundle", student), (tmp_path / "teacher", shop.run / "labels"))
    for one, other in ((Labels(first), Labels(second)) for first, second in pairs):
        for question in range(one.questions):
            for found, expected in zip(one.logits(question), other.logits(question), strict=True):
                np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=0.02)


def test_the_mean_of_teacher_and_student_teaches_by_offset_alone(shop: Workshop, student: Path, tmp_path: Path) -> None:
    mean = tmp_path / "mean"
    ran("labels", "average", shop.run / "labels", student, "-o", mean)
    features = ("--squad", shop.train, "--features", shop.run / "features", "--labels", mean, *SIZES, *TRAINING)
    for wrong in (("--alignment", "rule", "--mse-weight", "0"), ("--alignment", "offset", "--mse-weight", "1")):
        refused = run("distill", *features, *wrong, "-o", tmp_path / "run")
        assert refused.exit_code == 1 and "only offset finds" in refused.stderr and "Traceback" not in refused.stderr
    # The folder is not spoilt by what was refused.
    told = ran("distill", *features, "--alignment", "offset", "--mse-weight", "0", "-o", tmp_path / "run")
    assert "updates" in told


def test_what_cannot_be_labelled_so(shop: Workshop, student: Path, tmp_path: Path) -> None:
    labels, out = shop.run / "labels", tmp_path / "out"
    asked = ("label", "--teacher", shop.run, "--pieces", labels)
    for line, code, sentence in (
        ((*asked, "--squad", shop.dev, "-o", out), 1, "were made from other data"),
        ((*asked, "--squad", shop.train, "-o", labels), 1, "name another folder"),
        ((*asked, "--squad", shop.train, "-o", out, "--states", shop.run / "features"), 2, "without --states"),
        ((*asked, "--squad", shop.train, "-o", out, "--window", "80"), 2, "those of its LABELS"),
        (("label", "--squad", shop.train, "--teacher", shop.run, "--pieces", tmp_path, "-o", out), 1, "does not exist"),
    ):
        refused = run(*line)
        assert refused.exit_code == code and sentence in refused.stderr and not out.exists(), refused.stderr
    # Another model's labels are not gone on with.
    refused = run("label", "--teacher", shop.bundle, "--pieces", labels, "--squad", shop.train, "-o", student)
    assert refused.exit_code == 1 and "were made with" in refused.stderr
