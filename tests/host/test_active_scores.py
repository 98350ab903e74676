from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from tiny_models import student_of, tiny_squad, write_json
from tiny_teacher import Workshop, ran, run

from qa_edge.active.pool import Pool, part_of, read_pool
from qa_edge.active.readers import PlacedLogits, StudentReader, TeacherReader, answer_probabilities, open_reader
from qa_edge.active.scores import Scores, score_pool
from qa_edge.features import Features
from qa_edge.squad import read_squad, write_squad
from qa_edge.teacher import Teacher
from qa_edge_runtime.answerer import Answerer
from qa_edge_runtime.errors import DataError


def write_pool(path: Path, *, labelled: int = 0, **sizes: int) -> Path:
    """The tiny data set without answers, but for the first questions."""
    write_squad(path, tiny_squad(**sizes))
    data = json.loads(path.read_text(encoding="utf-8"))
    questions = [q for article in data["data"] for p in article["paragraphs"] for q in p["qas"]]
    for question in questions[labelled:]:
        question["answers"] = []
    return write_json(path, data)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return read_pool(write_pool(tmp_path_factory.mktemp("pool") / "pool.json", articles=2))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qa_edge.active.scores.SHARD_QUESTIONS", 8)


class Counting:
    """A model whose logits are by the length of question and context; it can be killed after some questions."""

    kind, sha256, max_answer_tokens = "run", "f" * 64, 30

    def __init__(self, *, dies_after: int = sys.maxsize, sha256: str = "f" * 64) -> None:
        self.asked: list[tuple[str, str]] = []
        self.dies_after, self.sha256 = dies_after, sha256

    def logits(self, pairs: Any) -> Any:
        found = []
        for question, context in pairs:
            if len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append((question, context))
            random = np.random.default_rng(len(question) * 1000 + len(context))
            found.append(tuple(random.normal(size=(2, 12)).astype(np.float32)))
        return found


class Placed(Counting):
    """The same with the characters of its tokens, so that it can be compared."""

    def placed(self, pairs: Any) -> list[PlacedLogits]:
        places = np.arange(12, dtype=np.int32)
        return [
            PlacedLogits(start=start, end=end, first=places, behind=places + 1) for start, end in self.logits(pairs)
        ]


def scored(pool: Pool, model: Any, folder: Path, **options: Any) -> bool:
    return score_pool(pool, model, folder, **options)


def by_hand(pairs: Any, longest: int = 30) -> np.ndarray:
    rows = []
    for start, end in Counting().logits(pairs):
        logits = [start[i] + end[j] for i in range(12) for j in range(i, min(12, i + longest))]
        rows.append(-np.sort(-softmax(np.array(logits, np.float64)))[:5])
    return np.array(rows)


@pytest.mark.usefixtures("small_shards")
def test_scores_are_the_same_however_often_the_run_was_killed(pool: Pool, tmp_path: Path) -> None:
    pairs = list(zip(pool.questions, pool.contexts, strict=True))
    assert scored(pool, Counting(), tmp_path / "whole")
    whole = Scores(tmp_path / "whole", pool)
    np.testing.assert_allclose(whole.probabilities, by_hand(pairs), rtol=1e-6)
    assert whole.questions_per_hour > 0
    for dies_after in (3, 8, 20):
        with pytest.raises(KeyboardInterrupt):
            scored(pool, Counting(dies_after=dies_after), tmp_path / "killed")
    with pytest.raises(DataError, match=r"unfinished \(\d of 5 shards missing\)"):
        Scores(tmp_path / "killed", pool)
    last = Counting()
    assert scored(pool, last, tmp_path / "killed")
    assert len(last.asked) < len(pool)
    np.testing.assert_array_equal(Scores(tmp_path / "killed", pool).probabilities, whole.probabilities)
    idle = Counting()
    assert scored(pool, idle, tmp_path / "killed")
    assert not idle.asked


