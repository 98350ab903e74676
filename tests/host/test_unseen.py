"""What is held out was never trained on, whatever way a run came about; nothing of another run is written over."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import tiny_squad, write_tiny_vectors
from tiny_teacher import SIZES, TRAINING, Workshop, ran, run, write_example_squad, write_example_teacher

from qa_edge.features import Features
from qa_edge.split import split_articles
from qa_edge.squad import Article, Paragraph, Squad, read_squad, write_squad

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import cut_domain
import keep_checkpoint

from qa_edge_runtime.errors import DataError

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = ("--vectors", "none", "--teacher", "none", *SIZES, *TRAINING)


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squad") / "train.json"
    write_squad(path, tiny_squad(articles=8, contexts=2))
    return path


def trained_on(features: Path, squad: Path) -> set[str]:
    """Ids of the questions that features hold for training."""
    ids = [question.id for _, _, question in read_squad(squad).items()]
    return {ids[number] for number in Features.open(features).question_number}


def ids(path: Path) -> set[str]:
    return {question.id for _, _, question in read_squad(path).items()}


def test_a_run_on_given_features_says_how_they_were_split(squad: Path, tmp_path: Path) -> None:
    ran("prepare", "--squad", squad, "--vectors", "none", "--heldout", "0.3", "--seed", "2", "-o", tmp_path / "f")
    begin = ("distill", "--squad", squad, "--features", tmp_path / "f", "--teacher", "none", *SIZES, *TRAINING)
    ran(*begin, "--seed", "1", "-o", tmp_path / "run")
    heldout = ids(tmp_path / "run" / "heldout.json")
    assert heldout and not heldout & trained_on(tmp_path / "f", squad)

    assert keep_checkpoint.main(["keep", str(tmp_path / "run"), str(tmp_path / "kept")]) == 0
    assert keep_checkpoint.main(["restore", str(tmp_path / "kept"), "--squad", str(squad)]) == 0
    assert (tmp_path / "kept" / "heldout.json").read_bytes() == (tmp_path / "run" / "heldout.json").read_bytes()

    cut_domain.cut_domain(squad, read_squad(squad), tmp_path / "run", tmp_path / "d", articles=1, labels=1)
    assert not ids(tmp_path / "d" / "test.json") & trained_on(tmp_path / "f", squad)

    # The published file has other ids than a copy of it; articles in another order are another file.
    data = json.loads(squad.read_text())
    for number, question in enumerate(q for one in data["data"] for p in one["paragraphs"] for q in p["qas"]):
        question["id"] = f"published-{number}"
    (tmp_path / "published.json").write_text(json.dumps(data))
    (tmp_path / "turned.json").write_text(json.dumps({**data, "data": data["data"][::-1]}))
    (tmp_path / "kept" / "heldout.json").unlink()
    restore = ("restore", str(tmp_path / "kept"), "--squad")
    assert keep_checkpoint.main([*restore, str(tmp_path / "turned.json")]) == 1
    assert keep_checkpoint.main([*restore, str(tmp_path / "published.json")]) == 0
    assert len(ids(tmp_path / "kept" / "heldout.json")) == len(heldout)
    with pytest.raises(DataError, match=r"is not the file that .* was trained on"):
        cut_domain.cut_domain(tmp_path / "turned.json", read_squad(squad), tmp_path / "run", tmp_path / "e", articles=1)
    for wrong in (("--articles", "0"), ("--labels", "-5"), ("--seed", "-5")):
        with pytest.raises(SystemExit) as caught:
            cut_domain.main(["--squad", "s", "--dev", "d", "--checkpoint", "c", "-o", "o", *wrong])
        assert caught.value.code == 2


def test_a_recipe_that_gives_other_questions_than_the_run_had_restores_none(
    shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    assert keep_checkpoint.main(["keep", str(shop.run), str(kept)]) == 0
    recipe = json.loads((kept / "recipe.json").read_text())
    for seed in range(1, 9):  # of which one at least draws another article
        (kept / "recipe.json").write_text(json.dumps({**recipe, "prepare": {**recipe["prepare"], "seed": seed}}))
        if keep_checkpoint.main(["restore", str(kept), "--squad", str(shop.train)]) == 1:
            break
    assert "what it held out there has other texts" in capsys.readouterr().err and not (kept / "heldout.json").exists()
    (kept / "recipe.json").write_text(json.dumps({**recipe, "prepare": {"heldout": "x"}}))
    assert keep_checkpoint.main(["restore", str(kept), "--squad", str(shop.train)]) == 1
    assert "'x' where a share" in capsys.readouterr().err


def test_going_on_from_a_student_takes_its_split_over(squad: Path, tmp_path: Path) -> None:
    start, on = tmp_path / "start", ("--teacher", "none", *TRAINING)
    ran("distill", "--squad", squad, *ALONE, "--seed", "3", "--heldout", "0.3", "-o", start)
    ran("distill", "--squad", squad, "--init", start, *on, "--seed", "4", "-o", tmp_path / "on")
    assert (tmp_path / "on" / "heldout.json").read_bytes() == (start / "heldout.json").read_bytes()
    manifest = json.loads(ran("prepare", "--squad", squad, "--init", start, "-o", tmp_path / "f", "--json"))
    assert (manifest["settings"]["heldout"], manifest["settings"]["seed"]) == (0.3, 3)

    result = run("distill", "--squad", squad, "--init", start, *on, "--heldout", "0.6", "-o", tmp_path / "other")
    assert result.exit_code == 1 and "prepare with --heldout 0.3 --seed 3, as it was" in result.stderr
    result = run("prepare", "--squad", squad, "--init", start, "--seed", "0", "-o", tmp_path / "other2")
    assert result.exit_code == 1 and "that --heldout 0.3 --seed 0 hold out" in result.stderr
    ran("prepare", "--squad", squad, "--vectors", "none", "-o", tmp_path / "g", "--character-count", "5")
    result = run("distill", "--features", tmp_path / "g", "--init", start, *on, "-o", tmp_path / "other3")
    assert result.exit_code == 1 and "was trained on articles of this file" in result.stderr
    ran("prepare", "--squad", squad, "--init", start, "--heldout", "0", "-o", tmp_path / "all")


def test_articles_that_share_a_text_are_held_out_together(squad: Path) -> None:
    """As tools write them that make an article of each question."""
    apart = read_squad(squad)
    flat = tuple(
        Article(title="", paragraphs=(Paragraph(context=paragraph.context, questions=(question,)),))
        for _, paragraph, question in apart.items()
    )
    for seed in range(4):
        training, heldout = split_articles(Squad(articles=flat), 0.2, seed)
        unseen = {paragraph.context for article in heldout.articles for paragraph in article.paragraphs}
        assert unseen and not unseen & {one.paragraph.context for one in training}
        assert len(training) + len(heldout.articles) == len(flat)
        assert len(unseen) == round(0.2 * len({paragraph.context for _, paragraph, _ in apart.items()}))


def test_what_an_attempt_before_held_out_goes_when_nothing_is(squad: Path, tmp_path: Path) -> None:
    begin = ("distill", "--squad", squad, *ALONE, "-o", tmp_path / "run")
    result = run(*begin, "--noise", "0.3")  # refused when the features are there already
    assert result.exit_code == 1 and (tmp_path / "run" / "heldout.json").exists()
    shutil.rmtree(tmp_path / "run" / "features")
    ran(*begin, "--heldout", "0")
    assert not (tmp_path / "run" / "heldout.json").exists()


def test_a_student_without_its_state_is_not_written_over(shop: Workshop, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(shop.run, kept, ignore=shutil.ignore_patterns("state", "features", "labels"))
    before = (kept / "model.safetensors").read_bytes()
    for command in (
        ("distill", "--squad", shop.train, "--init", kept, "--teacher", "none", *TRAINING, "-o", kept),
        ("distill", "--squad", shop.train, *ALONE, "-o", kept),
        ("distill", "--resume", kept),
    ):
        result = run(*command)
        assert result.exit_code == 1 and "no state of its training to go on from" in result.stderr
        assert (kept / "model.safetensors").read_bytes() == before


def test_vectors_of_another_space_are_refused(squad: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own.txt", tmp_path / "other.txt"
    write_tiny_vectors(own, read_squad(squad), dim=12)
    lines = own.read_text().splitlines()
    random = np.random.default_rng(5).normal(size=(len(lines), 12))
    other.write_text(
        "".join(
            f"{line.split(' ')[0]} {' '.join(f'{x:.4f}' for x in row)}\n"
            for line, row in zip(lines, random, strict=True)
        )
    )
    start, on = tmp_path / "start", ("--teacher", "none", *TRAINING)
    ran("distill", "--squad", squad, "--vectors", own, "--teacher", "none", *SIZES, *TRAINING, "-o", start)
    result = run("prepare", "--squad", squad, "--vectors", other, "--init", start, "-o", tmp_path / "f")
    assert result.exit_code == 1 and "are others than the checkpoint" in result.stderr
    ran("prepare", "--squad", squad, "--vectors", other, "-o", tmp_path / "g")
    result = run("distill", "--features", tmp_path / "g", "--init", start, *on, "-o", tmp_path / "run")
    assert result.exit_code == 1 and "prepare them with --init" in result.stderr
    ran("prepare", "--squad", squad, "--vectors", own, "--init", start, "-o", tmp_path / "h")
    ran("distill", "--features", tmp_path / "h", "--init", start, *on, "-o", tmp_path / "run2")


def test_labels_of_a_teacher_that_has_changed_are_refused(shop: Workshop, tmp_path: Path) -> None:
    teacher, made = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(shop.teacher, teacher)
    ran("label", "--squad", shop.train, "--teacher", teacher, "-o", made / "labels")
    tensors = load_file(teacher / "model.safetensors")
    save_file({name: array * 1.01 for name, array in tensors.items()}, teacher / "model.safetensors", {"format": "pt"})
    begin = ("distill", "--squad", shop.train, "--vectors", "none", "--teacher", teacher, *SIZES, *TRAINING)
    result = run(*begin, "-o", made)
    assert result.exit_code == 1 and "were made by another teacher" in result.stderr
    shutil.rmtree(made / "labels")
    ran(*begin, "--max-steps", "2", "-o", made)
    shutil.rmtree(teacher)  # a run that has begun needs it no more
    ran("distill", "--resume", made)


def test_a_teacher_that_went_astray_is_not_kept(shop: Workshop, tmp_path: Path) -> None:
    encoder = write_example_teacher(tmp_path / "encoder", head=False)
    teach = ("teach", "--encoder", encoder, "--squad", shop.train, "--epochs", "1", "--batch-tokens", "1024")
    result = run(*teach, "--rate", "1e20", "-o", tmp_path / "teacher")
    assert result.exit_code == 1 and "not finite" in result.stderr and "lower --rate" in result.stderr
    assert not (tmp_path / "teacher" / "config.json").exists()
    bare = write_example_squad(tmp_path / "bare.json", articles=1, answered=False)
    result = run(*teach, "--dev", bare, "-o", tmp_path / "teacher2")
    assert result.exit_code == 1 and "no question with an answer" in result.stderr
    assert not (tmp_path / "teacher2").exists()

    shutil.copytree(shop.teacher, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    tensors["qa_outputs.bias"] = np.full_like(tensors["qa_outputs.bias"], np.nan)
    save_file(tensors, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    result = run("label", "--squad", shop.train, "--teacher", tmp_path / "broken", "-o", tmp_path / "labels")
    assert result.exit_code == 1 and "logits that are no numbers" in result.stderr
    assert not list((tmp_path / "labels").glob("questions-*"))


def test_lines_of_metrics_are_not_repeated_after_a_kill(shop: Workshop, tmp_path: Path) -> None:
    encoder = write_example_teacher(tmp_path / "encoder", head=False)
    teach = ("teach", "--encoder", encoder, "--squad", shop.train, "--epochs", "3", "--batch-tokens", "512")
    teach = (*teach, "--log-every", "1", "--save-every", "2", "-o", tmp_path / "teacher")
    ran(*teach, "--max-steps", "2")
    with (tmp_path / "teacher" / "metrics.jsonl").open("a") as stream:  # as after a kill in the third update
        stream.write('{"kind": "teaching", "step": 3, "loss": 1.0}\n{"kind": "teach')
    ran(*teach)
    lines = [json.loads(line) for line in (tmp_path / "teacher" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1)) and len(lines) > 3


def test_only_a_kept_checkpoint_is_replaced(shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, teacher = tmp_path / "run", tmp_path / "teacher"
    shutil.copytree(shop.run, run_folder)
    shutil.copytree(shop.teacher, teacher)
    for target in (run_folder, teacher):
        before = sorted(target.rglob("*"))
        assert keep_checkpoint.main(["keep", str(run_folder), str(target), "--force"]) == 1
        assert "no checkpoint that was kept before" in capsys.readouterr().err and sorted(target.rglob("*")) == before
    for _ in range(2):
        assert keep_checkpoint.main(["keep", str(run_folder), str(tmp_path / "kept"), "--force"]) == 0
    recipe = json.loads((run_folder / "recipe.json").read_text())
    (run_folder / "recipe.json").write_text(json.dumps({**recipe, "inputs": []}))
    assert keep_checkpoint.main(["keep", str(run_folder), str(tmp_path / "kept2")]) == 1
    assert "is not one that distill wrote" in capsys.readouterr().err
