from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import all_texts, tiny_squad, write_tiny_squad, write_tiny_teacher
from tiny_teacher import ran, run
from two_processes import in_two_processes

from qa_edge.active.clusters import SentenceEncoder
from qa_edge.active.curve import draw_curves, read_curves
from qa_edge.active.cycles import LoopSettings, labelled_counts
from qa_edge.active.loop import run_loop
from qa_edge.experiments.collect import find_runs
from qa_edge.recipe import model_entry
from qa_edge.squad import read_squad
from qa_edge_runtime.errors import DataError, InputError


def test_the_rows_of_tables_4_and_5() -> None:
    counts = labelled_counts(87599, LoopSettings())
    assert len(counts) == 11
    assert counts[0] == 876
    assert [round(100 * count / 87599) for count in counts] == [1, *range(10, 101, 10)]
    assert counts[-1] == 87599


def test_steps_smaller_than_a_question_are_one_question() -> None:
    tiny = LoopSettings(first=1e-6, step=1e-12, budget=1e-3)
    assert labelled_counts(5000, tiny) == [1, 2, 3, 4, 5]


def test_a_share_of_what_remains() -> None:
    counts = labelled_counts(87599, LoopSettings(step_of="remaining"))
    shares = [count / 87599 for count in counts[:4]]
    np.testing.assert_allclose(shares, [0.01, 0.109, 0.1981, 0.27829], atol=2e-4)  # 1 - 0.99 * 0.9 ** cycle
    assert counts[-1] == 87599


@given(
    st.integers(1, 3000),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.sampled_from(["whole", "remaining"]),
)
def test_counts_grow_to_the_budget(total: int, first: float, step: float, budget: float, step_of: str) -> None:
    first = min(first, budget)
    counts = labelled_counts(total, LoopSettings(first=first, step=step, budget=budget, step_of=step_of))
    assert counts == sorted(set(counts))
    assert 1 <= counts[0] <= counts[-1] <= total
    assert abs(counts[-1] - max(1, budget * total)) <= 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"first": 0.0}, {"step": 2.0}, {"budget": -1.0}, {"first": 0.5, "budget": 0.1}, {"step_of": "x"}, {"start": "x"}],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        LoopSettings(**wrong)
    with pytest.raises(InputError, match="pool is empty"):
        labelled_counts(0, LoopSettings())


class Parrot:
    """A learner that notes what it was taught; its certainty depends on the question and on how much it knows."""

    dev = None
    has_teacher = False
    kind, sha256, max_answer_tokens = "teacher", "", 30

    def __init__(self, *, dies: Callable[[str], bool] = lambda step: False) -> None:
        self.dies, self.log = dies, list[str]()

    def _step(self, name: str) -> None:
        self.log.append(name)
        if self.dies(name):
            raise KeyboardInterrupt

    def recipe(self) -> dict[str, Any]:
        return {"kind": "parrot"}

    def train(self, squad: Path, folder: Path, *, before: Path | None, seed: int, log: Any) -> dict[str, Any]:
        self._step(f"train {folder.parent.name}")
        known = sorted(question.id for _, _, question in read_squad(squad).items())
        folder.mkdir(exist_ok=True)
        (folder / "known.json").write_text(json.dumps([known, None if before is None else before.parent.name]))
        self._step(f"trained {folder.parent.name}")
        return {"exact_match": float(len(known)), "f1": 0.5, "total": 9}

    def open(self, folder: Path) -> Any:
        known = json.loads((folder / "known.json").read_text())[0]
        reader = Parrot(dies=self.dies)
        reader.log, reader.sha256 = self.log, f"{len(known):064d}"
        return reader

    def logits(self, pairs: Any) -> Any:
        self._step("read")
        return [
            tuple(np.random.default_rng([len(q), int(self.sha256)]).normal(scale=3, size=(2, 9)).astype(np.float32))
            for q, _ in pairs
        ]


