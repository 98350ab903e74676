"""The training loop: it learns, it goes on where it was stopped to the same numbers, and it stops when it should."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_tiny
from full_disk import fill_disk
from safetensors.numpy import load_file
from tiny_models import student_of, tiny_squad, write_json
from train_tiny import SETTINGS, train

from qa_edge import ema
from qa_edge.batches import TrainingData
from qa_edge.checkpoint import TrainingState, load_student
from qa_edge.features import Features
from qa_edge.labels import Labels, LabelSettings, label
from qa_edge.losses import LossTerms
from qa_edge.metrics import MetricsLog
from qa_edge.prepare import PrepareSettings, prepare
from qa_edge.squad import Squad, read_squad, write_squad
from qa_edge.train import Trainer
from qa_edge.train_settings import TrainSettings
from qa_edge_runtime.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN: dict[str, Any] = {"dropout": 0.0, "character_dropout": 0.0, "survival": 1.0}
NOBODY = Squad(articles=())


def lines(run: Path) -> list[dict[str, Any]]:
    """Metrics of a run, without the speed, which no two runs share."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "questions_an_hour"} for line in found]


def terms(run: Path, name: str) -> list[float]:
    return [line[name] for line in lines(run) if line["kind"] == "training"]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, average, moments, random state, numbers, metrics and checkpoint, to the last bit."""
    first, second = TrainingState.load(one), TrainingState.load(other)
    assert first is not None and second is not None
    assert {**vars(first), "tensors": None} == {**vars(second), "tensors": None}
    assert first.tensors.keys() == second.tensors.keys() >= {"weights", "average", "exp_avg", "exp_avg_sq"}
    for name in first.tensors:
        assert torch.equal(first.tensors[name], second.tensors[name]), name
    assert lines(one) == lines(other)
    for name in ("model.safetensors", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_features: Features, tiny_labels: Labels) -> Path:
    """A run of 27 updates that nothing stopped."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    torch.set_num_threads(1)
    state = train(run, tiny_features, tiny_labels)
    assert state.step == 27 and state.finished
    return run


# It learns


def test_fifty_questions_are_learned_by_heart(tmp_path: Path) -> None:
    """Labels alone, no teacher: a network that cannot do this is wrong somewhere."""
    write_squad(tmp_path / "data.json", tiny_squad(articles=3, contexts=3, facts=2, seed=3))
    prepare(tmp_path / "data.json", tmp_path / "features", settings=PrepareSettings(heldout=0.0, character_count=1))
    features, squad = Features.open(tmp_path / "features"), read_squad(tmp_path / "data.json")
    assert len(features) == 54
    settings = TrainSettings(
        epochs=60,
        batch_size=18,
        rate=4e-3,
        schedule="cosine",
        warmup=20,
        rho=0.0,
        mse_weight=0.0,
        ema_ceiling=0.9,
        evaluate_every=1000,
        save_every=1000,
    )
    student = student_of(features, **PLAIN)
    before = student.evaluate(squad).f1
    Trainer(tmp_path, student, TrainingData(features, None), NOBODY, settings).train()
    student.model.load_state_dict(load_student(tmp_path).state_dict())
    after = student.evaluate(squad)
    assert before < 40 and after.f1 > 95 and after.exact_match > 90


@pytest.mark.parametrize(
    ("term", "weights"),
    [
        ("hard", {"rho": 0.0, "mse_weight": 0.0}),
        ("soft", {"rho": 1.0, "mse_weight": 0.0}),
        ("mse", {"rho": 0.0, "mse_weight": 1.0}),
    ],
)
def test_each_term_of_the_loss_goes_down(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels, term: str, weights: dict[str, float]
) -> None:
    settings = replace(SETTINGS, **weights, epochs=5, rate=3e-3, evaluate_every=1000)  # type: ignore[arg-type]
    train(tmp_path, tiny_features, tiny_labels, settings, heldout=NOBODY, **PLAIN)
    found = terms(tmp_path, term)
    assert found[-1] < 0.9 * found[0] and np.isfinite(found).all()
    if term != "mse":
        assert set(terms(tmp_path, "mse")) == {0.0}


def test_the_loss_goes_down_with_all_terms(unbroken: Path) -> None:
    for term in ("loss", "hard", "mse"):  # a student that says nothing yet is not far from a tempered teacher
        found = terms(unbroken, term)
        assert found[-1] < found[0], term
    norms = terms(unbroken, "gradient_norm")
    assert all(0 < norm < 1000 for norm in norms)


