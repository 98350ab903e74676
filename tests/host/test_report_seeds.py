"""Whose scores a row of the report holds: which runs are seeds of one another, and which belong to no row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paper_runs import HARD, KD, cell, write, write_loop, write_run, write_teacher
from tiny_teacher import write_example_teacher

from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import EXPERIMENTS
from qa_edge.experiments.paper import train_questions
from qa_edge.experiments.report import paper_report
from qa_edge.experiments.runner import Plan, run_experiment, runs_of
from qa_edge.experiments.sources import Sources
from qa_edge.features import Features

SIZES = {"hidden": 16, "model_blocks": 1, "encoder_convolutions": 1, "model_convolutions": 1, "character_dim": 8}
BASE, TEACHER, TEACHER_40 = "QANet (Base)", "BERTLARGE (Teacher)", "BERTLARGE (Teacher) 40%"


def note(runs: Path, number: str, name: str) -> str:
    (found,) = (row.note for row in paper_report(runs).table(number).rows if row.name == name)
    return found


def test_a_seed_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    for table in ("table2", "table6"):  # both have a base, and write the same weights
        write_run(tmp_path / table / "base-seed0", 70.0, train=HARD, taught=False)
    assert cell(paper_report(tmp_path), "2", BASE)[0] == 70.0 and "seeds" not in note(tmp_path, "2", BASE)
    write_run(tmp_path / "table2" / "base-seed1", 72.0, train={**HARD, "seed": 1}, taught=False)
    assert cell(paper_report(tmp_path), "2", BASE)[0] == 71.0
    assert note(tmp_path, "2", BASE).endswith("mean of 2 seeds")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rate": 2e-3}, "rate 0.002"),
        ({"optimizer": "muon"}, "optimizer muon"),
        ({"schedule": "cosine"}, "schedule cosine"),
        ({"batch_size": 32}, "batch size 32"),
        ({"table": "int4"}, "table int4"),
        ({"weight_decay": 0.0}, "weight decay 0"),
    ],
)
def test_runs_of_other_settings_have_no_mean(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_run(tmp_path / "other" / "kd-seed1", 90.0, train={**KD, **changed, "seed": 1})
    assert said in note(tmp_path, "2", "QANet+KD (Proposed)")
    write_run(tmp_path / "table2" / "kd-seed0", 70.0, train=KD)
    assert cell(paper_report(tmp_path), "2", "QANet+KD (Proposed)")[0] == 70.0
    assert note(tmp_path, "2", "QANet+KD (Proposed)") == "30 passes over 83,000 questions"


def test_what_decides_nothing_keeps_no_seeds_apart(tmp_path: Path) -> None:
    """Hard labels have no temperature, and how often a run is saved changes nothing."""
    write_run(tmp_path / "a", 70.0, train={**HARD, "save_every": 400}, taught=False)
    write_run(tmp_path / "b", 72.0, train={**HARD, "temperature": 2.0, "seed": 1}, taught=False)
    assert cell(paper_report(tmp_path), "2", BASE)[0] == 71.0
    assert note(tmp_path, "2", BASE) == "30 passes over 83,000 questions; mean of 2 seeds"


def test_other_data_have_no_mean(tmp_path: Path) -> None:
    for seed, data in enumerate("ab"):
        inputs = {"features": {"path": f"/features-{data}", "sha256": data}}
        write_run(tmp_path / data, 70.0 + seed, train={**HARD, "seed": seed}, taught=False, inputs=inputs)
    assert "seeds" not in note(tmp_path, "2", BASE)


def test_seeds_of_a_choice_have_features_of_their_own(tmp_path: Path) -> None:
    """Each seed's loop chooses other questions; what the seeds have in common is the experiment's."""
    name = "QANet+KD (Proposed) 40%"
    for seed in range(2):
        inputs = {one: {"path": f"/{one}-{seed}", "sha256": f"{one} {seed}"} for one in ("features", "labels")}
        made = {"train": {**KD, "seed": seed}, "chosen": True, "inputs": inputs}
        write_run(tmp_path / "table6" / f"kd-chosen-seed{seed}", 60.0 + 2 * seed, **made)
        write_run(tmp_path / "again" / f"kd-chosen-seed{seed}", 10.0, **made, questions=1000)
    for folder, rate in (("table6", 5e-5), ("again", 1e-4)):
        recipe = {"kind": "experiment", "inputs": {}, "teach": {"rate": rate}}
        write(tmp_path / folder / "recipe.json", {"format_version": 1, **recipe})
    assert cell(paper_report(tmp_path), "6", name)[0] == 61.0
    assert note(tmp_path, "6", name).endswith("mean of 2 seeds")


@pytest.mark.parametrize(("seeds", "labels", "mean"), [(2, "own", 61.0), (1, "own", 60.0), (2, "other", 60.0)])
def test_a_student_on_a_loops_questions(seeds: int, labels: str, mean: float, tmp_path: Path) -> None:
    """Its seeds are the loop's too, if its teacher was fine-tuned in the same cycle."""
    for number in range(2):
        cycle = tmp_path / f"loops/{number}/cycle-004"
        write_loop(cycle.parent, "least-confidence", {0.4: 66.0}, seed=number % seeds)
        write(cycle / "metrics.json", {"share": 0.4})
        teacher = cycle / "model" if labels == "own" else "somebody"
        write(tmp_path / f"labels-{number}" / "manifest.json", {"teacher": str(teacher)})
        inputs = {
            "questions": {"path": str(cycle / "train.json"), "sha256": f"q{number}"},
            "labels": {"path": str(tmp_path / f"labels-{number}"), "sha256": f"l{number}"},
        }
        write_run(tmp_path / f"joint/{number}", 60.0 + 2 * number, train=KD, inputs=inputs)
    assert cell(paper_report(tmp_path), "6", "QANet+KD (Proposed) 40%")[0] == mean