def test_cycles_grow_by_what_the_last_model_is_least_sure_of(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=4)
    curve = run_loop(path, Parrot(), tmp_path / "loop", settings=LoopSettings(step=0.25))
    assert [point.questions for point in curve] == [1, 18, 36, 54, 72]
    known: set[str] = set()
    for number in range(5):
        folder = tmp_path / "loop" / f"cycle-{number:03d}"
        chosen = json.loads((folder / "chosen.json").read_text())["ids"]
        assert not known & set(chosen)
        if 0 < number < 4:
            order = _least_confidence(Parrot().open(folder.parent / f"cycle-{number - 1:03d}" / "model"), path, known)
            assert chosen == order[: len(chosen)]
        known |= set(chosen)
        trained, before = json.loads((folder / "model" / "known.json").read_text())
        assert set(trained) == known
        assert before is None
        truth = {q.id: q for _, _, q in read_squad(path).items()}
        assert all(truth[q.id] == q for _, _, q in read_squad(folder / "train.json").items())
        assert (folder / "scores").exists() == (0 < number < 4)
    assert len(known) == 72
    assert [json.loads((tmp_path / "loop" / "curve.json").read_text())["cycles"][4]["scores"]["exact_match"]] == [72]


def _least_confidence(reader: Any, path: Path, known: set[str]) -> list[str]:
    from qa_edge.active.readers import answer_probabilities

    items = [(q.id, q.text, p.context) for _, p, q in read_squad(path).items() if q.id not in known]
    best = answer_probabilities(reader, [(text, context) for _, text, context in items])[:, 0]
    return [items[i][0] for i in np.argsort(best, kind="stable")]