@pytest.mark.usefixtures("small_shards")
def test_processes_share_the_shards(pool: Pool, tmp_path: Path) -> None:
    models = [Counting() for _ in range(3)]
    ends = [scored(pool, model, tmp_path / "s", process=i, processes=3) for i, model in enumerate(models)]
    assert ends == [False, False, True]
    assert sum(len(model.asked) for model in models) == len(pool)
    assert scored(pool, Counting(), tmp_path / "one")
    one, three = (Scores(tmp_path / name, pool).probabilities for name in ("one", "s"))
    np.testing.assert_array_equal(one, three)


def test_scores_of_another_pool_or_model_are_refused(pool: Pool, tmp_path: Path) -> None:
    assert scored(pool, Counting(), tmp_path / "s")
    other = read_pool(write_pool(tmp_path / "other.json", articles=2, seed=5))
    for changed in (other, read_pool(write_pool(tmp_path / "short.json", articles=1))):
        with pytest.raises(DataError, match=r"made from another pool .* it has changed since"):
            scored(changed, Counting(), tmp_path / "s")
        with pytest.raises(DataError, match="made from another pool"):
            Scores(tmp_path / "s", changed)
    with pytest.raises(DataError, match="made by another model"):
        scored(pool, Counting(sha256="e" * 64), tmp_path / "s")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds a\.txt but no manifest\.json"):
        scored(pool, Counting(), tmp_path / "notes")


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 20, None])
def test_damaged_scores_are_refused(pool: Pool, tmp_path: Path, damage: bytes | None) -> None:
    from safetensors.numpy import save

    assert scored(pool, Counting(), tmp_path / "s")
    if damage is None:
        damage = save({"probabilities": np.full((len(pool), 5), np.nan), "seconds": np.ones(1)})
    (tmp_path / "s" / "scores-00000.safetensors").write_bytes(damage)
    with pytest.raises(DataError, match=r"scores-00000\.safetensors"):
        Scores(tmp_path / "s", pool)


def test_a_students_probability_is_that_of_its_answer(shop: Workshop) -> None:
    """The bundle is the run in full precision: torch, the runtime and the Answerer itself say the same."""
    items = [(paragraph.context, q.text) for _, paragraph, q in read_squad(shop.dev).items()][:20]
    items += [(f"{context}  \n {context[:40]}", question) for context, question in items[:3]]
    pairs = [(question, context) for context, question in items]
    student, bundle = open_reader(str(shop.run), device="cpu"), open_reader(str(shop.bundle))
    assert (student.kind, bundle.kind) == ("run", "bundle")
    by_torch, by_runtime = answer_probabilities(student, pairs), answer_probabilities(bundle, pairs)
    np.testing.assert_allclose(by_torch, by_runtime, atol=2e-5)
    with Answerer.load(shop.bundle) as answerer:
        expected = [answerer.answer(question, context).span_probability for question, context in pairs]
    np.testing.assert_allclose(by_runtime[:, 0], expected, rtol=1e-9)
    assert student.sha256 != bundle.sha256


def test_teachers_and_students_are_read_alike(
    pool: Pool, tiny_teacher: Teacher, tiny_features: Features, one_thread: None
) -> None:
    pairs = list(zip(pool.questions, pool.contexts, strict=True))[:12]
    for reader in (TeacherReader(tiny_teacher), StudentReader(student_of(tiny_features))):
        found = answer_probabilities(reader, pairs)
        for row, (start, end) in zip(found, reader.logits(pairs), strict=True):
            # Sums over spans without making a list of them: prefix by prefix.
            logits = start[:, None].astype(np.float64) + end[None, :]
            valid = np.triu(np.ones_like(logits)) - np.triu(np.ones_like(logits), 30)
            shares = softmax(logits[valid > 0])
            np.testing.assert_allclose(row, -np.sort(-shares)[:5], rtol=1e-6, atol=1e-12)
        backwards = answer_probabilities(reader, pairs[::-1])[::-1]
        np.testing.assert_allclose(found, backwards, atol=1e-5)