def test_lines_of_metrics(unbroken: Path) -> None:
    found = lines(unbroken)
    training = [line for line in found if line["kind"] == "training"]
    evaluation = [line for line in found if line["kind"] == "evaluation"]
    assert [line["step"] for line in training] == [5, 10, 15, 20, 25, 27]
    assert [line["epoch"] for line in training][-1] == 3.0
    assert [line["step"] for line in evaluation] == [14, 27]
    for line in evaluation:
        assert {"raw_f1", "raw_exact_match", "ema_f1", "ema_exact_match"} <= line.keys()
        assert all(0 <= line[name] <= 100 for name in line if name not in ("kind", "step"))
    for line in training:
        assert {"rate", "loss", "hard", "soft", "mse", "gradient_norm"} <= line.keys()


def test_the_best_average_is_the_checkpoint(unbroken: Path) -> None:
    state = TrainingState.load(unbroken)
    assert state is not None and state.best_step in (14, 27)
    scores = {line["step"]: line["ema_f1"] for line in lines(unbroken) if line["kind"] == "evaluation"}
    assert scores[state.best_step] == max(scores.values()) == round(state.best_f1, 3)
    arrays = load_file(unbroken / "model.safetensors")
    flat = np.concatenate([arrays[name].ravel() for name, _ in load_student(unbroken).named_parameters()])
    assert np.array_equal(flat, state.tensors["average"].numpy()) == (state.best_step == 27)


def test_the_average_and_the_rate_follow_the_steps(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels
) -> None:
    """The average is QANet's formula over the weights after each update, from the first weights on."""
    settings = replace(SETTINGS, epochs=1, evaluate_every=1000, ema_ceiling=0.6)
    data = TrainingData(tiny_features, tiny_labels)
    trainer = Trainer(tmp_path, student_of(tiny_features), data, NOBODY, settings)
    expected = trainer.flat.weights.double().numpy().copy()
    rates = []

    def watch(step: int) -> None:
        nonlocal expected
        decay = min(0.6, step / (9 + step))
        expected = decay * expected + (1 - decay) * trainer.flat.weights.double().numpy()
        np.testing.assert_allclose(trainer.average.numpy(), expected, atol=1e-6)
        rates.append(trainer.optimiser.param_groups[0]["lr"])

    trainer.on_step = watch
    trainer.train()
    assert len(rates) == 9 and rates[0] == 0 and rates[4:] == [settings.rate] * 5
    assert trainer.ceiling == 0.6
    assert Trainer(tmp_path, student_of(tiny_features), data, NOBODY, SETTINGS).ceiling == ema.decay_ceiling(27)


def test_one_update_is_torchs_adam_on_clipped_gradients(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels
) -> None:
    """Against plain parameters, torch's clip_grad_norm_ and an Adam that is not fused."""
    settings = replace(SETTINGS, epochs=1, warmup=1, gradient_norm=0.05, weight_decay=0.01, save_every=1000)
    settings = replace(settings, evaluate_every=1000)
    data = TrainingData(tiny_features, tiny_labels)
    trainer = Trainer(tmp_path / "a", student_of(tiny_features, **PLAIN), data, NOBODY, settings)
    plain = student_of(tiny_features, **PLAIN).model
    optimiser = torch.optim.Adam(plain.parameters(), lr=settings.rate, betas=(0.8, 0.999), eps=1e-7, weight_decay=0.01)
    other = Trainer(tmp_path / "b", student_of(tiny_features, **PLAIN), data, NOBODY, settings)
    other.model = plain

    def step(number: int) -> None:
        optimiser.zero_grad()
        plain.train()
        other.loss(*data.batch(other.updates.rows(number - 1))).total.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        optimiser.step()

    trainer.on_step = step
    (tmp_path / "a").mkdir()
    trainer.train()
    expected = torch.cat([parameter.detach().flatten() for parameter in plain.parameters()])
    before = torch.cat([parameter.detach().flatten() for parameter in student_of(tiny_features).model.parameters()])
    moved = (expected - before).norm()
    # Adam makes full steps of the rounding errors of gradients that are zero, those of the keys' biases.
    assert (trainer.flat.weights - expected).norm() < 0.01 * moved and moved > 0.1


# It goes on


