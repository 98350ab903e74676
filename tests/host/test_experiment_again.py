"""An experiment's command given again with other files, models or parts of it: nothing stale or taken for more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paper_runs import HARD, KD, cell, write, write_loop, write_run
from tiny_teacher import ran, run

from qa_edge.cli.experiment import command_said
from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import EXPERIMENTS
from qa_edge.experiments.report import paper_report
from qa_edge.experiments.results import collect_results
from qa_edge.experiments.results_page import conclusion, curve_conclusion, results_page
from qa_edge.experiments.runner import Plan, run_experiment, runs_of, scored_files
from qa_edge.experiments.share import share_of_features
from qa_edge.experiments.sources import Sources
from qa_edge.features import Features
from qa_edge_runtime.errors import DataError, InputError

SIZES = {"hidden": 16, "model_blocks": 1, "encoder_convolutions": 1, "model_convolutions": 1, "character_dim": 8}
LINE_SIZES = [word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size))]


@pytest.fixture
def plan(one_thread: None, tiny_sources: Sources, tmp_path: Path) -> Plan:
    return Plan(
        experiment=runs_of(EXPERIMENTS["kd"], ("hard", "rule")),
        runs=tmp_path / "runs",
        budget=Budget(share=0.6, epochs=1, dev=40),
        sources=tiny_sources,
        train={"batch_size": 8},
        student=SIZES,
    )


@pytest.fixture
def given_files(tiny_squad_path: Path, tiny_vectors_path: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """Data, vectors, a small budget and sizes on the command line, its runs in `tmp_path`."""
    files = ("--squad", tiny_squad_path, "--dev", tiny_squad_path, "--vectors", tiny_vectors_path, "--runs", tmp_path)
    return (*files, "--budget", "epochs=1,dev=12", *LINE_SIZES)


def only(plan: Plan, variant: str, **budget: Any) -> Plan:
    return replace(plan, experiment=runs_of(plan.experiment, (variant,)), budget=replace(plan.budget, **budget))


def test_scores_on_another_test_set_are_not_compared(plan: Plan) -> None:
    assert run_experiment(plan) == []
    assert collect_results(plan, scored_files(plan), resamples=200)["variants"][1]["difference"]
    whole = replace(plan, budget=replace(plan.budget, dev=None))
    assert run_experiment(only(plan, "hard", dev=None)) == []
    found = collect_results(whole, scored_files(whole), resamples=200)
    assert found["tests"]["dev"] == {"on": "tiny.json", "total": 108, "of": 108, "scored": 1}
    assert found["variants"][1]["scores"] == found["variants"][1]["difference"] == {}
    assert "**1 of 2 runs have not answered these questions yet:**" in results_page(found, "again")
    assert run_experiment(whole) == []
    found = collect_results(whole, scored_files(whole), resamples=200)
    assert found["variants"][1]["difference"]["dev"]["f1"] and "not answered" not in results_page(found, "again")


def test_a_part_is_drawn_again_of_another_file_of_the_same_name(plan: Plan, tmp_path: Path) -> None:
    one = only(plan, "hard")
    assert run_experiment(one) == []
    before = json.loads((one.folder / "hard-seed0" / "evaluations.json").read_text())["dev"]
    assert plan.sources.dev is not None
    other = tmp_path / "other" / Path(plan.sources.dev).name
    text = json.loads(Path(plan.sources.dev).read_text(encoding="utf-8"))
    for article in text["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["answers"] = [{"text": paragraph["context"], "answer_start": 0}]
    write(other, text)
    moved = replace(one, sources=replace(one.sources, dev=str(other)))
    assert run_experiment(moved) == []
    after = json.loads((one.folder / "hard-seed0" / "evaluations.json").read_text())["dev"]
    assert after["on"] == before["on"] == "tiny-40-of-108.json" and after["sha256"] != before["sha256"]
    assert collect_results(moved, scored_files(moved), resamples=200)["tests"]["dev"]["scored"] == 1


def test_features_of_a_share_are_called_one(plan: Plan, tiny_features: Features, tmp_path: Path) -> None:
    share_of_features(tiny_features.folder, tmp_path / "part", 0.8)
    assert Features.open(tmp_path / "part").share == 0.8 and Features.open(tiny_features.folder).share == 1
    part = only(plan, "hard", share=1.0)
    part = replace(part, sources=replace(part.sources, features=str(tmp_path / "part")))
    assert run_experiment(part) == []
    found = collect_results(part, scored_files(part), resamples=200)
    page = results_page(found, "again")
    assert found["data"]["share"] == 0.8 and "1 pass over 80 % of the articles, 1 seed: 80 % of the articles" in page
    assert "all articles" not in page and "On paragraphs (40 of 108 questions) hard labels" in conclusion(found)
    half = replace(part, runs=tmp_path / "half", budget=replace(part.budget, share=0.5))
    assert run_experiment(half) == []
    shared = Features.open(half.folder / "inputs" / "features").manifest["share"]
    assert shared == {"share": 0.4, "seed": 0, "articles": 2, "of_articles": 5}
    assert "over 40 % of the articles" in half.said_size


def test_a_teacher_may_come_later_and_a_mistyped_one_comes_to_nothing(
    one_thread: None, given_files: tuple[str | Path, ...], tiny_teacher_path: Path, tmp_path: Path
) -> None:
    line = ("experiment", "kd", *given_files, "--batch-size", "8")
    windows = ("--label", "window=64,stride=16")
    mistyped = run(*line, "--only", "hard", "--only", "rule", "--teacher", tmp_path / "teachr", *windows)
    assert mistyped.exit_code == 1 and "teachr cannot be found or read" in mistyped.stderr
    assert not (tmp_path / "kd").exists()
    ran(*line, "--only", "hard", *windows)
    taught = (*line, "--only", "rule", "--teacher", tiny_teacher_path, *windows)
    assert "| hard labels alone |" in ran(*taught) and "| KD, rule alignment |" in ran(*taught)
    ran(*line, "--only", "hard", *windows)  # without the teacher again
    models = json.loads((tmp_path / "kd" / "recipe.json").read_text())["models"]
    assert models["teacher"]["name"] == tiny_teacher_path.name


def test_tables_of_the_same_runs_take_them_with_what_each_needs(
    one_thread: None,
    given_files: tuple[str | Path, ...],
    tiny_squad_path: Path,
    tiny_teacher_path: Path,
    tmp_path: Path,
) -> None:
    line = (*given_files, "--batch-size", "4", "--preset", "edge", "--label", "window=64,stride=16")
    teach: tuple[str | Path, ...] = ("--encoder", tiny_teacher_path, "--teach", "epochs=1,window=64,stride=16")
    ran("experiment", "table2", *line, "--only", "base")
    ran("experiment", "table6", *line, *teach, "--only", "base-chosen")
    adversarial: list[str | Path] = []
    for name in ("AddSent", "AddOneSent"):
        (tmp_path / f"{name}.json").write_text(tiny_squad_path.read_text(encoding="utf-8"), encoding="utf-8")
        adversarial += ["--adversarial", tmp_path / f"{name}.json"]
    both = ("experiment", "table7", *line, *teach, "--teacher", tiny_teacher_path, *adversarial)
    found = json.loads(ran(*both, "--only", "base", "--only", "base-chosen", "--json"))
    assert [one["experiment"] for one in found] == ["table2", "table6"]
    assert all("AddSent" in one["tests"] for one in found)
    (one,) = (json.loads(ran(*both, "--only", "base-chosen", "--json")),)
    assert one["experiment"] == "table6"
    refused = run(*both, "--only", "soft")
    assert refused.exit_code == 2 and "experiment table2 has no variant 'soft'" in refused.stderr


def test_loops_say_what_they_are_and_another_test_set_is_refused(
    one_thread: None, tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    line: tuple[str | Path, ...] = (
        "experiment",
        "table4",
        "--only",
        "random",
        "--squad",
        tiny_squad_path,
        "--dev",
        tiny_squad_path,
    )
    line += ("--encoder", tiny_teacher_path, "--teach", "epochs=1,window=64,stride=16", "--runs", tmp_path)
    page = ran(*line, "--budget", "epochs=3,dev=12,labels=0.1")
    assert (
        "## How\n\nlabels up to 10 % of the questions of all articles, 1 seed: teacher; pool of 108 questions" in page
    )
    assert "scored on 12 questions" in page and "pass" not in page
    ran(*line, "--budget", "epochs=9,dev=12,labels=0.1")  # encoders have their own
    other = run(*line, "--budget", "dev=13,labels=0.1")
    assert other.exit_code == 1 and "was begun with dev of SHA-256" in other.stderr


def test_a_set_whose_name_is_taken_is_refused(plan: Plan) -> None:
    for names in (("a/dev.json",), ("a/typos.json",), ("a/AddSent.json", "b/AddSent.json")):
        with pytest.raises(InputError, match="as another set is: give it another name"):
            replace(plan.sources, adversarial=names).require(plan.experiment)


def test_the_command_of_a_page_is_of_all_runs_and_tells_its_files_apart(tmp_path: Path) -> None:
    for name in ("strong", "given"):
        (tmp_path / name / "labels").mkdir(parents=True)
    given = [
        "experiment",
        "ensemble",
        "--labels",
        f"a={tmp_path}/strong/labels",
        "--labels",
        f"b={tmp_path}/given/labels",
    ]
    given += ["--teacher", "deepset/bert-large", "--only", "a", "--process", "0", "--processes=2", "--json"]
    said = "qa-edge experiment ensemble --labels a=strong/labels --labels b=given/labels --teacher deepset/bert-large"
    assert command_said(given) == said
    assert (
        command_said(["experiment", "kd", "--features", f"{tmp_path}/strong"])
        == "qa-edge experiment kd --features strong"
    )


def test_counts_of_an_earlier_command_stay(tiny_squad_path: Path, tmp_path: Path) -> None:
    ran("experiment", "table1", "--squad", tiny_squad_path, "--runs", tmp_path)
    assert "train" not in ran("experiment", "table1", "--dev", tiny_squad_path, "--runs", tmp_path)
    assert json.loads((tmp_path / "table1" / "counts.json").read_text()).keys() == {"train", "dev"}


def test_a_damaged_record_is_one_sentence(plan: Plan) -> None:
    one = only(plan, "hard")
    assert run_experiment(one) == []
    for found, lacking in (({}, "kind"), ({"kind": "distill"}, "data")):
        write(one.folder / "hard-seed0" / "experiment.json", {"format_version": 1, **found})
        with pytest.raises(DataError, match=rf"is damaged \(it has no {lacking}\): remove it, and"):
            collect_results(one, scored_files(one))
    (one.folder / "hard-seed0" / "experiment.json").unlink()
    assert run_experiment(one) == [] and collect_results(one, scored_files(one))["runs"]["finished"] == 1


def test_variants_with_held_out_articles_of_their_own_are_not_ranked(plan: Plan) -> None:
    assert run_experiment(plan) == []
    found = collect_results(plan, scored_files(plan), resamples=200)
    assert "has the highest F1" in results_page(found, "again")
    found["variants"][1]["chosen"] = "random"
    page = results_page(found, "again")
    assert "other ones from variant to variant: no ranking" in page and "has the highest F1" not in page


def test_curves_are_compared_seed_by_seed() -> None:
    def point(by_seed: dict[str, float]) -> dict[str, Any]:
        values = by_seed.values()
        counted = {"lowest": min(values), "highest": max(values), "mean": sum(values) / len(values)}
        return {"share": 0.1, "seeds": len(values), "by_seed": by_seed, **counted}

    curves = {"random": [point({"0": 60.0, "1": 52.0})], "least-confidence": [point({"0": 60.0})]}
    said = curve_conclusion({"curves": {"exact_match": curves}, "baseline": "random"})
    assert said == "least-confidence against random, EM: +0.00 at 10 %; one seed, so that chance cannot be told."
    curves["least-confidence"] = [point({"2": 60.0})]
    assert curve_conclusion({"curves": {"exact_match": curves}, "baseline": "random"}).startswith("Nothing can be")


def test_the_report_names_cells_of_fewer_seeds_and_loops_that_it_leaves_out(tmp_path: Path) -> None:
    write_loop(tmp_path / "random-0", "random", {0.1: 50.0, 0.2: 60.0})
    write_loop(tmp_path / "random-1", "random", {0.1: 52.0}, seed=1)
    write_loop(tmp_path / "lc-0", "least-confidence", {0.1: 54.0, 0.2: 61.0})
    write_loop(tmp_path / "begun", "random", {0.01: 30.0}, pool=80_000)
    table = paper_report(tmp_path).table("5")
    notes = " ".join(table.notes)
    assert "Loops (seeds): RAND 2, LC 1; of fewer, and not to be compared with the others: RAND at 20 % 1." in notes
    assert "Left out, not being comparable: minilm; pool of 80,000 questions, to 1 %." in notes
    assert [one.here for one in table.rows[1].cells[:2]] == [51.0, 54.0]


def test_the_report_names_the_word_vectors(tmp_path: Path) -> None:
    for name, vectors, said in (
        ("a", None, "no word vectors"),
        ("b", "glove.6B.100d.txt", "vectors glove.6B.100d.txt"),
    ):
        write_run(tmp_path / name / "kd-seed0", 70.0, train=KD)
        path = tmp_path / name / "kd-seed0" / "experiment.json"
        record = json.loads(path.read_text())
        record["data"]["vectors"] = vectors
        write(path, record)
        (row,) = (row for row in paper_report(tmp_path / name).table("2").rows if row.name == "QANet+KD (Proposed)")
        assert said in row.note
    manifest = {"vectors": "glove.6B.300d.txt"}
    write(tmp_path / "c" / "features" / "manifest.json", manifest)
    inputs = {"features": {"path": str(tmp_path / "c" / "features"), "sha256": "f"}}
    write_run(tmp_path / "c" / "base", 70.0, train=HARD, taught=False, inputs=inputs)
    assert cell(paper_report(tmp_path / "c"), "2", "QANet (Base)")[0] == 70.0
    (row,) = (row for row in paper_report(tmp_path / "c").table("2").rows if row.name == "QANet (Base)")
    assert "vectors glove.6B.300d.txt" in row.note
