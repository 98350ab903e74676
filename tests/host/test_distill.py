"""The whole way through the command line, on a student of 8,000 weights and a random teacher."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from full_disk import fill_disk
from safetensors.numpy import load_file, save_file
from tiny_teacher import SIZES, TRAINING, Workshop, hear_ctrl_c, ran, run, write_example_squad, write_example_teacher
from two_processes import in_two_processes

from qa_edge.squad import read_squad
from qa_edge_runtime.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def steps(shop: Workshop) -> tuple[str | Path, ...]:
    """The steps before training, done."""
    return ("--features", shop.run / "features", "--labels", shop.run / "labels")


def scored(*arguments: str | Path) -> dict[str, float]:
    return dict(json.loads(ran("evaluate", *arguments, "--json")))


def test_a_run_holds_what_export_and_resuming_need(shop: Workshop) -> None:
    files = {path.name for path in shop.run.iterdir()}
    assert files >= {"config.json", "model.safetensors", "vocabulary.json", "vectors.safetensors", "tokenizer.json"}
    assert files >= {"heldout.json", "metrics.jsonl", "recipe.json", "scores.json", "state", "features", "labels"}
    config = json.loads((shop.run / "config.json").read_text())
    assert (config["hidden"], config["model_blocks"], config["preset"], config["heads"]) == (16, 1, "edge", 1)
    heldout = {question.id for _, _, question in read_squad(shop.run / "heldout.json").items()}
    assert heldout < {question.id for _, _, question in read_squad(shop.train).items()}
    recipe = json.loads((shop.run / "recipe.json").read_text())
    assert recipe["inputs"]["squad"]["sha256"] == read_squad(shop.train).sha256
    assert recipe["train"]["epochs"] == 2 and recipe["versions"]["torch"]
    assert "finished" in shop.shown and "dev.json" in shop.shown


def test_run_bundle_and_predictions_score_the_same(shop: Workshop, tmp_path: Path) -> None:
    by_run = scored(shop.run, "--squad", shop.dev, "-o", tmp_path / "run.json")
    by_bundle = scored(shop.bundle, "--squad", shop.dev, "-o", tmp_path / "bundle.json")
    by_file = scored("--predictions", tmp_path / "bundle.json", "--squad", shop.dev)
    assert by_run == by_bundle == by_file
    assert by_run.keys() == {"exact_match", "f1", "total"} and by_run["total"] == 12
    assert json.loads((tmp_path / "run.json").read_text()) == json.loads((tmp_path / "bundle.json").read_text())
    written = json.loads((shop.run / "scores.json").read_text())
    assert {name: written[name] for name in by_run} == by_run and written["on"] == "dev.json"
    contexts = {question.id: paragraph.context for _, paragraph, question in read_squad(shop.dev).items()}
    answers = json.loads((tmp_path / "bundle.json").read_text())
    assert all(answers[identifier] in context for identifier, context in contexts.items())


def test_info_repeats_what_was_measured(shop: Workshop) -> None:
    manifest = json.loads(ran("info", shop.bundle, "--json"))
    assert manifest["scores"]["total"] == 12 and manifest["scores"]["on"] == "dev.json"
    assert manifest["verification"]["equal_spans"] == manifest["verification"]["questions"] > 0
    assert manifest["licences"] == {"data": "Apache-2.0"}
    shown = ran("info", shop.bundle)
    assert "core.fp32.onnx" in shown and "12 questions of dev.json" in shown and "Apache-2.0" in shown


def test_the_verified_questions_are_the_second_half_of_the_heldout(shop: Workshop) -> None:
    heldout = sum(1 for _ in read_squad(shop.run / "heldout.json").items())
    manifest = json.loads(ran("info", shop.bundle, "--json"))
    assert manifest["verification"]["questions"] == heldout - heldout // 2


def test_scores_of_other_weights_are_not_exported(shop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(shop.run, tmp_path / "run", ignore=shutil.ignore_patterns("state", "features", "labels"))
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    (tmp_path / "run" / "scores.json").write_text(json.dumps({**scores, "weights_sha256": "0" * 64}))
    result = run("export", tmp_path / "run", "-o", tmp_path / "stale.qab")
    assert result.exit_code == 1 and "was measured on other weights" in result.stderr
    assert not (tmp_path / "stale.qab").exists()


def test_bench_names_every_stage(shop: Workshop) -> None:
    report = json.loads(ran("bench", shop.bundle, "--squad", shop.dev, "--cold-starts", "1", "--paced", "0", "--json"))
    assert set(report["stages"]) == {"tokenise", "look_up", "infer", "decode", "total"}
    assert report["cold_start"]["peak_memory_bytes"] and report["queries"] >= 100


def test_a_stopped_run_resumes_to_the_same_weights(
    shop: Workshop, steps: tuple[str | Path, ...], tmp_path: Path
) -> None:
    begin = ("distill", *steps, "--dev", shop.dev, "-o", tmp_path / "run", *SIZES, *TRAINING)
    assert "--resume" in ran(*begin, "--max-steps", "3")
    assert not (tmp_path / "run" / "scores.json").exists()
    report = json.loads(ran("distill", "--resume", tmp_path / "run", "--json"))
    assert report["finished"] and report["scores"]["total"] == 12
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert weights == (shop.run / "model.safetensors").read_bytes()
    # The same command again is an end reached, and nothing is done twice.
    before = (tmp_path / "run" / "scores.json").stat().st_mtime_ns
    assert "finished" in ran(*begin)
    assert (tmp_path / "run" / "scores.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_once_training_has_begun(
    shop: Workshop, steps: tuple[str | Path, ...], tmp_path: Path
) -> None:
    begin = ("distill", *steps, "-o", tmp_path / "run", *SIZES, *TRAINING)
    ran(*begin, "--max-steps", "1")
    result = run(*begin, "--rho", "0.5")
    assert result.exit_code == 1
    assert "was begun with rho 0.7, this command has rho 0.5" in result.stderr
    result = run("distill", *steps, "--dev", shop.dev, "-o", tmp_path / "run", *SIZES, *TRAINING)
    assert result.exit_code == 1 and "was begun with no dev, this command has dev of SHA-256" in result.stderr


def test_a_mistake_before_training_can_be_mended_in_the_same_folder(shop: Workshop, tmp_path: Path) -> None:
    encoder = write_example_teacher(tmp_path / "encoder", head=False)
    begin = ("distill", "--squad", shop.train, "--vectors", "none", "-o", tmp_path / "run", *SIZES, *TRAINING)
    result = run(*begin, "--teacher", encoder)
    assert result.exit_code == 1 and "no trained question-answering head" in result.stderr
    assert "updates" in ran(*begin, "--teacher", shop.teacher, "--max-steps", "1")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("student", {"hidden": 96.5}),
        ("train", {"epochs": 2.5}),
        ("prepare", {"seed": "0"}),
        ("label", {"window": None}),
    ],
)
def test_a_recipe_with_a_value_that_cannot_be_is_one_sentence(
    shop: Workshop, tmp_path: Path, section: str, values: dict[str, object]
) -> None:
    recipe = json.loads((shop.run / "recipe.json").read_text())
    recipe[section] |= values
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    result = run("distill", "--resume", tmp_path)
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert f"{next(iter(values))} is {next(iter(values.values()))!r}, expected" in result.stderr


def test_a_state_without_weights_is_one_sentence(shop: Workshop, steps: tuple[str | Path, ...], tmp_path: Path) -> None:
    begin = ("distill", *steps, "-o", tmp_path / "run", *SIZES, *TRAINING)
    ran(*begin, "--max-steps", "1")
    (weights,) = (tmp_path / "run" / "state").glob("*/weights.safetensors")
    save_file({"other": load_file(weights)["weights"]}, weights)
    result = run(*begin)
    assert result.exit_code == 1 and "has no array 'weights'" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("call", [4, 9], ids=["features", "labels"])
def test_a_full_disk_before_training_is_made_good_by_the_same_command(
    shop: Workshop, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = ("--squad", shop.train, "--dev", shop.dev, "--vectors", "none", "--teacher", shop.teacher)
    begin = ("distill", *inputs, "-o", tmp_path / "run", *SIZES, *TRAINING)
    with monkeypatch.context() as patch:
        fill_disk(patch, call)
        result = run(*begin)
    assert result.exit_code == 1 and "No space left on device" in result.stderr.splitlines()[-1]
    assert (tmp_path / "run" / "features").exists() == (call == 9)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    ran(*begin)
    for name in ("model.safetensors", "scores.json", "labels/questions-00000.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (shop.run / name).read_bytes()


def test_an_input_that_changed_is_refused(shop: Workshop, tmp_path: Path) -> None:
    train = Path(shutil.copy(shop.train, tmp_path / "train.json"))
    begin = ("distill", "--squad", train, "--vectors", "none", "-o", tmp_path / "run", *SIZES, *TRAINING)
    result = run(*begin, "--teacher", tmp_path / "no-teacher")
    assert result.exit_code == 1 and "could not be loaded" in result.stderr
    write_example_squad(train, articles=2)
    result = run("distill", "--resume", tmp_path / "run")
    assert result.exit_code == 1 and "train.json has changed since the run began" in result.stderr


def test_labels_and_features_of_other_data_are_refused(shop: Workshop, tmp_path: Path) -> None:
    other = write_example_squad(tmp_path / "other.json", articles=2, paragraphs=1)
    ran("prepare", "--squad", other, "--vectors", "none", "-o", tmp_path / "features")
    labels = ("--labels", shop.run / "labels", "-o", tmp_path / "run", *SIZES)
    result = run("distill", "--features", tmp_path / "features", *labels)
    assert result.exit_code == 1 and "were made from other data" in result.stderr
    result = run("distill", "--squad", shop.train, "--features", tmp_path / "features", *labels)
    assert result.exit_code == 1 and "were made from other data" in result.stderr
    result = run("label", "--squad", other, "--teacher", shop.teacher, "-o", shop.run / "labels")
    assert result.exit_code == 1 and "squad_sha256" in result.stderr


def test_going_on_from_a_student_keeps_its_words_and_adds_those_of_the_vectors(shop: Workshop, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3\nmachine 4 5 6\n")
    first = ("distill", "--squad", shop.train, "--vectors", vectors, "--teacher", "none", "-o", tmp_path / "first")
    ran(*first, *SIZES, *TRAINING, "--max-steps", "4")
    more = tmp_path / "more.txt"
    more.write_text("the 9 9 9\nof 7 8 9\nnowhere-in-the-data 1 1 1\n")
    second = ("distill", "--squad", shop.dev, "--teacher", "none", "--init", tmp_path / "first", "--epochs", "1")
    ran(*second, "--vectors", more, "-o", tmp_path / "second", "--batch-size", "4")
    assert Vocabulary.load(tmp_path / "first").words == ("the", "machine")
    assert Vocabulary.load(tmp_path / "second").words == ("the", "machine", "of")
    kept, added = (load_file(tmp_path / name / "vectors.safetensors")["vectors"] for name in ("first", "second"))
    assert np.array_equal(added, [*kept, [7, 8, 9]])
    characters = Vocabulary.load(tmp_path / "first").characters
    assert Vocabulary.load(tmp_path / "second").characters == characters
    assert json.loads((tmp_path / "second" / "config.json").read_text())["hidden"] == 16
    more.write_text("of 7 8\n")
    result = run(*second, "--vectors", more, "-o", tmp_path / "third")
    assert result.exit_code == 1 and "have 2 numbers a word, the checkpoint" in result.stderr
    result = run(*second, "--features", shop.run / "features", "-o", tmp_path / "fourth")
    assert result.exit_code == 1 and "other data" in result.stderr
    without_squad = ("distill", "--features", shop.run / "features", "--teacher", "none", "-o", tmp_path / "fifth")
    result = run(*without_squad, "--init", tmp_path / "first")
    assert result.exit_code == 1 and "were not made for the checkpoint" in result.stderr
    # The first step from the student's own weights, not from new ones.
    untouched = ("--rate", "1e-9", "--evaluate-every", "1", "--max-steps", "1", "--ema-ceiling", "0")
    ran(*second, *untouched, "-o", tmp_path / "still")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "still"))
    assert all(np.allclose(before[name], after[name], atol=1e-6) for name in before)
    # Its regularisation may be another, and stays with the run; the weights are still its own.
    ran(*second, *untouched, "-o", tmp_path / "firm", "--dropout", "0.3", "--survival", "1")
    config = json.loads((tmp_path / "firm" / "config.json").read_text())
    assert (config["dropout"], config["character_dropout"], config["survival"]) == (0.3, 0.05, 1)
    after = load_file(tmp_path / "firm" / "model.safetensors")
    assert all(np.allclose(before[name], after[name], atol=1e-6) for name in before)
    result = run(*second, "-o", tmp_path / "sixth", "--survival", "2")
    assert result.exit_code == 2 and "survival is 2" in result.stderr and not (tmp_path / "sixth").exists()


def test_questions_without_answers_are_distilled_from_the_teacher(shop: Workshop, tmp_path: Path) -> None:
    bare = write_example_squad(tmp_path / "bare.json", articles=2, answered=False)
    begin = ("distill", "--squad", bare, "--vectors", "none", "-o", tmp_path / "run", *SIZES, *TRAINING)
    ran(*begin, "--teacher", shop.teacher, "--max-steps", "2")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["kind"] == "training"]
    assert training[0]["hard"] == 0.0 and training[0]["soft"] > 0.0


def test_one_article_has_nothing_held_out(shop: Workshop, tmp_path: Path) -> None:
    one = write_example_squad(tmp_path / "one.json", articles=1)
    begin = ("distill", "--squad", one, "--vectors", "none", "--teacher", "none", "-o", tmp_path / "run")
    assert "held-out F1" not in ran(*begin, *SIZES, "--epochs", "1", "--batch-size", "8")
    result = run("export", tmp_path / "run", "-o", tmp_path / "one.qab")
    assert result.exit_code == 1 and "--questions" in result.stderr and not (tmp_path / "one.qab").exists()
    export = ("export", tmp_path / "run", "-o", tmp_path / "one.qab", "--questions", shop.dev)
    result = run(*export)
    assert result.exit_code == 1 and "--calibration dynamic" in result.stderr and not (tmp_path / "one.qab").exists()
    ran(*export, "--calibration", "dynamic", "--margin", "100")
    assert json.loads(ran("info", tmp_path / "one.qab", "--json"))["scores"] is None


def test_prepared_steps_in_the_runs_folder_are_used(shop: Workshop, tmp_path: Path) -> None:
    made = tmp_path / "run"
    ran("prepare", "--squad", shop.train, "--vectors", "none", "-o", made / "features", "--character-count", "2")
    ran("label", "--squad", shop.train, "--teacher", shop.teacher, "-o", made / "labels", "--precision", "fp32")
    before = (made / "features" / "manifest.json").stat().st_mtime_ns
    begin = ("distill", "--squad", shop.train, "--vectors", "none", "--teacher", shop.teacher, "-o", made, *SIZES)
    result = run(*begin, "--max-steps", "1")
    assert result.exit_code == 1 and "other settings or vectors" in result.stderr
    ran(*begin, "--max-steps", "1", "--character-count", "2")
    assert (made / "features" / "manifest.json").stat().st_mtime_ns == before


def test_two_processes_print_once_share_labels_log_the_mean_and_resume_to_the_same(
    shop: Workshop, steps: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ("--dropout", "0", "--character-dropout", "0", "--survival", "1", "--json")
    begin = ("distill", *steps, *SIZES, *TRAINING, *plain)
    # Stopped between two lines of metrics, so that the state holds half a line.
    label = ("label", "--squad", shop.train, "--teacher", shop.teacher, "--precision", "fp32", "--json")
    shown, nothing = in_two_processes(
        (*begin, "-o", tmp_path / "parts", "--max-steps", "3"),
        ("distill", "--resume", tmp_path / "parts", "--json"),
        (*begin, "-o", tmp_path / "whole"),
        (*label, "-o", tmp_path / "shared"),
    )
    assert nothing == ""
    reports = [json.loads(report) for report in shown.replace("}\n{", "}\0{").split("\0")]
    assert [report.get("steps") for report in reports] == [3, 6, 6, None]
    monkeypatch.setattr("qa_edge.labels.SHARD_QUESTIONS", 8)
    ran(*label, "-o", tmp_path / "alone")
    shards = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(shards) > 4 and shards == sorted(path.name for path in (tmp_path / "shared").iterdir())
    for name in shards:
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    ran(*begin, "-o", tmp_path / "one")
    one, parts, whole = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "parts", "whole")
    )
    for line in (*one, *parts, *whole):
        line.pop("questions_an_hour", None)
    assert [line["step"] for line in parts] == [line["step"] for line in whole] == [line["step"] for line in one]
    for mine, theirs in zip(parts, whole, strict=True):
        assert mine == theirs
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole")]
    assert weights[0] == weights[1]
    for mine, theirs in zip(one, whole, strict=True):
        assert mine.pop("kind") == theirs.pop("kind")
        if "loss" in mine:
            assert mine == pytest.approx(theirs, rel=1e-3)
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)  # the same batch, to rounding


def test_ctrl_c_saves_and_the_same_command_goes_on(steps: tuple[str | Path, ...], tmp_path: Path) -> None:
    begin = ["distill", *steps, "-o", tmp_path / "run", *SIZES, "--epochs", "100000", "--batch-size", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qa_edge", *map(str, begin)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    assert process.stderr is not None
    try:
        # Blocks until the line is there, or the process has ended.
        assert any(line.startswith("training on") for line in process.stderr)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and shown == ""
    assert said.rstrip().endswith("interrupted; run the same command to go on")
    (state,) = (tmp_path / "run" / "state").glob("step-*")
    done = int(state.name.removeprefix("step-"))
    report = json.loads(ran("distill", "--resume", tmp_path / "run", "--max-steps", str(done + 1), "--json"))
    assert report["steps"] == done + 1
