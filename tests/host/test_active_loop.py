from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import all_texts, tiny_squad, write_tiny_squad, write_tiny_teacher
from tiny_teacher import ran, run

from qa_edge.active.curve import read_curves
from qa_edge.active.cycles import LoopSettings, labelled_counts
from qa_edge.active.loop import run_loop
from qa_edge.squad import read_squad
from qa_edge_runtime.errors import DataError, InputError


def test_the_rows_of_tables_4_and_5() -> None:
    counts = labelled_counts(87599, LoopSettings())
    assert len(counts) == 11
    assert counts[0] == 876
    assert [round(100 * count / 87599) for count in counts] == [1, *range(10, 101, 10)]
    assert counts[-1] == 87599


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


def test_curves_of_several_seeds(tmp_path: Path) -> None:
    for name, strategy, scores in (("a", "margin", (10, 30)), ("b", "margin", (20, 32)), ("c", "random", (15,))):
        cycles = [{"share": share, "scores": {"f1": f1}} for share, f1 in zip((0.01, 1.0), scores, strict=False)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.json").write_text(json.dumps({"strategy": strategy, "cycles": cycles}))
    found = read_curves([tmp_path / name for name in "abc"], "f1")
    points = {name: [(p.share, p.lowest, p.mean, p.highest, p.seeds) for p in curve] for name, curve in found.items()}
    assert points == {"margin": [(0.01, 10, 15, 20, 2), (1, 30, 31, 32, 2)], "random": [(0.01, 15, 15, 15, 1)]}
    with pytest.raises(DataError, match="no learning curve with exact_match"):
        read_curves([tmp_path / "a"], "exact_match")
    with pytest.raises(DataError, match="does not exist"):
        read_curves([tmp_path], "f1")


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
    for options, message in (
        (("--strategy", "best"), "unknown strategy 'best'; there are random"),
        (("--budget", 0.01), "larger than the budget"),
        (("--strategy", "least-confidence-clusters"), "sentence encoder"),
    ):
        if "least-confidence-clusters" in options:
            pytest.importorskip("sklearn")
        refused = run(*asked, *small, "-o", tmp_path / "no", *options)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