def test_students_that_went_on_from_others_are_seeds_as_those_are(tmp_path: Path) -> None:
    for seed, rate in ((0, 1e-3), (1, 1e-3), (2, 5e-4)):
        write_run(tmp_path / f"first-{seed}", 10.0, train={**HARD, "rate": rate, "seed": seed}, taught=False)
        inputs = {"init": {"path": str(tmp_path / f"first-{seed}"), "sha256": str(seed)}}
        write_run(tmp_path / f"on-{seed}", 70.0 + 2 * seed, train=HARD, taught=False, inputs=inputs)
    assert cell(paper_report(tmp_path), "2", BASE)[0] == 71.0


def test_loops_that_differ_in_more_than_the_seed_have_no_mean(tmp_path: Path) -> None:
    write_loop(tmp_path / "a", "random", {0.1: 60.0})
    write_loop(tmp_path / "b", "random", {0.1: 62.0}, seed=1)
    assert cell(paper_report(tmp_path), "5", "10 %") == (61.0, 79.26)
    write_loop(tmp_path / "c", "random", {0.1: 90.0}, seed=2, teach={"rate": 1e-4})
    write_loop(tmp_path / "d", "random", {0.1: 90.0}, seed=1)  # the second again
    write_loop(tmp_path / "e", "random", {0.1: 90.0}, seed=3, first=0.05)
    report = paper_report(tmp_path)
    assert cell(report, "5", "10 %") == (61.0, 79.26)
    assert report.table("5").notes[0].endswith("Loops (seeds): RAND 2.")
    (only,) = paper_report_notes(tmp_path / "c")
    assert "rate 0.0001" in only
    (only,) = paper_report_notes(tmp_path / "e")
    assert "first batch 5 %" in only


def paper_report_notes(loop: Path) -> tuple[str, ...]:
    """What is said of a loop that is alone."""
    return paper_report(loop).table("5").notes


def test_loops_of_students_with_other_teachers_or_sizes_have_no_mean(tmp_path: Path) -> None:
    learner = {"kind": "student", "inputs": {"labels": {"path": "/a", "sha256": "a"}}, "settings": {}, "teacher": None}
    write_loop(tmp_path / "a", "random", {0.1: 60.0}, learner={**learner, "sizes": {}})
    others = {"labels": {"path": "/b", "sha256": "b"}}
    write_loop(tmp_path / "b", "random", {0.1: 90.0}, seed=1, learner={**learner, "sizes": {}, "inputs": others})
    write_loop(tmp_path / "c", "random", {0.1: 90.0}, seed=2, learner={**learner, "sizes": {"hidden": 96}})
    assert cell(paper_report(tmp_path), "5", "10 %")[0] in (60.0, 90.0)
    for loop, said in (("a", "taught by a"), ("b", "taught by b"), ("c", "hidden 96")):
        (found,) = paper_report_notes(tmp_path / loop)
        assert said in found