def test_a_loop_that_is_killed_anywhere_ends_the_same(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=3)
    settings = LoopSettings(step=0.3, start="last")
    whole = Parrot()
    expected = run_loop(path, whole, tmp_path / "whole", settings=settings)
    assert json.loads((tmp_path / "whole/cycle-002/model/known.json").read_text())[1] == "cycle-001"
    for steps in range(len(whole.log)):
        for _ in range(len(whole.log) + 1):
            left = iter(range(steps))
            try:
                learner = Parrot(dies=lambda step, left=left: next(left, None) is None)  # type: ignore[misc]
                found = run_loop(path, learner, tmp_path / f"killed{steps}", settings=settings)
                break
            except KeyboardInterrupt:
                if steps < 2:  # too soon for a cycle to end: let it go
                    found = run_loop(path, Parrot(), tmp_path / f"killed{steps}", settings=settings)
                    break
        assert found == expected
        for file in (tmp_path / "whole").rglob("*"):
            if file.suffix == ".json" and file.name not in ("recipe.json",):
                other = tmp_path / f"killed{steps}" / file.relative_to(tmp_path / "whole")
                assert other.read_bytes() == file.read_bytes(), file


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_a_loop_resumes_after_a_real_kill_before_any_of_its_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, which nothing in the process can answer, each time one write later."""
    monkeypatch.setattr("qa_edge.active.scores.SHARD_QUESTIONS", 8)
    path = write_tiny_squad(tmp_path / "squad.json", articles=1)
    settings = LoopSettings(step=0.4, budget=0.8)
    expected = run_loop(path, Parrot(), tmp_path / "whole", settings=settings)
    names = ("chosen.json", "train.json", "metrics.json", "curve.json", "known.json", "manifest.json")
    kept = [one for one in (tmp_path / "whole").rglob("*") if one.name in names or one.name.startswith("scores-")]
    kills = 0
    while True:
        folder = tmp_path / f"killed{kills}"
        child = os.fork()
        if child == 0:
            _run_until_killed(path, folder, settings, writes=kills)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        # Left behind by the kill: a temporary file, and nothing under a final name that is not whole.
        assert run_loop(path, Parrot(), folder, settings=settings) == expected
        for file in kept:
            other = folder / file.relative_to(tmp_path / "whole")
            if file.suffix == ".json":
                assert other.read_bytes() == file.read_bytes(), (kills, file)
            assert other.exists()
    assert kills >= 5 * 3, "recipe, and of each cycle choice, scores, data, metrics and curve"


def _run_until_killed(path: Path, folder: Path, settings: LoopSettings, *, writes: int) -> None:
    """In a forked child: the loop, killed before a file gets its final name; never returns."""
    left, replace = iter(range(writes)), os.replace

    def replace_or_die(*arguments: Any, **options: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments, **options)

    os.replace = replace_or_die
    try:
        run_loop(path, Parrot(), folder, settings=settings)
        os._exit(0)
    finally:
        os._exit(1)


def test_random_is_the_same_first_batch_for_all_strategies(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=3)
    first = []
    for strategy in ("random", "margin", "entropy"):
        run_loop(path, Parrot(), tmp_path / strategy, settings=LoopSettings(strategy=strategy, first=0.2), max_cycles=1)
        first.append((tmp_path / strategy / "cycle-000" / "chosen.json").read_text())
    assert len(set(first)) == 1
    other = LoopSettings(strategy="random", first=0.2, seed=1)
    run_loop(path, Parrot(), tmp_path / "other", settings=other, max_cycles=1)
    assert (tmp_path / "other" / "cycle-000" / "chosen.json").read_text() != first[0]


def test_a_loop_goes_on_to_a_larger_budget(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=3)
    whole = run_loop(path, Parrot(), tmp_path / "whole", settings=LoopSettings(step=0.2))
    for budget, cycles in ((0.4, 3), (1.0, 6), (0.2, 2)):
        found = run_loop(path, Parrot(), tmp_path / "parts", settings=LoopSettings(step=0.2, budget=budget))
        assert found == whole[:cycles]
    # The curve on disk keeps what is there, whatever was asked for last.
    assert (tmp_path / "parts" / "curve.json").read_bytes() == (tmp_path / "whole" / "curve.json").read_bytes()
    run_loop(path, Parrot(), tmp_path / "cut", settings=LoopSettings(step=0.2, budget=0.3))
    with pytest.raises(DataError, match="cut short by a smaller --budget"):
        run_loop(path, Parrot(), tmp_path / "cut", settings=LoopSettings(step=0.2))


def test_a_loop_without_its_first_cycle_is_not_begun_again_with_other_settings(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=4)
    run_loop(path, Parrot(), tmp_path / "loop", settings=LoopSettings(step=0.25))
    shutil.rmtree(tmp_path / "loop" / "cycle-000")
    with pytest.raises(DataError, match="was begun with strategy least-confidence, this command has strategy entropy"):
        run_loop(path, Parrot(), tmp_path / "loop", settings=LoopSettings(step=0.25, strategy="entropy"))


def test_a_loop_of_another_pool_is_refused(tmp_path: Path) -> None:
    path = write_tiny_squad(tmp_path / "squad.json", articles=3)
    run_loop(path, Parrot(), tmp_path / "loop", max_cycles=2)
    with pytest.raises(DataError, match="was begun with strategy"):
        run_loop(path, Parrot(), tmp_path / "loop", settings=LoopSettings(strategy="margin"))
    write_tiny_squad(path, articles=3, seed=4)
    with pytest.raises(DataError, match="was begun with squad"):
        run_loop(path, Parrot(), tmp_path / "loop")
    damaged = tmp_path / "loop" / "cycle-001" / "chosen.json"
    damaged.write_text('{"ids": []}')
    write_tiny_squad(path, articles=3)
    with pytest.raises(DataError, match="does not hold 4 questions"):
        run_loop(path, Parrot(), tmp_path / "loop")


def write_loop(folder: Path, strategy: str, seed: int, scores: dict[float, float], **changed: Any) -> Path:
    """What the chart reads of a loop's folder."""
    inputs = {name: {"path": f"/{name}.json", "sha256": changed.pop(name, name)} for name in ("squad", "dev")}
    learner = {"kind": changed.pop("kind", "teacher")}
    settings = {**asdict(LoopSettings(strategy=strategy, seed=seed)), **changed}
    del settings["budget"]  # of which the recipe does not know
    cycles = [
        {"share": share, "questions": round(1000 * share), "scores": {"f1": f1, "exact_match": f1 - 1}}
        for share, f1 in scores.items()
    ]
    folder.mkdir()
    recipe = {"format_version": 1, "inputs": inputs, "loop": settings, "learner": learner}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "curve.json").write_text(json.dumps({"strategy": strategy, "cycles": cycles}))
    return folder


