"""The teacher's layers: kept beside its logits, in 8 bits; learned from by projections that no student keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_train import NOBODY, PLAIN, assert_same_run, terms
from tiny_models import student_of
from tiny_teacher import SIZES, TRAINING, Workshop, ran, run
from train_tiny import SETTINGS

from qa_edge import states as module
from qa_edge.batches import TrainingData
from qa_edge.checkpoint import TrainingState, load_student
from qa_edge.distill import Recipe
from qa_edge.ensemble import average_labels
from qa_edge.experiments.budget import Budget
from qa_edge.experiments.definitions import EXPERIMENTS
from qa_edge.experiments.runner import Plan
from qa_edge.experiments.share import share_of_features
from qa_edge.experiments.sources import Sources
from qa_edge.features import TOKENIZER, Features
from qa_edge.labels import Labels, LabelSettings
from qa_edge.layers import LayerProjections
from qa_edge.squad import read_squad
from qa_edge.states import LayerStates, label_states, quantise, states_folder
from qa_edge.teacher import Teacher
from qa_edge.train import Trainer
from qa_edge.train_settings import TrainSettings
from qa_edge_runtime.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = LabelSettings(window=64, stride=16, precision="fp32", batch_tokens=1024)


@pytest.fixture(scope="module")
def labels(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_features: Features,
    tiny_labels: Labels,
    tiny_squad_path: Path,
    tiny_teacher_path: Path,
) -> Path:
    """Labels with states of all questions, in shards of 40."""
    folder = Path(shutil.copytree(tiny_labels.folder, tmp_path_factory.mktemp("layers") / "labels"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_QUESTIONS", 40)
        label_states(tiny_squad_path, str(tiny_teacher_path), folder, tiny_features.folder, settings=LABELS)
    return folder


def train(run: Path, features: Features, labels: Path, settings: TrainSettings, **sizes: float) -> TrainingState:
    run.mkdir(exist_ok=True)
    data = TrainingData(features, Labels(labels), states=LayerStates(states_folder(labels)))
    return Trainer(run, student_of(features, seed=1, **sizes), data, NOBODY, settings).train()


def test_states_are_the_means_of_a_tokens_pieces_within_8_bits(
    labels: Path, tiny_features: Features, tiny_teacher: Teacher, tiny_squad_path: Path
) -> None:
    states, features = LayerStates(labels / "states"), tiny_features
    assert states.manifest["layers"] == [1, 2, 2] and states.width == 32  # as many as the tiny teacher has
    reduction = load_file(labels / "states" / "reduction.safetensors")
    questions = [question.text for _, _, question in read_squad(tiny_squad_path).items()]
    for row in range(0, len(features), 7):
        number, context = int(features.question_number[row]), int(features.question_context[row])
        ((pieces, raw),) = tiny_teacher.read(
            [questions[number]],
            [features.context_text(context)],
            lambda output: torch.cat([output.hidden_states[layer] for layer in (1, 2, 2)], -1),
            precision="fp32",
            output_hidden_states=True,
        )
        found = states.of(number)
        assert found is not None
        here = slice(*features.context_offsets[context : context + 2])
        ranges = zip(features.context_starts[here], features.context_ends[here], strict=True)
        expected = np.zeros_like(found)
        for token, (start, end) in enumerate(ranges):
            mine = raw[(pieces.starts < end) & (pieces.ends > start)].mean(0).reshape(3, 32)
            expected[token] = [(mine[i] - reduction["mean"][i]) @ reduction["map"][i] for i in range(3)]
        error = np.abs(found - expected.clip(-module.MOST, module.MOST)).max()
        assert error <= np.abs(expected).max() / 254 + 1e-3
    everything = [states.of(number) for number in features.question_number.tolist()]
    # A layer norm leaves one dimension fewer than there are numbers.
    np.testing.assert_allclose(np.concatenate(everything).std(0)[:, :-1], 1, atol=0.05)


def test_eight_bits_keep_zero_and_the_largest() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3, 64)).astype(np.float32)
    values[4] = 0
    small, scales = quantise(values)
    assert small.dtype == np.int8 and (np.abs(small).max((0, 2)) == 127).all() and not small[4].any()
    assert (np.abs(small * scales[:, None] - values) <= scales[:, None] / 2 + 1e-6).all()


def test_a_lost_shard_is_made_again_and_a_share_is_the_budgets(
    labels: Path, tiny_features: Features, tiny_squad_path: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(labels, tmp_path / "labels"))
    begin = (tiny_squad_path, str(tiny_teacher_path), copy, tiny_features.folder)
    (copy / "states" / "questions-00001.safetensors").unlink()
    with pytest.raises(DataError, match=r"unfinished \(questions-00001"):
        LayerStates(copy / "states")
    label_states(*begin, settings=LABELS)
    for path in (labels / "states").iterdir():
        assert path.read_bytes() == (copy / "states" / path.name).read_bytes()
    with pytest.raises(DataError, match=r"made with share 1\.0, this run has 0\.5"):
        label_states(*begin, settings=LABELS, share=0.5)
    shutil.rmtree(copy / "states")
    for process in (1, 0):
        label_states(*begin, settings=LABELS, share=0.5, process=process, processes=2)
    data = TrainingData(tiny_features, Labels(copy), states=LayerStates(copy / "states"))
    assert data.states is not None and 0 < data.states.share_of(data) < 1
    *_, targets = data.batch(np.arange(len(data)))
    assert targets.states is not None
    share_of_features(tiny_features.folder, tmp_path / "share", 0.5)
    assert data.states.share_of(TrainingData(Features.open(tmp_path / "share"), Labels(copy), states=data.states)) == 1
    assert float((targets.states != 0).any(-1).any(-1).float().mean()) == pytest.approx(data.states.share_of(data))


def test_the_distance_to_the_layers_goes_down_and_the_student_keeps_no_projection(
    labels: Path, tiny_features: Features, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, epochs=20, rate=5e-3, mse_weight=0.0, layers_weight=10.0)
    state = train(tmp_path / "run", tiny_features, labels, settings, **PLAIN)
    distances = terms(tmp_path / "run", "layers")
    assert 0.8 < distances[0] < 1.2 and np.mean(distances[-5:]) < 0.85 * distances[0]
    assert state.finished
    student = load_student(tmp_path / "run")  # refuses any tensor that is not the student's
    assert not [name for name, _ in student.named_parameters() if "layer_projections" in name]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_stopped_run_goes_on_to_the_same_numbers(
    labels: Path, tiny_features: Features, tmp_path: Path, optimizer: str
) -> None:
    settings = replace(SETTINGS, epochs=2, mse_weight=0.0, layers_weight=0.5, others=0.4, optimizer=optimizer)
    train(tmp_path / "whole", tiny_features, labels, settings)
    train(tmp_path / "parts", tiny_features, labels, replace(settings, max_steps=7))
    train(tmp_path / "parts", tiny_features, labels, settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_other_paragraphs_and_questions_without_states_count_for_nothing() -> None:
    projections = LayerProjections(8, 4)
    for parameter in projections.parameters():
        torch.nn.init.normal_(parameter)
    passes, states = [torch.randn(5, 6, 8) for _ in range(3)], torch.randn(3, 6, 12)
    states[2] = 0  # was not kept
    states[1, 4:] = 0  # padding
    loss = projections(passes, states)
    again = projections([torch.cat([one[:2, :6], 9 + one[2:]]) for one in passes], states)
    predicted = torch.cat([p(one[:2]) for p, one in zip(projections.layer_projections, passes, strict=True)], -1)
    errors = (predicted - states[:2]).square().mean(-1)
    assert loss.item() == pytest.approx((errors[0].mean() + errors[1, :4].mean()).item() / 2, rel=1e-5)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    assert projections(passes, torch.zeros(3, 6, 12)).item() == 0


def test_states_of_another_teacher_or_of_a_part_are_not_taken_for_ones_own(
    labels: Path, tiny_features: Features, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(labels, tmp_path / "labels"))
    LayerStates(copy / "states").require_whole(Labels(copy), tiny_features)
    manifest = copy / "states" / "manifest.json"
    found = json.loads(manifest.read_text())
    for name, said in (("teacher_sha256", "of another teacher"), ("questions_sha256", "of other questions")):
        manifest.write_text(json.dumps({**found, name: "0" * 64}))
        with pytest.raises(DataError, match=f"{said}.*remove them"):
            LayerStates(copy / "states").require_whole(Labels(copy), tiny_features)


def test_the_first_reduction_holds_for_all_processes(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        module._write_first(tmp_path / "reduction", {"map": np.full(3, value, np.float32)})
    assert load_file(tmp_path / "reduction")["map"].tolist() == [1.0] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["reduction"]


def test_what_cannot_be_is_one_sentence(
    labels: Path, tiny_labels: Labels, tiny_features: Features, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="hold no states: qa-edge label --states"):
        states_folder(tiny_labels.folder)
    with pytest.raises(InputError, match="layers_weight is -1"):
        TrainSettings(layers_weight=-1.0)
    with pytest.raises(InputError, match="needs a teacher's layers: name a --teacher"):
        settings = replace(SETTINGS, layers_weight=1.0)
        Trainer(tmp_path, student_of(tiny_features), TrainingData(tiny_features, tiny_labels), NOBODY, settings)
    other = Path(shutil.copytree(tiny_features.folder, tmp_path / "features"))
    (other / TOKENIZER).write_text((other / TOKENIZER).read_text() + " ")
    with pytest.raises(DataError, match="are of the tokens of other features"):
        TrainingData(Features.open(other), tiny_labels, states=LayerStates(labels / "states"))
    sources = Sources(dev="dev.json", features=str(tiny_features.folder), labels={"only": str(tiny_labels.folder)})
    plan = {"experiment": EXPERIMENTS["layers"], "runs": tmp_path, "budget": Budget()}
    with pytest.raises(DataError, match="hold no states"):
        Plan(**plan, sources=sources).require()
    with pytest.raises(InputError, match="variant rule learns from a teacher: give --labels, or --squad and --teacher"):
        Plan(**plan, sources=replace(sources, labels={})).require()
    only = replace(EXPERIMENTS["kd"], variants=(EXPERIMENTS["kd"].variant("hard"),))
    hard = Plan(**{**plan, "experiment": only}, sources=replace(sources, labels={}), train={"layers_weight": 1.0})
    assert hard.settings(only.variants[0], 0, questions=100).layers_weight is None  # the answers alone they stay
    with pytest.raises(InputError, match="layers_weight is 1, but the teacher is none"):
        Recipe.of({"features": tiny_features.folder}, teacher="none", train=replace(settings, rho=0, mse_weight=0))


def test_the_mean_of_several_teachers_has_the_layers_of_the_first_that_has_them(
    labels: Path, other_labels: Labels, tiny_features: Features, tmp_path: Path
) -> None:
    manifest = average_labels([other_labels.folder, labels], tmp_path / "mean")
    assert manifest["states_of"] == Labels(labels).manifest["teacher"]
    mean, own = LayerStates(states_folder(tmp_path / "mean")), LayerStates(states_folder(labels))
    for question in range(0, len(tiny_features), 7):
        assert np.array_equal(mean.of(question), own.of(question))
    settings = replace(SETTINGS, layers_weight=1.0, max_steps=2)
    assert train(tmp_path / "run", tiny_features, tmp_path / "mean", settings).step == 2
    unfinished = Path(shutil.copytree(labels, tmp_path / "unfinished"))
    (unfinished / "states" / "questions-00001.safetensors").unlink()
    with pytest.raises(DataError, match="are unfinished"):
        average_labels([other_labels.folder, unfinished], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_line_labels_distils_and_compares(shop: Workshop, tmp_path: Path) -> None:
    features = shop.run / "features"
    made = ("--squad", shop.train, "--teacher", shop.teacher, "-o", tmp_path / "labels")
    ran("label", *made, "--states", features)
    taken = ("--features", features, "--labels", tmp_path / "labels")
    begin = ("distill", *taken, *SIZES, *TRAINING, "-o", tmp_path / "run", "--layers-weight", "0.5")
    ran(*begin, "--max-steps", "2")
    ran("distill", "--resume", tmp_path / "run")
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["train"]["layers_weight"] == 0.5 and "states" in recipe["inputs"]
    asked = ("--squad", shop.train, "--teacher", shop.teacher, "--features", features, "--layers-weight", "0.5")
    ran("distill", *asked, *SIZES, *TRAINING, "-o", tmp_path / "by-itself")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "by-itself" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    result = run("distill", *taken, "--layers-weight", "0", "-o", tmp_path / "other", *SIZES)
    assert result.exit_code == 2 and "--layers-weight" in result.stderr
    lines = ("experiment", "layers", *taken, "--dev", shop.dev, "--runs", tmp_path / "runs", *SIZES[:6])
    ran(*lines, "--budget", "share=1,epochs=1", "--batch-size", "8", "--character-dim", "8")
    found = json.loads((tmp_path / "runs" / "layers" / "results.json").read_text())
    assert {"rule", "layers-0.1", "layers-1"} <= set(json.dumps(found).replace('"', " ").split())
    from_nothing = ("--squad", shop.train, "--vectors", "none", "--teacher", shop.teacher, "--dev", shop.dev)
    lines = ("experiment", "layers", "--only", "layers-1", *from_nothing, "--runs", tmp_path / "new", *SIZES[:6])
    ran(*lines, "--budget", "share=0.5,epochs=1", "--batch-size", "8", "--character-dim", "8")
    made = LayerStates(tmp_path / "new" / "layers" / "inputs" / "labels" / "states")
    assert 0 < made.manifest["questions"] < LayerStates(tmp_path / "labels" / "states").manifest["questions"]