def test_a_loop_that_begins_with_all_labels_is_no_seed_of_random(tmp_path: Path) -> None:
    write_loop(tmp_path / "a", "random", {0.01: 40.0, 1.0: 80.0})
    write_loop(tmp_path / "b", "random", {1.0: 90.0}, seed=1, first=1.0)
    report = paper_report(tmp_path)
    assert cell(report, "5", "100 %") == (80.0, 88.34)
    assert cell(report, "5", "1 %")[0] == 40.0


def test_passes_are_counted_from_the_updates(tmp_path: Path) -> None:
    train = {**HARD, "epochs": 1, "least_updates": 3000, "batch_size": 32}
    write_run(tmp_path / "run", 60.0, train=train, taught=False, questions=3200, steps=3000)
    assert note(tmp_path, "2", BASE).startswith("30 passes over 3,200 questions; batch size 32")
    write_run(tmp_path / "stopped", 65.0, train={**HARD, "patience": 3}, taught=False, questions=83_000, steps=59_286)
    assert note(tmp_path, "2", BASE) == "10 passes over 83,000 questions; patience 3"
    # What does not fill a pass's last batch is left out of it.
    write_run(tmp_path / "whole", 70.0, train={**HARD, "batch_size": 32}, taught=False)
    assert note(tmp_path, "2", BASE) == "30 passes over 83,000 questions; batch size 32"


def write_squad(path: Path, questions: int) -> Path:
    """A SQuAD file of so many questions."""
    answers = [{"text": "A", "answer_start": 0}]
    asked = [{"id": str(number), "question": "Who?", "answers": answers} for number in range(questions)]
    write(path, {"data": [{"title": "t", "paragraphs": [{"context": "A text.", "qas": asked}]}]})
    return path


def test_a_teacher_of_a_part_is_not_the_papers(tmp_path: Path) -> None:
    runs, part = tmp_path / "runs", write_squad(tmp_path / "part.json", 40)
    write_teacher(runs / "part", part, 50.0, epochs=9)
    assert cell(paper_report(runs), "2", TEACHER)[0] is None
    for strategy, f1 in (("least-confidence", 71.0), ("random", 99.0)):
        cycle = runs / f"loops/{strategy}/cycle-004"
        write_loop(cycle.parent, strategy, {0.4: 66.0})
        write(cycle / "metrics.json", {"share": 0.4})
        write_teacher(runs / f"on-{strategy}", write_squad(cycle / "train.json", 3200), f1)
    found = paper_report(runs)
    assert cell(found, "6", TEACHER_40)[0] == 71.0 and cell(found, "2", TEACHER)[0] is None
    assert note(runs, "6", TEACHER_40) == "bert-large; 2 passes over 3,200 questions"
    whole = write_squad(tmp_path / "train.json", train_questions())
    write_teacher(runs / "whole", whole, 80.0, rate=1e-4)
    assert cell(paper_report(runs), "2", TEACHER)[0] == 80.0
    assert note(runs, "2", TEACHER) == "bert-large; 2 passes over 87,599 questions; rate 0.0001"
    whole.unlink()  # nobody can say any more what it was trained on
    assert cell(paper_report(runs), "2", TEACHER)[0] is None


def test_an_experiments_teacher_fills_its_row(
    one_thread: None, tiny_squad_path: Path, tiny_features: Features, tmp_path: Path
) -> None:
    teacher = write_example_teacher(tmp_path / "teacher")
    sources = Sources(dev=str(tiny_squad_path), features=str(tiny_features.folder), teacher=str(teacher))
    plan = Plan(
        experiment=runs_of(EXPERIMENTS["table2"], ("base",)),
        runs=tmp_path / "runs",
        budget=Budget(share=0.4, epochs=1, dev=12),
        sources=sources,
        train={"batch_size": 8},
        student={**SIZES, "preset": "edge"},
    )
    assert run_experiment(plan) == []
    scores = json.loads((plan.folder / "teacher" / "evaluations.json").read_text())["dev"]
    assert cell(paper_report(plan.runs), "2", TEACHER) == (scores["f1"], 93.15)
    assert note(plan.runs, "2", TEACHER) == f"teacher; trained elsewhere; scored on 12 questions of {scores['on']}"
    # One that qa-edge teach made of a part fills no row.
    write_teacher(teacher, write_squad(tmp_path / "part.json", 40), 50.0)
    assert run_experiment(plan) == []
    assert json.loads((plan.folder / "teacher" / "experiment.json").read_text())["questions"] == 40
    assert cell(paper_report(plan.runs), "2", TEACHER)[0] is None