def test_models_that_give_no_logits(tmp_path: Path, tiny_squad_path: Path) -> None:
    from tiny_models import all_texts, write_tiny_teacher

    encoder = write_tiny_teacher(tmp_path / "encoder", all_texts(read_squad(tiny_squad_path)), head=False)
    with pytest.raises(DataError, match="no trained question-answering head"):
        open_reader(str(encoder), device="cpu")
    with pytest.raises(DataError, match="could not be loaded"):
        open_reader("nobody/nothing", device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither a manifest\.json nor a config\.json"):
        open_reader(str(tmp_path / "empty"))


def test_pools_that_cannot_be_chosen_from(tmp_path: Path) -> None:
    part = write_pool(tmp_path / "part.json", labelled=5)
    with pytest.raises(DataError, match=r"has 5 labelled questions of 108 .*--skip-labelled"):
        read_pool(part)
    pool = read_pool(part, skip_labelled=True)
    assert len(pool) == 103
    assert len(pool.labelled) == 5
    with pytest.raises(DataError, match="empty pool: all 108 questions are labelled"):
        read_pool(write_pool(tmp_path / "all.json", labelled=108), skip_labelled=True)
    nothing = write_json(tmp_path / "none.json", {"data": [{"title": "", "paragraphs": [{"context": "a", "qas": []}]}]})
    with pytest.raises(DataError, match="empty pool: it has no question"):
        read_pool(nothing)


def test_a_part_keeps_contexts_and_order(pool: Pool) -> None:
    wanted = [pool.ids[7], pool.ids[0], pool.ids[30]]
    part = part_of(pool.squad, wanted)
    assert [q.id for _, _, q in part.items()] == [pool.ids[0], pool.ids[7], pool.ids[30]]
    whole = {q.id: (p.context, q) for _, p, q in pool.squad.items()}
    assert all(whole[q.id] == (p.context, q) for _, p, q in part.items())


def test_select_by_a_model(shop: Workshop, tmp_path: Path) -> None:
    """The whole command, with a bundle: the questions of which it is least sure, and a second choice for nothing."""
    data = json.loads(shop.dev.read_text(encoding="utf-8"))
    truth = read_squad(shop.dev)
    for question in [q for article in data["data"] for p in article["paragraphs"] for q in p["qas"]]:
        question["answers"] = []
    path = write_json(tmp_path / "pool.json", data)
    before = path.read_bytes()
    asked = ("select", "--pool", path, "--model", shop.bundle, "--near-duplicates")
    shown = json.loads(ran(*asked, "--count", 4, "-o", tmp_path / "four.json", "--json"))
    with Answerer.load(shop.bundle) as answerer:
        sure = {q.id: answerer.answer(q.text, p.context).span_probability for _, p, q in truth.items()}
    assert shown["ids"] == sorted(sure, key=lambda identity: sure[identity])[:4]
    assert shown["questions_per_hour"] > 0
    assert {q.id for _, _, q in read_squad(tmp_path / "four.json").items()} == set(shown["ids"])
    scores = tmp_path / "four.json.scores"
    dates = {one.name: one.stat().st_mtime_ns for one in scores.iterdir()}
    again = ("--strategy", "entropy", "--scores", scores, "-o", tmp_path / "five.json", "--count", 5)
    ran(*asked, *again)
    assert dates == {one.name: one.stat().st_mtime_ns for one in scores.iterdir()}
    assert path.read_bytes() == before
    for options, message, code in (
        (("--count", 1000), f"count 1,000 is more than the {len(sure)} questions", 1),
        (("--count", 2, "--strategy", "best"), "unknown strategy 'best'; there are random, least-confidence", 2),
        (("--count", 2, "--strategy", "least-confidence-clusters"), "sentence encoder", 2),
        (("--count", 2, "--process", 1), "--process 1 is not one of 1", 2),
        (("--count", 2, "--similarity", "nan"), "not a finite number", 2),
    ):
        if "least-confidence-clusters" in options:
            pytest.importorskip("sklearn")
        refused = run(*asked, "-o", tmp_path / "no.json", *options)
        assert (refused.exit_code, message in refused.stderr) == (code, True), refused.stderr
    assert run(*asked, "--count", 2, "-o", tmp_path / "five.json").exit_code == 2
    assert "never changed" in run(*asked, "--count", 2, "-o", path, "--force", "--scores", scores).stderr
    assert "needs --model" in run("select", "--pool", path, "--count", 2, "-o", tmp_path / "x").stderr
    data["version"] = "other"
    write_json(path, data)
    assert "has changed since" in run(*asked, *again, "--force").stderr


def test_what_cannot_be_is_said_before_the_model_reads(shop: Workshop, tmp_path: Path) -> None:
    path = write_pool(tmp_path / "pool.json", articles=1)
    pool = read_pool(path)
    round1 = tmp_path / "round1.json"
    write_squad(round1, part_of(pool.squad, pool.ids[:3]))
    scores = tmp_path / "scores"
    asked = ("select", "--pool", path, "--scores", scores, "--model")
    left = len(pool) - 3
    for options, message in (
        ((shop.bundle, "--count", 2, "--without", tmp_path / "no.json"), "no.json does not exist"),
        (
            (shop.bundle, "--count", left + 1, "--without", round1),
            f"more than the {left} questions that are left of the {len(pool)} of {path}",
        ),
        ((shop.run, "--count", 2, "--device", "nowhere"), "device 'nowhere' cannot be used"),
    ):
        refused = run(*asked, *options, "-o", tmp_path / "out.json")
        assert refused.exit_code in (1, 2) and message in refused.stderr, refused.stderr
    model = tmp_path / "model"
    shutil.copytree(shop.run, model)
    before = (model / "model.safetensors").read_bytes()
    over = run(*asked, model, "--count", 2, "-o", model / "model.safetensors", "--force")
    assert over.exit_code == 2 and "is what was read" in over.stderr
    assert (model / "model.safetensors").read_bytes() == before and not list(scores.glob("*.safetensors"))
    data = json.loads(path.read_text(encoding="utf-8"))
    data["data"][0]["paragraphs"][-1]["qas"][-1]["question"] = "Why? " * 300
    write_json(path, data)
    long = run(*asked, shop.bundle, "--count", 2, "-o", tmp_path / "out.json")
    assert (
        long.exit_code == 1
        and "question 'Why? Why? " in long.stderr
        and "600 tokens, a bundle reads 400" in long.stderr
    )
    assert not list(scores.glob("*.safetensors"))


def test_scores_that_were_compared_with_a_teacher_serve_without_one(pool: Pool, tmp_path: Path) -> None:
    model = Placed()
    scored(pool, model, tmp_path, teacher=Placed(sha256="a" * 64))
    read = len(model.asked)
    assert scored(pool, model, tmp_path) and len(model.asked) == read
    assert Scores(tmp_path, pool).disagreement is not None
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(DataError, match="were made by another model"):
        scored(pool, model, tmp_path)


def test_a_bundle_chooses_without_torch(shop: Workshop, tmp_path: Path) -> None:
    """The extra `active` is enough; without it a sentence names it."""
    path = write_pool(tmp_path / "pool.json", articles=1)
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {names}: raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from qa_edge.cli import main\n"
        "main({arguments}, prog_name='qa-edge')"
    )
    heavy = ("torch", "transformers", "spacy", "accelerate", "scipy", "sklearn")
    asked = ["select", "--pool", path, "--model", shop.bundle, "--count", 2]
    for names, output, expected in ((heavy, "two.json", 0), ((*heavy, "safetensors"), "no.json", 1)):
        arguments = [str(one) for one in (*asked, "-o", tmp_path / output)]
        source = code.format(names=names, arguments=arguments)
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.returncode == expected, done.stderr
        assert (tmp_path / output).exists() == (expected == 0)
    assert 'pip install "qa-edge[active]"' in done.stderr