@pytest.mark.parametrize("stops", [(1,), (7,), (20,), (26,), (3, 12, 14, 23)], ids=str)
def test_a_run_in_slices_is_the_run(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels, unbroken: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:
        state = train(tmp_path, tiny_features, tiny_labels, replace(SETTINGS, max_steps=stop))
        assert state.step == stop and not state.finished
    train(tmp_path, tiny_features, tiny_labels)
    assert_same_run(tmp_path, unbroken)


class Killed(BaseException):
    """Ends a run at once, as a kill does: nothing is saved on the way out."""


@pytest.mark.parametrize("stops", [(9,), (19, 15), (27,), (6, 12, 18, 24)], ids=str)
def test_a_run_killed_between_saves_is_the_run(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels, unbroken: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:

        def kill(step: int, stop: int = stop) -> None:
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            train(tmp_path, tiny_features, tiny_labels, on_step=kill)
        torch.rand(stop)  # whatever the next process has drawn before
    train(tmp_path, tiny_features, tiny_labels)
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("place", ["_evaluate", "save", "_log_training"])
def test_a_run_killed_before_or_after_writing_is_the_run(
    tmp_path: Path,
    tiny_features: Features,
    tiny_labels: Labels,
    unbroken: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Just before and just after the evaluation (and its checkpoint), the state, or a line of metrics is written."""
    for late in (False, True):
        whole = getattr(Trainer, place)
        calls = 0

        def killed(self: Trainer, whole: Any = whole, late: bool = late) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise Killed
            whole(self)
            if late:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, place, killed)
            with pytest.raises(Killed):
                train(tmp_path, tiny_features, tiny_labels)
    train(tmp_path, tiny_features, tiny_labels)
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("call", [2, 6, 7, 8, 9, 12], ids=["an array", "step", "state", "config", "weights", "later"])
def test_a_run_that_met_a_full_disk_is_the_run(
    tmp_path: Path,
    tiny_features: Features,
    tiny_labels: Labels,
    unbroken: Path,
    call: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        fill_disk(patch, call)
        with pytest.raises(DataError, match="No space left on device; free some space"):
            train(tmp_path, tiny_features, tiny_labels)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    state = TrainingState.load(tmp_path)
    assert (state is None) == (call < 8) and (state is None or state.step == 10)
    if (tmp_path / "model.safetensors").exists():
        load_student(tmp_path)
    train(tmp_path, tiny_features, tiny_labels)
    assert_same_run(tmp_path, unbroken)


def test_a_process_killed_by_sigkill_goes_on(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    command = [sys.executable, str(Path(train_tiny.__file__)), str(tiny_features.folder), str(tiny_labels.folder)]
    killed = subprocess.run([*command, str(tmp_path / "killed"), "13"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = TrainingState.load(tmp_path / "killed")
    assert state is not None and state.step == 10
    settings = replace(SETTINGS, epochs=2)
    train(tmp_path / "killed", tiny_features, tiny_labels, settings)
    train(tmp_path / "whole", tiny_features, tiny_labels, settings)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_stays_as_it_is(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=1)
    train(tmp_path, tiny_features, tiny_labels, settings)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    state = train(tmp_path, tiny_features, tiny_labels, settings)
    assert state.finished and state.step == 9
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_a_seed_decides_everything(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=1)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.rand(len(name))
        train(tmp_path / name, tiny_features, tiny_labels, replace(settings, seed=seed))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert terms(tmp_path / "a", "loss") != terms(tmp_path / "c", "loss")


def test_the_state_of_another_student_is_refused(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    train(tmp_path, tiny_features, tiny_labels, replace(SETTINGS, max_steps=2))
    with pytest.raises(DataError, match="another student"):
        train(tmp_path, tiny_features, tiny_labels, hidden=16)


# It stops


def test_a_run_without_gain_stops_early(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=100, rate=1e-30, evaluate_every=3, patience=4)
    state = train(tmp_path, tiny_features, tiny_labels, settings)
    assert state.finished and state.step == 15 and state.best_step == 3 and state.evaluations_without_gain == 4
    again = train(tmp_path, tiny_features, tiny_labels, settings)
    assert again.finished and again.step == 15


def test_early_stopping_in_slices(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=100, rate=1e-30, evaluate_every=3, patience=2)
    for stop in (2, 7, 8, 40):
        state = train(tmp_path, tiny_features, tiny_labels, replace(settings, max_steps=stop))
    assert state.finished and state.step == 9


def test_without_heldout_questions_the_last_average_is_kept(
    tmp_path: Path, tiny_features: Features, tiny_labels: Labels
) -> None:
    settings = replace(SETTINGS, epochs=1, evaluate_every=4, patience=1)
    state = train(tmp_path, tiny_features, tiny_labels, settings, heldout=NOBODY)
    assert state.step == state.best_step == 9 and (tmp_path / "model.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=4, evaluate_every=1000)
    data = TrainingData(tiny_features, tiny_labels)
    trainer = Trainer(tmp_path, student_of(tiny_features), data, NOBODY, settings)

    def spoil(step: int) -> None:
        if step == 12:
            trainer.flat.weights.fill_(float("nan"))

    trainer.on_step = spoil
    with pytest.raises(DataError, match="not finite after update 20"):
        trainer.train()
    state = TrainingState.load(tmp_path)
    assert state is not None and state.step == 10 and all(torch.isfinite(t).all() for t in state.tensors.values())


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"save_every": 7, "log_every": 5},
        {"schedule": "steps"},
        {"rate": 0.0},
        {"gradient_norm": 0.0},
        {"rho": 1.5},
        {"temperature": 0.0},
        {"mse_weight": -1.0},
        {"precision": "fp16"},
        {"precision": "int8"},
        {"seed": -1},
        {"seed": 1 << 40},
        {"max_steps": 0},
        {"patience": 0},
        {"epochs": 2.5},
        {"log_every": True},
        {"rate": "fast"},
        {"weight_decay": float("nan")},
        {"schedule": None},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TrainSettings(**values)


def test_defaults_are_the_papers() -> None:
    """Sections 4.1.2 and 5.3, and QANet's where it is silent."""
    expected = {
        "epochs": 30,
        "batch_size": 14,
        "rate": 1e-3,
        "warmup": 1000,
        "weight_decay": 3e-7,
        "gradient_norm": 5.0,
        "rho": 0.7,
        "temperature": 10.0,
        "mse_weight": 1.0,
        "context_limit": 400,
    }
    assert expected.items() <= asdict(TrainSettings()).items()


# What it learns from


def test_questions_without_answers_learn_from_the_teacher_alone(tmp_path: Path, tiny_teacher_path: Path) -> None:
    squad = tiny_squad(articles=2, contexts=2, facts=1)
    bare = json.loads(json.dumps({"data": []}))
    for article in squad.articles:
        paragraphs = [
            {"context": p.context, "qas": [{"id": q.id, "question": q.text} for q in p.questions]}
            for p in article.paragraphs
        ]
        bare["data"].append({"title": article.title, "paragraphs": paragraphs})
    write_json(tmp_path / "data.json", bare)
    prepare(tmp_path / "data.json", tmp_path / "features", settings=PrepareSettings(heldout=0.0))
    options = LabelSettings(window=64, stride=16, precision="fp32")
    labels = Labels(label(tmp_path / "data.json", str(tiny_teacher_path), tmp_path / "labels", settings=options))
    settings = TrainSettings(
        epochs=20, batch_size=6, warmup=5, rate=3e-3, log_every=5, save_every=100, temperature=2.0, mse_weight=0.0
    )
    train(tmp_path / "run", Features.open(tmp_path / "features"), labels, settings, heldout=NOBODY, **PLAIN)
    assert set(terms(tmp_path / "run", "hard")) == {0.0}
    soft = terms(tmp_path / "run", "soft")
    assert soft[-1] < 0.8 * soft[0]
    assert terms(tmp_path / "run", "loss") == soft  # rho is 1 for them, whatever the setting


def test_a_context_limit_in_training(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    settings = replace(SETTINGS, epochs=1, context_limit=12)
    train(tmp_path, tiny_features, tiny_labels, settings)
    for name in ("loss", "hard", "soft", "mse"):
        assert np.isfinite(terms(tmp_path, name)).all() and terms(tmp_path, name)[0] > 0


def test_a_batch_larger_than_the_data(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    state = train(tmp_path, tiny_features, tiny_labels, replace(SETTINGS, epochs=3, batch_size=1000))
    assert state.step == 3


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one precision a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("fresh_accelerate")
def test_bfloat16_trains_too(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    from accelerate.state import AcceleratorState

    settings = replace(SETTINGS, epochs=1, precision="bf16", mse_weight=0.0)
    train(tmp_path / "half", tiny_features, tiny_labels, settings)
    AcceleratorState._reset_state()
    train(tmp_path / "full", tiny_features, tiny_labels, replace(settings, precision="no"))
    half, full = (terms(tmp_path / name, "loss") for name in ("half", "full"))
    np.testing.assert_allclose(half, full, rtol=0.05)
    assert half != full
    state = TrainingState.load(tmp_path / "half")
    assert state is not None and state.tensors["weights"].dtype == torch.float32


# Metrics


def test_metrics_drop_what_will_be_repeated_and_lines_that_were_cut(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.start(step=0)
    for step in (5, 10, 15):
        log.write(kind="training", step=step, loss=step / 2)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "training", "st')
    log = MetricsLog(tmp_path)
    log.start(step=10)
    log.write(kind="training", step=15, loss=1.0)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(5, 2.5), (10, 5.0), (15, 1.0)]
    silent = MetricsLog(tmp_path / "none", enabled=False)
    silent.start(step=0)
    silent.write(kind="training", step=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_metrics_are_the_same_to_the_last_digit_wherever_a_run_was_stopped(tmp_path: Path, stopped: int) -> None:
    """Sums of 32 bits would lose the ones beside the large number, or not, as the slices part them."""

    def add(log: MetricsLog, values: Sequence[float]) -> None:
        for value in map(torch.tensor, values):
            log.add(questions=1, norm=value, terms=LossTerms(value, value, value, value))

    values = (2.0**24, 1.0, 1.0, 1.0)
    whole, first, second = (MetricsLog(tmp_path / name, mean=lambda means: means / 2) for name in ("0", "1", "1"))
    for log in (whole, first):
        log.path.parent.mkdir()
        log.start(step=0)
    add(whole, values)
    add(first, values[:stopped])
    second.start(step=stopped, gathered=json.loads(json.dumps(first.gathered())))
    add(second, values[stopped:])
    assert whole.gathered() == second.gathered()
    assert whole.gathered()["sums"]["loss"] == (2**24 + 3) / 2


# Several processes

WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from qa_edge.features import Features
from qa_edge.labels import Labels
from train_tiny import SETTINGS, train
from qa_edge.squad import Squad
plain = {"dropout": 0.0, "character_dropout": 0.0, "survival": 1.0}
features, labels = Features.open(sys.argv[2]), Labels(sys.argv[3])
state = train(Path(sys.argv[4]), features, labels, replace(SETTINGS, epochs=2, evaluate_every=9), **plain)
assert state.finished and state.step == 18
stopped = replace(SETTINGS, epochs=50, rate=1e-30, evaluate_every=3, patience=2)
state = train(Path(sys.argv[4] + "-stopped"), features, labels, stopped, **plain)
assert state.finished and state.step == 9 and state.best_step == 3, state
"""


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    """Gloo, the same questions an update: the same weights to rounding; and both stop early together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", WORKER, here, str(tiny_features.folder), str(tiny_labels.folder)]
    running = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
        }
        running.append(subprocess.Popen([*arguments, str(tmp_path / "two")], env=environment))
    try:
        assert [process.wait(240) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    train(tmp_path / "one", tiny_features, tiny_labels, replace(SETTINGS, epochs=2, evaluate_every=9), **PLAIN)
    one, two = TrainingState.load(tmp_path / "one"), TrainingState.load(tmp_path / "two")
    assert one is not None and two is not None
    first = torch.cat([p.detach().flatten() for p in student_of(tiny_features, seed=1, **PLAIN).model.parameters()])
    for name in ("weights", "average", "exp_avg"):
        before = 0.0 if name == "exp_avg" else first
        difference = (one.tensors[name] - two.tensors[name]).norm() / (one.tensors[name] - before).norm()
        assert difference < 0.02, name  # Adam makes full steps of rounding errors where a gradient is zero
    norms = [terms(tmp_path / name, "gradient_norm") for name in ("one", "two")]
    np.testing.assert_allclose(*norms, rtol=1e-3)
    for name in ("loss", "hard", "soft", "mse"):
        np.testing.assert_allclose(*(terms(tmp_path / run, name) for run in ("one", "two")), rtol=2e-3)


def test_weights_alone_are_enough_to_go_on_from(tmp_path: Path, tiny_features: Features, tiny_labels: Labels) -> None:
    """A run carried to another machine without the optimiser's moments goes on with fresh ones."""
    half = replace(SETTINGS, epochs=2, max_steps=5)
    train(tmp_path / "run", tiny_features, tiny_labels, half, **PLAIN)
    state = TrainingState.load(tmp_path / "run")
    assert state is not None
    for name in ("exp_avg", "exp_avg_sq", "step"):
        del state.tensors[name]
    state.save(tmp_path / "run")
    train(tmp_path / "run", tiny_features, tiny_labels, replace(half, max_steps=8), **PLAIN)
    after = TrainingState.load(tmp_path / "run")
    assert after is not None and after.step == 8 and float(after.tensors["step"]) == 3
    assert torch.isfinite(after.tensors["weights"]).all()
    moved = (after.tensors["weights"] - state.tensors["weights"]).abs().max()
    assert 0 < float(moved) < 10 * SETTINGS.rate