def test_curves_of_several_seeds(tmp_path: Path) -> None:
    loops = [
        write_loop(tmp_path / "a", "margin", 0, {0.01: 10, 1.0: 30}),
        write_loop(tmp_path / "b", "margin", 1, {0.01: 20}),
        write_loop(tmp_path / "c", "random", 0, {0.01: 15}),
        write_loop(tmp_path / "d", "random", 0, {1.0: 40}, first=1.0),
    ]
    found = read_curves([*loops, loops[0]], "f1")  # a loop that is named twice is one seed
    points = {name: [(p.share, p.lowest, p.mean, p.highest, p.seeds) for p in curve] for name, curve in found.items()}
    margin = [(0.01, 10, 15, 20, 2), (1, 30, 30, 30, 1)]
    assert points == {"margin": margin, "random": [(0.01, 15, 15, 15, 1)], "all labels": [(1, 40, 40, 40, 1)]}
    # A student's loop is no seed of a teacher's.
    student = write_loop(tmp_path / "e", "margin", 2, {0.01: 5}, kind="student")
    assert list(read_curves([loops[0], student], "f1")) == ["margin, a", "margin, e"]
    # Nor are two of the same name.
    (tmp_path / "x").mkdir()
    same = write_loop(tmp_path / "x" / "e", "margin", 2, {0.01: 5}, step=0.2)
    assert list(read_curves([student, same], "f1")) == [f"margin, {student}", f"margin, {same}"]
    # Nor is a loop that clustered by another encoder.
    for name, encoder in (("k1", "a"), ("k2", "b"), ("k3", "b")):
        loop = write_loop(tmp_path / name, "least-confidence-clusters", int(name[1]) % 2, {0.01: 5})
        recipe = json.loads((loop / "recipe.json").read_text())
        entry = {"name": encoder, "sha256": encoder}
        (loop / "recipe.json").write_text(json.dumps({**recipe, "sentence_encoder": entry}))
    clustered = read_curves([tmp_path / name for name in ("k1", "k2", "k3")], "f1")
    assert [one[0].seeds for one in clustered.values()] == [1, 2]
    other = write_loop(tmp_path / "f", "margin", 3, {0.01: 5}, dev="0123456789abcdef")
    with pytest.raises(DataError, match=r"another dev file \(dev\.json, SHA-256 0123456789ab\).* cannot be compared"):
        read_curves([loops[0], other], "f1")
    with pytest.raises(DataError, match="no learning curve with total"):
        read_curves([tmp_path / "a"], "total")
    with pytest.raises(DataError, match=r"has no recipe\.json"):
        read_curves([tmp_path], "f1")


def test_the_chart_says_what_its_bands_are(tmp_path: Path) -> None:
    """Two seeds have a range, and no interval that would follow from a distribution."""
    margin = [write_loop(tmp_path / f"m{seed}", "margin", seed, {0.01: 10 + seed, 0.1: 20}) for seed in range(2)]
    write_loop(tmp_path / "r", "random", 0, {0.01: 10, 1.0: 30})
    draw_curves([*margin, tmp_path / "r"], tmp_path / "curve.svg")
    shown = (tmp_path / "curve.svg").read_text()
    for text in (
        "margin (2 seeds: mean, lowest to highest)",
        "random (1 seed)",
        "all labels: 30.00",
        "all labels: 29.00",
    ):
        assert f"<!-- {text} -->" in shown
    assert "interval" not in shown