def test_two_processes_choose_once(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qa_edge.active.scores.SHARD_QUESTIONS", 5)
    path = write_pool(tmp_path / "pool.json", articles=1)
    asked = ("select", "--pool", path, "--model", shop.run, "--device", "cpu", "--count", 3, "-o", tmp_path / "o.json")
    first = run(*asked, "--process", 1, "--processes", 2)
    assert first.exit_code == 0
    assert "process 1 of 2 has done its part" in first.stderr
    assert not (tmp_path / "o.json").exists()
    ran(*asked, "--process", 0, "--processes", 2)
    two = (tmp_path / "o.json").read_bytes()
    ran(*asked[:-1], tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == two
    # All is scored: the first one chooses, the same again or nothing.
    (tmp_path / "o.json").unlink()
    assert ran(*asked, "--process", 1, "--processes", 2) == "" and not (tmp_path / "o.json").exists()
    again = (*asked, "--process", 0, "--processes", 2)
    for _ in range(2):
        assert "chosen" in ran(*again) and (tmp_path / "o.json").read_bytes() == two
    (tmp_path / "o.json").write_text("mine")
    refused = run(*again)
    assert refused.exit_code == 2 and "o.json exists already" in refused.stderr
    assert (tmp_path / "o.json").read_text() == "mine"
    ran(*again, "--force")
    assert (tmp_path / "o.json").read_bytes() == two


def test_a_launchers_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, output = write_pool(tmp_path / "pool.json", articles=1), tmp_path / "o.json"
    asked = ("select", "--pool", path, "--strategy", "random", "--count", 3, "-o", output)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert ran(*asked) == "" and not output.exists()
    assert "--process 1 is not one of 1" in run(*asked, "--processes", 1).stderr
    monkeypatch.setenv("RANK", "0")
    assert "chosen" in ran(*asked)
    before = output.read_bytes()
    assert "chosen" in ran(*asked)  # the same again
    refused = run(*asked, "--seed", 1)
    assert refused.exit_code == 2 and "exists already" in refused.stderr and output.read_bytes() == before
    label = ("label", "--squad", path, "--teacher", tmp_path, "-o", tmp_path / "labels")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "x")
        for command in (asked, label):
            refused = run(*command)
            assert refused.exit_code == 2 and "'x' is not a valid integer" in refused.stderr
        monkeypatch.delenv(name)


def test_clusters_by_a_real_encoder(shop: Workshop, tmp_path: Path) -> None:
    """A BERT without a head as sentence encoder: vectors of length 1 that do not depend on their batch."""
    pytest.importorskip("sklearn")
    from tiny_teacher import write_example_teacher

    from qa_edge.active.clusters import SentenceEncoder

    folder = write_example_teacher(tmp_path / "encoder", head=False)
    encoder = SentenceEncoder.load(str(folder))
    sentences = ["Who?", "Where is the red lamp of Anna kept, and why?", "", "Who?"]
    vectors = encoder.encode(sentences)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors, [encoder.encode([one])[0] for one in sentences], atol=1e-5)
    path = write_pool(tmp_path / "pool.json", articles=2)
    asked = ("--strategy", "least-confidence-clusters", "--sentence-encoder", folder, "--count", 9)
    ran("select", "--pool", path, "--model", shop.run, "--device", "cpu", *asked, "-o", tmp_path / "o.json")
    assert len(list(read_squad(tmp_path / "o.json").items())) == 9
    with pytest.raises(DataError, match="could not be loaded"):
        SentenceEncoder.load(str(tmp_path))


def test_a_vector_is_the_mean_of_its_pieces(tmp_path: Path) -> None:
    import torch
    from tiny_teacher import write_example_teacher
    from transformers import AutoModel, AutoTokenizer

    from qa_edge.active.clusters import SentenceEncoder

    folder = write_example_teacher(tmp_path / "encoder", head=False)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**tokenizer("Where is the lamp?", return_tensors="pt")).last_hidden_state[0].numpy()
    mean = states.mean(axis=0)
    found = SentenceEncoder.load(str(folder)).encode(["Where is the lamp?"])[0]
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)
