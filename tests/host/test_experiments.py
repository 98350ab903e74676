from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_teacher import ran, run
from two_processes import in_two_processes

from qa_edge.checkpoint import load_student
from qa_edge.experiments.budget import PRESETS, Budget, parse_budget
from qa_edge.experiments.collect import find_runs
from qa_edge.experiments.cost import questions_trained
from qa_edge.experiments.definitions import EXPERIMENTS, ensemble, experiments_of, names
from qa_edge.experiments.results import collect_results
from qa_edge.experiments.results_page import conclusion, results_page
from qa_edge.experiments.runner import Plan, run_experiment, runs_of, scored_files
from qa_edge.experiments.share import share_of_features
from qa_edge.experiments.sources import Sources
from qa_edge.features import Features
from qa_edge.labels import Labels
from qa_edge.noise import NOISES
from qa_edge.noisy_questions import add_noisy_questions
from qa_edge.question_scores import score_questions
from qa_edge.split import drawn_articles
from qa_edge.squad import read_squad, references
from qa_edge.train import Trainer
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.scoring import read_predictions

SIZES = {"hidden": 16, "model_blocks": 1, "encoder_convolutions": 1, "model_convolutions": 1, "character_dim": 8}
BUDGET = Budget(share=0.6, epochs=2, dev=40)
WEIGHTS = "model.safetensors"
VECTORS = ("only", "glove", "encoder", "both")