LATE = """
import time
from qa_edge import teach
from qa_edge.active import loop
def late(function):
    def called(*arguments, **options):
        time.sleep(1)
        return function(*arguments, **options)
    return called
loop._cycle = late(loop._cycle)  # as by a slow disk: the first process begins the next cycle meanwhile
teach.TrainingState.load = late(teach.TrainingState.load)
"""


def test_two_processes_go_through_one_loop_however_late_one_is(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    squad = write_tiny_squad(tmp_path / "squad.json", articles=1)
    encoder = write_tiny_teacher(tmp_path / "encoder", all_texts(tiny_squad()), head=False)
    settings = LoopSettings(strategy="random", first=0.2, step=0.4, budget=0.8)
    small = ("--epochs", 1, "--window", 64, "--stride", 16)
    asked = ("active", "--squad", squad, "--dev", squad, "--encoder", encoder, *small)
    chosen_by = (
        "--strategy",
        "random",
        "--first",
        settings.first,
        "--step",
        settings.step,
        "--budget",
        settings.budget,
    )
    # A fine-tuning that was killed when its last update was done and saved, of one batch for any number of processes.
    teach = ("teach", "--encoder", encoder, "--squad", squad, "-o", tmp_path / "killed", *small)
    with monkeypatch.context() as patch:
        patch.setattr("qa_edge.teach._save_model", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert run(*teach).exit_code == 130
    assert (tmp_path / "killed" / "state").exists() and not (tmp_path / "killed" / "config.json").exists()
    shown, nothing = in_two_processes(
        (*asked, *chosen_by, "-o", tmp_path / "two", "--json"), teach, second=LATE, seconds=90
    )
    assert nothing == ""
    expected = run_loop(squad, Parrot(), tmp_path / "one", settings=settings)
    curve, _ = json.JSONDecoder().raw_decode(shown)
    assert [point["questions"] for point in curve] == [point.questions for point in expected]
    for number in range(len(expected)):
        path = f"cycle-{number:03d}/chosen.json"
        assert (tmp_path / "two" / path).read_bytes() == (tmp_path / "one" / path).read_bytes()
    assert "finished" in shown
    assert (tmp_path / "killed" / "config.json").exists()


def test_each_sort_of_learner_has_a_line_of_its_own(tmp_path: Path) -> None:
    """What a teacher and a student score with all labels has no mean."""
    teacher = write_loop(tmp_path / "teacher", "margin", 0, {0.01: 10, 1.0: 80})
    student = write_loop(tmp_path / "student", "margin", 0, {0.01: 5, 1.0: 40}, kind="student")
    draw_curves([teacher, student], tmp_path / "curve.svg")
    shown = (tmp_path / "curve.svg").read_text()
    assert "<!-- all labels, teacher: 80.00 -->" in shown and "<!-- all labels, student: 40.00 -->" in shown
    # A loop that begins with everything is the line of its own sort, and does not hide the other's.
    everything = write_loop(tmp_path / "whole", "random", 0, {1.0: 81}, first=1.0)
    draw_curves([teacher, student, everything], tmp_path / "curve.svg")
    shown = (tmp_path / "curve.svg").read_text()
    assert "<!-- all labels, whole: 81.00 -->" in shown and "<!-- all labels, student: 40.00 -->" in shown
    assert "all labels, teacher" not in shown


def test_the_command_fine_tunes_and_goes_on(tmp_path: Path, one_thread: None) -> None:
    squad, dev = write_tiny_squad(tmp_path / "squad.json"), write_tiny_squad(tmp_path / "dev.json", articles=1, seed=9)
    encoder = write_tiny_teacher(tmp_path / "encoder", all_texts(tiny_squad()), head=False)
    asked = ("active", "--squad", squad, "--dev", dev, "--encoder", encoder, "--first", 0.1, "--step", 0.3)
    small = ("--budget", 0.6, "--epochs", 1, "--window", 64, "--stride", 16, "--device", "cpu")
    whole = json.loads(ran(*asked, *small, "-o", tmp_path / "whole", "--json"))
    assert [point["questions"] for point in whole] == [11, 32, 65]
    assert all(point["scores"]["total"] == 18 for point in whole)
    assert len(json.loads(ran(*asked, *small, "-o", tmp_path / "parts", "--max-cycles", 1, "--json"))) == 1
    (tmp_path / "parts" / "cycle-000" / "metrics.json").unlink()
    assert json.loads(ran(*asked, *small, "-o", tmp_path / "parts", "--json")) == whole
    ran(
        *asked,
        *small,
        "-o",
        tmp_path / "parts",
        "--chart",
        tmp_path / "c.png",
        "--beside",
        tmp_path / "whole",
        "--json",
    )
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    (loop,) = find_runs(tmp_path / "whole")[1]  # as a report finds it
    assert (loop.kind, loop.strategy, loop.pool) == ("teacher", "least-confidence", 108)
    assert list(loop.points) == pytest.approx([point["share"] for point in whole], abs=1e-4)
    for options, message in (
        (("--strategy", "best"), "unknown strategy 'best'; there are random"),
        (("--strategy", "disagreement"), "needs a student with a teacher"),
        (("--student", "rate=1"), "--student is of a student: give its --features too"),
        (("--features", squad, "--student", "speed=1"), "expected NAME=VALUE, where the name is one of alignment"),
        (("--features", squad, "--student", "rate=fast"), "'fast' is not a valid float"),
        (("--features", squad, "--labels", squad), "give them, or an encoder to fine-tune, not both"),
        (("--budget", 0.01), "larger than the budget"),
        (("--strategy", "least-confidence-clusters"), "sentence encoder"),
    ):
        if "least-confidence-clusters" in options:
            pytest.importorskip("sklearn")
        refused = run(*asked, *small, "-o", tmp_path / "no", *options)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    assert "nothing to train" in run("active", "--squad", squad, "--dev", dev, "-o", tmp_path / "no").stderr
    write_tiny_squad(squad, seed=5)
    changed = run(*asked, *small, "-o", tmp_path / "whole")
    assert changed.exit_code == 1
    assert changed.stderr.count("\n") == 1
    assert "was begun with squad of SHA-256" in changed.stderr


def test_a_loop_goes_on_with_the_same_encoders_wherever_they_lie_and_with_no_others(tmp_path: Path) -> None:
    squad = write_tiny_squad(tmp_path / "squad.json", articles=1)
    encoder, other = (write_tiny_teacher(tmp_path / f"{seed}", all_texts(tiny_squad()), seed=seed) for seed in (0, 1))
    moved = Path(shutil.copytree(encoder, tmp_path / "elsewhere" / "moved"))

    class Tuned(Parrot):
        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

        def recipe(self) -> dict[str, Any]:
            return {"encoder": model_entry(str(self.path))}

    settings = LoopSettings(strategy="least-confidence-clusters", first=0.5, budget=0.5)

    def loop(learner: Path, sentences: Path) -> None:
        run_loop(squad, Tuned(learner), tmp_path / "l", settings=settings, encoder=SentenceEncoder.load(str(sentences)))

    loop(encoder, encoder)
    loop(moved, moved)
    with pytest.raises(DataError, match="was begun with encoder of SHA-256"):
        loop(other, encoder)
    with pytest.raises(DataError, match="was begun with sentence-encoder of SHA-256"):
        loop(encoder, other)
