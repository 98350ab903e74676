"""The domain of docs/own-domain.md: nothing of it was trained on, and no answer or text slips from the test into it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_squad, write_tiny_squad
from tiny_teacher import Workshop

from qa_edge.split import split_articles
from qa_edge.squad import Squad, read_squad, references

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import cut_domain
import domain_table

HELDOUT = {"heldout": 0.5, "seed": 3}


def cut(folder: Path, shop: Workshop, *options: str) -> int:
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        checkpoint.mkdir()
        (checkpoint / "recipe.json").write_text(json.dumps({"format_version": 1, "prepare": HELDOUT}))
        (checkpoint / "tokenizer.json").write_bytes((shop.run / "tokenizer.json").read_bytes())
        write_tiny_squad(folder / "train.json", articles=8, contexts=4)
    inputs = ("--squad", str(folder / "train.json"), "--dev", str(shop.dev), "--checkpoint", str(checkpoint))
    return cut_domain.main([*inputs, "-o", str(folder / "domain"), *options])


def contexts(squad: Squad) -> set[str]:
    return {paragraph.context for _, paragraph in squad.paragraphs()}


def test_parts_of_a_domain(tmp_path: Path, shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(tmp_path, shop, "--articles", "3", "--labels", "5") == 0
    names = ("questions", "labelled", "few", "rest", "test", "other")
    questions, labelled, few, rest, test, other = (read_squad(tmp_path / "domain" / f"{name}.json") for name in names)
    training, heldout = split_articles(tiny_squad(articles=8, contexts=4), HELDOUT["heldout"], int(HELDOUT["seed"]))
    trained = {paragraph.paragraph.context for paragraph in training}
    assert len(heldout.articles) == 4 and [len(a.paragraphs) for a in questions.articles] == [2, 2, 2]
    assert contexts(questions) == contexts(labelled) >= contexts(few) and not contexts(questions) & contexts(test)
    assert (contexts(questions) | contexts(test)) <= contexts(heldout) and not contexts(test) & trained
    assert [a.title for a in test.articles] == [a.title for a in questions.articles]
    ids = [[question.id for _, _, question in squad.items()] for squad in (questions, labelled)]
    parts = [{question.id for _, _, question in squad.items()} for squad in (few, rest)]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(ids[0]) and not references(rest)
    assert ids[0] == ids[1] and not references(questions) and references(labelled) == references(few)
    assert len(references(few)) == 5 and all(references(heldout)[i] == found for i, found in references(few).items())
    assert references(test) and references(other) == references(read_squad(shop.dev))
    assert set((tmp_path / "domain" / "words.txt").read_text("utf-8").split()) >= {"What", "colour", "weighs"}
    assert "few.json: 5 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--articles", "5"), "held out 4 articles of this file, 5 are needed"), (("--labels", "999"), "ask for fewer")],
)
def test_a_domain_that_cannot_be_cut(
    tmp_path: Path, shop: Workshop, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert cut(tmp_path, shop, "--articles", "3", *options) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "domain").exists()


def test_the_table_has_the_changes_against_the_first(
    tmp_path: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(tmp_path, shop, "--articles", "3", "--labels", "5")
    monkeypatch.chdir(tmp_path)
    for part in ("test", "other"):
        truths = references(read_squad(tmp_path / "domain" / f"{part}.json"))
        (tmp_path / f"before.{part}.json").write_text(json.dumps(dict.fromkeys(truths, "nothing of the kind")))
        (tmp_path / f"after.{part}.json").write_text(json.dumps({name: found[0] for name, found in truths.items()}))
    capsys.readouterr()
    assert domain_table.main(["domain", "before", "after"]) == 0
    *_, before, after = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in before.split("|")[1:-1]] == ["before", "0.00", "0.00", "", "0.00", ""]
    change = "+100.00 (+100.00 to +100.00)"
    assert [cell.strip() for cell in after.split("|")[1:-1]] == ["after", "100.00", "100.00", change, "100.00", change]
    assert domain_table.main(["domain", "before", "missing"]) == 1