class Killed(BaseException):
    """Passes every handler, as a kill does."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, target: str, call: int) -> Iterator[None]:
    """Die before the given call, counted from 1, of a function."""
    calls = 0
    with monkeypatch.context() as patch:
        from importlib import import_module

        place, _, name = target.rpartition(".")
        owner: Any = Trainer if place.endswith("Trainer") else import_module(place)
        original: Callable[..., Any] = getattr(owner, name)

        def dying(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return original(*arguments, **keywords)

        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            yield


@pytest.fixture
def plan(one_thread: None, tiny_sources: Sources, tmp_path: Path) -> Plan:
    return Plan(
        experiment=runs_of(EXPERIMENTS["kd"], ("hard", "rule-cubic")),
        runs=tmp_path / "runs",
        budget=BUDGET,
        sources=tiny_sources,
        train={"batch_size": 8, "temperature": 2.0},
        student=SIZES,
    )


def test_a_share_is_whole_articles_that_fit_the_labels_of_all(tiny_features: Features, tmp_path: Path) -> None:
    share_of_features(tiny_features.folder, tmp_path / "share", 0.5)
    part, whole = Features.open(tmp_path / "share"), tiny_features
    assert part.manifest["share"] == {"share": 0.5, "seed": 0, "articles": 2, "of_articles": 5}
    articles = set(part.context_article.tolist())
    kept = [i for i in range(len(whole)) if whole.context_article[whole.question_context[i]] in articles]
    assert part.question_number.tolist() == whole.question_number[kept].tolist()
    assert 0 < len(part) == part.manifest["questions"] < len(whole)

    def seen(features: Features, row: int) -> tuple[Any, ...]:
        """All that training sees of a question."""
        context = int(features.question_context[row])
        words = slice(features.question_offsets[row], features.question_offsets[row + 1])
        tokens = slice(features.context_offsets[context], features.context_offsets[context + 1])
        return (
            features.context_text(context),
            int(features.context_number[context]),
            features.question_tokens[words].tolist(),
            *(getattr(features, f"context_{name}")[tokens].tolist() for name in ("tokens", "starts", "ends")),
            (int(features.answer_start[row]), int(features.answer_end[row])),
        )

    assert [seen(part, row) for row in range(len(part))] == [seen(whole, row) for row in kept]
    # A larger share holds the smaller one, so that budgets can be compared.
    assert set(drawn_articles(420, 0.1).tolist()) < set(drawn_articles(420, 0.25).tolist())
    assert len(drawn_articles(420, 0.25)) == 105


def test_killed_anywhere_an_experiment_goes_on_to_the_same_weights(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unbroken, its two runs by two processes, the second first.
    left = run_experiment(plan, process=1, processes=2)
    assert [one.name for one in left] == ["hard-seed0"]
    assert run_experiment(plan, process=0, processes=2) == []
    broken = replace(plan, runs=tmp_path / "broken")
    for target, call in (
        ("qa_edge.experiments.inputs.share_of_features", 1),
        ("qa_edge.experiments.runner.training_course", 1),  # trained, but nothing says so
        ("qa_edge.train.Trainer._evaluate", 2),  # of the second run, and every evaluation saves
        ("qa_edge.experiments.records.predict", 1),
        ("qa_edge.experiments.records.score_questions", 1),
    ):
        with killed_at(monkeypatch, target, call):
            run_experiment(broken)
    first = (broken.folder / "hard-seed0" / WEIGHTS).stat().st_mtime_ns
    assert run_experiment(broken) == []
    assert (broken.folder / "hard-seed0" / WEIGHTS).stat().st_mtime_ns == first
    for name in ("hard-seed0", "rule-cubic-seed0"):
        assert (broken.folder / name / WEIGHTS).read_bytes() == (plan.folder / name / WEIGHTS).read_bytes()
        for path in ("answers/dev.json", "evaluations.json"):
            assert (broken.folder / name / path).read_text() == (plan.folder / name / path).read_text()
    hard, taught = (
        json.loads((plan.folder / f"{n}-seed0" / "recipe.json").read_text()) for n in ("hard", "rule-cubic")
    )
    assert (hard["teacher"], taught["teacher"]) == ("none", None) and "labels" in taught["inputs"]
    assert hard["inputs"]["features"] == taught["inputs"]["features"]
    check_results(plan)
    check_the_mean_over_seeds(plan, tmp_path / "twice")
    # Another budget is another experiment; another seed is more of this one.
    with pytest.raises(DataError, match=r"was begun with epochs 2, this command has epochs 3"):
        run_experiment(replace(plan, budget=replace(BUDGET, epochs=3)))
    grown = replace(plan, budget=replace(BUDGET, seeds=2))
    assert [one.name for one in run_experiment(grown, process=1, processes=5)] == ["hard-seed1", "rule-cubic-seed1"]


def check_results(plan: Plan) -> None:
    """Against scores counted here from the answers on disk."""
    files = scored_files(plan)
    assert files["dev"].name == "tiny-40-of-108.json"  # the part of the set is never called the set
    found = collect_results(plan, files, resamples=2000)
    assert found["runs"] == {"finished": 2, "planned": 2} and found["equal_steps"]
    assert found["tests"]["dev"] == {"on": "tiny-40-of-108.json", "total": 40, "of": 108, "scored": 2}
    truths = references(read_squad(files["dev"]))
    base, other = (
        score_questions(truths, read_predictions(plan.folder / f"{name}-seed0" / "answers" / "dev.json"))
        for name in ("hard", "rule-cubic")
    )
    variant = found["variants"][1]
    assert variant["scores"]["dev"]["f1"]["mean"] == pytest.approx(100 * other.f1.mean(), abs=1e-3)
    difference = variant["difference"]["dev"]
    assert difference["f1"]["difference"] == pytest.approx((other.f1 - base.f1).mean(), abs=1e-9)
    assert difference["f1"]["low"] <= difference["f1"]["difference"] <= difference["f1"]["high"]
    assert difference["by_seed"]["0"]["exact_match"]["questions"] == 40
    assert found["data"]["articles"] == 3 and found["data"]["share"] == 0.6
    said = conclusion(found)
    assert f"{100 * difference['f1']['difference']:+.2f}" in said and "hard labels alone has EM" in said
    assert "one seed, and what another would give is not in the interval" in said


def check_the_mean_over_seeds(plan: Plan, folder: Path) -> None:
    """The bootstrap over seeds looks at one value a question: with twice the same runs it is that of one."""
    shutil.copytree(plan.runs, folder)
    for name in ("hard", "rule-cubic"):
        shutil.copytree(folder / "kd" / f"{name}-seed0", folder / "kd" / f"{name}-seed1")
    twice = replace(plan, runs=folder, budget=replace(BUDGET, seeds=2))
    files = scored_files(plan)
    one, two = (collect_results(which, files, resamples=2000)["variants"][1] for which in (plan, twice))
    assert one["difference"]["dev"]["f1"] == two["difference"]["dev"]["f1"]
    assert two["difference"]["dev"]["seeds"] == [0, 1] and len(two["scores"]["dev"]["f1"]["by_seed"]) == 2


@pytest.mark.parametrize(("second", "apart"), [(0.018, True), (0.118, False)])
def test_seeds_further_apart_than_the_interval_are_said_to_be(second: float, apart: bool) -> None:
    tests = {"exact_match": {"difference": 0.1, "low": 0.09, "high": 0.11, "p_value": 1e-5}}
    tests["f1"] = {"difference": 0.12, "low": 0.11, "high": 0.13, "p_value": 1e-5}
    by_seed = {str(seed): {"f1": {"difference": value}} for seed, value in enumerate((0.12, second))}
    score = {"exact_match": {"mean": 25.0}, "f1": {"mean": 35.0}}
    variants = [
        {"name": "hard", "said": "hard labels alone", "scores": {"dev": score}, "difference": {}},
        {"name": "rule", "said": "KD", "scores": {}, "difference": {"dev": {**tests, "seeds": [0, 1], "alpha": 0.05}}},
    ]
    variants[1]["difference"]["dev"]["by_seed"] = by_seed  # type: ignore[index]
    said = conclusion({"variants": variants, "baseline": "hard", "tests": {"dev": {"total": 40, "of": 40}}})
    assert f"F1 seed by seed +12.00, {100 * second:+.2f}" in said
    assert ("further apart than the interval is wide" in said) == apart


def test_a_launchers_processes_train_each_run_together(
    one_thread: None, tiny_squad_path: Path, tiny_features: Features, tmp_path: Path
) -> None:
    sizes = [word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size))]
    inputs = ("--features", tiny_features.folder, "--dev", tiny_squad_path, "--runs", tmp_path)
    lines = ("experiment", "kd", "--only", "hard", *inputs, "--budget", "share=0.6,epochs=1,dev=12", *sizes)
    shown, nothing = in_two_processes((*lines, "--batch-size", "8", "--json"))
    assert nothing == ""  # the main one alone prints
    assert [one["name"] for one in json.loads(shown)["variants"]] == ["hard"]
    (record,) = (tmp_path / "kd").glob("hard-seed0/experiment.json")
    assert json.loads(record.read_text())["variant"] == "hard"


def test_distillation_on_what_least_confidence_chose(
    one_thread: None, tiny_squad_path: Path, tiny_vectors_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    lines = ("experiment", "table6", "--only", "base-chosen", "--only", "kd-chosen", "--runs", tmp_path)
    inputs = ("--squad", tiny_squad_path, "--dev", tiny_squad_path, "--vectors", tiny_vectors_path)
    sizes = [word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size))]
    teach = (
        "--encoder",
        tiny_teacher_path,
        "--teach",
        "epochs=1,window=64,stride=16",
        "--label",
        "window=64,stride=16",
    )
    shown = ran(*lines, *inputs, *teach, *sizes, "--preset", "edge", "--budget", "epochs=1,dev=12", "--batch-size", "4")
    folder = tmp_path / "table6"
    last = json.loads((folder / "choice-least-confidence-seed0" / "curve.json").read_text())["cycles"][-1]
    assert last["share"] == pytest.approx(0.4, abs=0.01) and last["scores"]["total"] == 12
    cycle = folder / "choice-least-confidence-seed0" / f"cycle-{last['cycle']:03d}"
    manifest = json.loads(
        (folder / "inputs" / "chosen-least-confidence-seed0" / "labels" / "manifest.json").read_text()
    )
    assert manifest["teacher"] == str(cycle / "model") and manifest["questions"] == last["questions"]
    results = json.loads((folder / "results.json").read_text())
    assert [one["name"] for one in results["variants"]] == ["base-chosen", "kd-chosen"]
    assert results["variants"][1]["teacher"] == "model" and results["variants"][0]["teacher"] is None
    assert results["data"]["chosen"] == "least-confidence" and results["runs"]["planned"] == 5
    assert shown.startswith("# table6:") and str(tmp_path) not in shown
    assert "**Unfinished: 2 of 5 runs.**" in shown


def test_a_table_of_chosen_questions_alone_takes_the_teacher_of_its_row() -> None:
    paths = {"dev": "dev.json", "squad": "train.json", "encoder": "encoder", "teacher": "teacher"}
    sources = Sources(**paths, vectors={"only": "none"})
    sources.require(runs_of(EXPERIMENTS["table6"], ("kd-chosen",)))
    with pytest.raises(InputError, match="experiment joint fine-tunes the teachers of its students itself"):
        sources.require(EXPERIMENTS["joint"])


def test_students_of_a_part_and_of_all_have_equal_updates_and_a_teacher_of_their_own(
    one_thread: None, tiny_squad_path: Path, tiny_vectors_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    inputs = ("--squad", tiny_squad_path, "--dev", tiny_squad_path, "--vectors", tiny_vectors_path)
    sizes = [word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size))]
    windows = "window=64,stride=16"
    teach = ("--encoder", tiny_teacher_path, "--teach", f"epochs=1,{windows}", "--label", windows)
    line = ("experiment", "joint", *inputs, *teach, *sizes, "--budget", "epochs=1,dev=12", "--batch-size", "4")
    shown = ran(*line, "--only", "random-40", "--only", "all", "--runs", tmp_path)
    folder = tmp_path / "joint"
    assert {path.name for path in folder.glob("choice-*")} == {"choice-random-seed0", "choice-all-seed0"}
    results = json.loads((folder / "results.json").read_text())
    part, whole = results["variants"]
    assert part["questions"] < whole["questions"] and results["equal_steps"]
    assert part["steps"] == whole["steps"] == [read_squad(tiny_squad_path).answered // 4]
    for strategy, cycles in (("random", 5), ("all", 1)):
        made = folder / "inputs" / f"chosen-{strategy}-seed0"
        labels = json.loads((made / "labels" / "manifest.json").read_text())
        found = sorted((folder / f"choice-{strategy}-seed0").glob("cycle-*"))
        assert len(found) == cycles and labels["teacher"] == str(found[-1] / "model")
    assert "questions that least confidence chose of" not in shown
    assert find_runs(folder)[0] == []  # with equal updates they are no rows of the paper's
    result = run(*line, "--teacher", tiny_teacher_path, "--runs", tmp_path / "other")
    assert result.exit_code == 2 and "fine-tunes the teachers of its students itself" in result.stderr


def test_loops_go_on_with_a_budget_of_more_labels(
    one_thread: None, tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    line = ("experiment", "table4", "--only", "random", "--squad", tiny_squad_path, "--dev", tiny_squad_path)
    encoder = ("--encoder", tiny_teacher_path, "--teach", "epochs=1,window=64,stride=16", "--runs", tmp_path)
    for labels, cycles in ((0.1, 2), (0.2, 3), (0.1, 3)):
        ran(*line, *encoder, "--budget", f"epochs=1,dev=12,labels={labels}")
        loop = tmp_path / "table4" / "random-seed0"
        assert len(list(loop.glob("cycle-*/metrics.json"))) == cycles
        assert json.loads((loop / "experiment.json").read_text())["budget"]["labels"] == max(labels, (cycles - 1) / 10)


def test_questions_without_answers_are_those_of_whole_articles_at_equal_updates(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(plan, experiment=EXPERIMENTS["unlabelled"], budget=replace(BUDGET, epochs=1))
    with killed_at(monkeypatch, "qa_edge.experiments.inputs.share_of_features", 3):
        run_experiment(whole)
    assert [path.name for path in whole.folder.glob("*-seed*")] == ["quarter-seed0"]
    assert run_experiment(whole) == []
    quarter, rest, everything = (
        Features.open(whole.folder / "inputs" / name)
        for name in ("features-quarter", "features-quarter-and-rest", "features")
    )
    (article,) = set(quarter.context_article.tolist())
    answered = rest.context_article[rest.question_context] == article
    assert rest.question_number[answered].tolist() == quarter.question_number.tolist()
    for name in ("answer_start", "answer_end"):
        own, known = getattr(rest, name), getattr(everything, name)
        assert (own[~answered] == -1).all() and (known >= 0).all() and len(own) == len(known) == 54
        assert own[answered].tolist() == known[answered].tolist() == getattr(quarter, name).tolist()
    assert np.array_equal(rest.question_tokens, everything.question_tokens)
    with pytest.raises(InputError, match=r"quarter-and-rest learns from a teacher: rho and"):
        replace(whole, train={"rho": 0.0, "mse_weight": 0.0})
    found = collect_results(whole, scored_files(whole), resamples=200)
    assert found["equal_steps"] and [one["steps"] for one in found["variants"]] == [[54 // 8]] * 3
    assert [(one["questions"], one["unanswered"]) for one in found["variants"]] == [(18, 0), (54, 36), (54, 0)]
    page = results_page(found, "again")
    assert "left to the teacher: 3 articles, 54 questions, 36 of them without an answer; all answered: 3 art" in page
    # With answers to a part of them, a run is no row of the paper's tables.
    roles = [one.role for one in find_runs(whole.folder)[0]]
    assert len(roles) == 1 and roles[0].endswith(":all")


def test_noise_is_scored_as_evaluate_does(plan: Plan, tiny_squad_path: Path, tmp_path: Path) -> None:
    clean, noisy = plan.sources.features, tmp_path / "noisy"
    assert clean is not None
    lines = ("experiment", "noise", "--runs", tmp_path / "runs", "--dev", tiny_squad_path, "--batch-size", "8")
    lines += ("--only", "noise-0", "--only", "noise-0.6", "--budget", "share=0.4,epochs=1,dev=12")
    lines += ("--labels", plan.sources.labels["only"])
    lines += tuple(word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size)))
    refused = run(*lines, "--features", clean)
    assert refused.exit_code == 2 and f"--features {clean} --noisy 2 -o NEW adds them" in refused.stderr
    add_noisy_questions(clean, tiny_squad_path, noisy, copies=2)
    shown = ran(*lines, "--features", noisy)
    folder = tmp_path / "runs" / "noise"
    part, whole = Features.open(folder / "inputs" / "features"), Features.open(noisy)
    places = np.searchsorted(whole.question_number, part.question_number)
    assert part.noisy_copies == 2 and 0 < len(part) < len(whole)
    for row, place in enumerate(places):
        assert all(np.array_equal(part.question(row, copy), whole.question(place, copy)) for copy in (-1, 0, 1))
    asked = ("--squad", tiny_squad_path, "--sample", "12", "--noise", "all", "--json")
    for variant, share in (("noise-0", None), ("noise-0.6", 0.6)):
        own = folder / f"{variant}-seed0"
        assert json.loads((own / "recipe.json").read_text())["train"]["noise"] == share
        scores = json.loads((own / "evaluations.json").read_text())
        told = json.loads(ran("evaluate", own, *asked))
        expected = {"dev": told["f1"], **{one["noise"]: one["f1"] for one in told["noises"]}}
        assert {key: one["f1"] for key, one in scores.items()} == pytest.approx(expected) and len(expected) == 5
    for variant in json.loads((folder / "results.json").read_text())["variants"]:
        f1 = [variant["scores"][key]["f1"]["mean"] for key in ("dev", *NOISES)]
        cells = (f"{f1[0]:.2f}", *(f"{noisy:.2f} ({noisy - f1[0]:+.2f})" for noisy in f1[1:]))
        assert f"| {variant['said']} | {' | '.join(cells)} |" in shown
    assert "| paragraphs | questions in lower case | mistyped questions |" in shown


def test_the_mean_of_teachers_stands_beside_each_of_them(
    plan: Plan, other_labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan.sources.labels["only"]
    sources = replace(plan.sources, labels={"one": first, "two": str(other_labels.folder)})
    whole = replace(plan, experiment=ensemble(("one", "two")), sources=sources, budget=replace(BUDGET, epochs=1))
    with killed_at(monkeypatch, "qa_edge.ensemble.write_shard", 1):
        run_experiment(whole)
    assert not (whole.folder / "inputs" / "labels-average").exists()
    assert run_experiment(whole) == []
    read = {
        name: json.loads((whole.folder / f"{name}-seed0" / "recipe.json").read_text())["inputs"]["labels"]["path"]
        for name in ("one", "two", "average")
    }
    average = whole.folder / "inputs" / "labels-average"
    assert read == {"one": first, "two": str(other_labels.folder), "average": str(average)}
    found = collect_results(whole, scored_files(whole), resamples=200)
    assert found["baseline"] == "one" and found["variants"][2]["teacher"] == "mean of teacher, other-teacher"
    assert [bool(one["difference"]) for one in found["variants"]] == [False, True, True]
    with pytest.raises(DataError, match=r"of one teacher: an average needs others"):
        run_experiment(replace(whole, sources=replace(sources, labels={"one": first, "two": first})))


def test_all_runs_go_on_from_the_same_trained_student(plan: Plan) -> None:
    one = replace(plan, experiment=runs_of(EXPERIMENTS["kd"], ("rule-cubic",)), budget=replace(BUDGET, epochs=1))
    assert run_experiment(one) == []
    trained = one.folder / "rule-cubic-seed0"
    late = replace(
        one,
        experiment=runs_of(EXPERIMENTS["grid"], ("paper", "mse-0")),
        sources=replace(plan.sources, init=str(trained)),
        train={"batch_size": 8, "rate": 1e-6, "warmup": 0},  # so low that a start from nothing would show
        student={},
    )
    assert run_experiment(late) == []
    before = load_student(trained).state_dict()
    for name in ("paper-seed0", "mse-0-seed0"):
        assert json.loads((late.folder / name / "recipe.json").read_text())["inputs"]["init"]["path"] == str(trained)
        after = load_student(late.folder / name).state_dict()
        assert all(torch.allclose(before[key], after[key], atol=1e-4) for key in before)
        assert any(not torch.equal(before[key], after[key]) for key in before)
    page = results_page(collect_results(late, scored_files(late), resamples=200), "again")
    assert "1 seed, each from the trained student rule-cubic-seed0: 60 % of the articles" in page
    # The one with interpolation is still of the paper's row, and no start of another way of learning is.
    assert sorted(found.role for found in find_runs(late.folder)[0]) == ["kd-cubic:all"]
    with pytest.raises(DataError, match="was begun with init of"):
        run_experiment(replace(late, sources=plan.sources, student=SIZES))
    with pytest.raises(InputError, match="has its sizes: leave out hidden"):
        replace(late, student=SIZES)
    for name, reason in (
        ("size", "heads-8, blocks-5, blocks-4, hidden-96, hidden-192 of experiment size would change"),
        ("vectors", "glove, none, encoder, both of experiment vectors would change"),
        ("table2", "the students of table2 begin with nothing"),
    ):
        sources = replace(late.sources, features=None, squad="s", vectors=dict.fromkeys(VECTORS, "v"))
        with pytest.raises(InputError, match=f"{reason}.*: leave out --init"):
            sources.require(EXPERIMENTS[name])


def test_budgets() -> None:
    assert parse_budget("share=0.25,epochs=4,seeds=2") == Budget(share=0.25, epochs=4, seeds=2)
    assert parse_budget("small,seeds=3,dev=2000") == replace(PRESETS["small"], seeds=3, dev=2000)
    assert parse_budget("tiny,dev=all").dev is None and parse_budget("paper") == Budget()
    assert "25 % of the articles" in str(parse_budget("small")) and "all articles" in str(parse_budget("paper"))
    for text, sentence in (
        ("large", "expected NAME=VALUE"),
        ("share=2", "0 < share <= 1"),
        ("epochs=0", "expected at least 1"),
        ("epochs=1.5", "a whole number"),
        ("tiny,rounds=3", "with a name of share"),
    ):
        with pytest.raises(InputError, match=sentence):
            parse_budget(text)


def test_short_budgets_get_a_schedule_that_ends_and_the_papers_gets_the_papers(plan: Plan) -> None:
    small, paper = (replace(plan, train={}, budget=parse_budget(name)) for name in ("small", "paper"))
    chosen = small.settings(EXPERIMENTS["kd"].variant("rule-cubic"), 1, questions=21_000)
    assert (chosen.schedule, chosen.batch_size, chosen.warmup, chosen.seed) == ("cosine", 32, 262, 1)
    assert (chosen.rho, chosen.temperature, chosen.mse_weight, chosen.interpolation) == (0.7, 10, 1, "cubic")
    printed = paper.settings(EXPERIMENTS["kd"].variant("rule"), 0, questions=83_000)
    assert (printed.schedule, printed.batch_size, printed.warmup, printed.epochs) == ("constant", 14, 1000, 30)
    assert printed.mse_weight == 0


def test_every_experiment_can_be_listed_and_costed() -> None:
    listed = json.loads(ran("experiment", "--list", "--budget", "paper", "--json"))["experiments"]
    assert [one["name"] for one in listed] == names()
    students = {one["name"]: one["students"] for one in listed}
    assert students["kd"] == 5 * 30 * 87_599
    assert students["table7"] == students["table2"] + students["table6"]
    # 1 %, 10 %, ..., 100 % of the labels, two passes each, for five strategies.
    (table4,) = experiments_of("table5")
    trained = questions_trained(table4, Budget(), pool=87_599, teach_epochs=2)
    assert trained[0] == 0 and trained[1] == pytest.approx(5 * 2 * 5.51 * 87_599, rel=1e-3)
    assert "kd" in ran("experiment", "--list")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("experiment", "--list says which there are"),
        ("experiment nothing", "unknown experiment 'nothing'; there are kd, grid"),
        ("experiment kd --budget huge", "expected NAME=VALUE"),
        ("experiment kd --squad a.json --vectors none", "needs --dev"),
        ("experiment kd --dev d.json", "needs --squad with --vectors, or --features"),
        ("experiment kd --dev d.json --squad a.json", "needs --vectors FILE|none"),
        ("experiment kd --dev d.json --features f --only soft", "has no variant 'soft'; there are hard, rule"),
        ("experiment kd --dev d.json --features f --process 2 --processes 2", "process 2 is not one of 2"),
        ("experiment vectors --dev d.json --squad a.json --vectors glove=g.txt", "--vectors both=FILE"),
        ("experiment kd --dev d.json --features f --labels a --labels b", "give one --labels"),
        ("experiment ensemble --dev d.json --features f", "needs --labels first=FOLDER --labels second=FOLDER"),
        ("experiment ensemble --dev d.json --features f --labels a=f", "of two teachers or more"),
        ("experiment ensemble --dev d.json --features f --labels f", "expected NAME=FOLDER"),
        ("experiment ensemble --dev d.json --features f --labels a=f --labels a=g", "of this name already"),
        ("experiment ensemble --dev d.json --features f --labels a=f --labels average=g", "cannot name labels"),
        ("experiment table4 --dev d.json --squad a.json", "needs --squad and --encoder"),
        ("experiment table4 --dev d.json --squad a.json --encoder e", "needs --sentence-encoder"),
        ("experiment table7 --dev d.json --squad a.json --vectors none", "needs --adversarial AddOneSent"),
        ("experiment table3", "needs --peers"),
        ("experiment kd --dev d.json --features f --rho 2", "rho"),
    ],
)
def test_wrong_usage_is_one_sentence_before_any_work(line: str, sentence: str, tmp_path: Path) -> None:
    runs = () if line == "experiment" else ("--runs", tmp_path / "runs")
    result = run(*line.split(), *runs)
    assert result.exit_code == 2 and sentence in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_a_variant_changes_what_it_says_and_nothing_else() -> None:
    for experiment in EXPERIMENTS.values():
        assert experiment.baseline in {variant.name for variant in experiment.variants}
        assert len({variant.name for variant in experiment.variants}) == len(experiment.variants)
    grid = EXPERIMENTS["grid"]
    base = grid.variant(grid.baseline).train
    changed = {v.name: {k for k in base if v.train[k] != base[k]} for v in grid.variants if v.name != grid.baseline}
    assert changed["t-2"] == {"temperature"} and changed["t-2-mse-0.05"] == {"temperature", "mse_weight"}
    assert all(changed.values())
    shares = [variant.train["others"] for variant in EXPERIMENTS["others"].variants]
    assert np.all(np.diff(shares) > 0) and shares[0] == 0
