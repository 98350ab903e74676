from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_teacher import Workshop, ran, run, write_example_squad, write_example_teacher

from qa_edge.squad import read_squad
from qa_edge.teach import batches_of_process
from qa_edge.teach_settings import TeachSettings
from qa_edge.teacher import Teacher, padded_width
from qa_edge.windows import encode_examples, token_batches
from qa_edge_runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
TEACHING = ("--epochs", "1", "--batch-tokens", "2048", "--save-every", "1", "--rate", "1e-3")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_teacher(tmp_path_factory.mktemp("encoder") / "encoder", head=False)


def test_an_encoder_becomes_a_teacher(shop: Workshop, encoder: Path, tmp_path: Path) -> None:
    teach = ("teach", "--encoder", encoder, "--squad", shop.train, "--dev", shop.dev, *TEACHING)
    report = json.loads(ran(*teach, "-o", tmp_path / "whole", "--json"))
    assert report["finished"] and report["scores"]["total"] == 12
    Teacher.load(str(tmp_path / "whole"))
    assert not (tmp_path / "whole" / "state").exists()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert losses and all(np.isfinite(losses))
    scores = json.loads(ran("evaluate", tmp_path / "whole", "--squad", shop.dev, "--json"))
    assert scores["f1"] == report["scores"]["f1"]

    # Interrupted and gone on with: the same weights, byte for byte.
    assert "run the same command" in ran(*teach, "-o", tmp_path / "parts", "--max-steps", "2")
    assert not (tmp_path / "parts" / "config.json").exists()
    ran(*teach, "-o", tmp_path / "parts")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]

    result = run(*teach, "-o", tmp_path / "whole", "--seed", "1")
    assert result.exit_code == 1 and "was begun with seed 0" in result.stderr
    before = (tmp_path / "whole" / "scores.json").stat().st_mtime_ns
    assert "finished" in ran(*teach, "-o", tmp_path / "whole")
    assert (tmp_path / "whole" / "scores.json").stat().st_mtime_ns == before


def test_answers_are_marked_where_a_window_holds_them(encoder: Path, shop: Workshop) -> None:
    teacher = Teacher.load(str(encoder), window=64, stride=16, new_head=True)
    squad = read_squad(shop.train)
    examples = encode_examples(teacher, squad)
    special = teacher.tokenizer.cls_token_id
    normal = teacher.tokenizer.backend_tokenizer.normalizer.normalize_str
    marked: dict[str, int] = {}
    place = 0
    for _, paragraph, question in squad.items():
        windows, _ = teacher.encode([question.text], [paragraph.context])
        for example in examples[place : place + len(windows)]:
            if example.ids[example.start] == special:
                assert example.start == example.end
                continue
            found = teacher.tokenizer.decode(example.ids[example.start : example.end + 1])
            assert normal(question.answers[0].text).replace(" ", "") in normal(found.replace("##", "")).replace(" ", "")
            marked[question.id] = marked.get(question.id, 0) + 1
        place += len(windows)
    assert place == len(examples) > sum(1 for _ in squad.items())
    assert len(marked) == sum(1 for _ in squad.items())


def test_batches_hold_each_window_once_and_keep_to_their_size() -> None:
    lengths = np.random.default_rng(0).integers(10, 300, 500)
    batches = token_batches(lengths, 2048, seed=0, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(len(b) * padded_width(int(lengths[b].max())) <= 2048 for b in batches)
    again, other = (token_batches(lengths, 2048, seed=0, epoch=epoch) for epoch in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other, strict=False))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_process_has_as_many_batches(count: int) -> None:
    """However many processes there are; together they read all."""
    batches = [np.array([number]) for number in range(count)]
    for processes in range(1, 12):
        plans = [batches_of_process(batches, process, processes) for process in range(processes)]
        assert {len(plan) for plan in plans} == {-(-count // processes)}
        seen = [int(plan[update][0]) for update in range(len(plans[0])) for plan in plans]
        assert seen == [place % count for place in range(len(seen))] and set(seen) == set(range(count))


def test_unusable_encoders_and_data_are_one_sentence(shop: Workshop, encoder: Path, tmp_path: Path) -> None:
    result = run("teach", "--encoder", tmp_path / "nothing", "--squad", shop.train, "-o", tmp_path / "a")
    assert result.exit_code == 1 and "could not be loaded" in result.stderr
    bare = write_example_squad(tmp_path / "bare.json", answered=False)
    result = run("teach", "--encoder", encoder, "--squad", bare, "-o", tmp_path / "b")
    assert result.exit_code == 1 and "no question has an answer at its offset" in result.stderr
    result = run("teach", "--encoder", encoder, "--squad", shop.train, "-o", encoder)
    assert result.exit_code == 1 and "no recipe.json" in result.stderr
    result = run("teach", "--encoder", encoder, "--squad", shop.train, "-o", tmp_path / "c", "--window", "9999")
    assert result.exit_code == 1 and "does not fit a teacher that reads 512 pieces" in result.stderr


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"rate": 0.0}, {"warmup": 1.0}, {"precision": "fp16"}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        TeachSettings(**wrong)  # type: ignore[arg-type]
