from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tiny_models import write_json
from tiny_teacher import ran, run

from qa_edge.more_questions import with_more_questions
from qa_edge.near_words import NearWords
from qa_edge.squad import Article, Paragraph, Question, Reference, Squad, read_squad, write_squad
from qa_edge_runtime.errors import DataError, InputError

TEXT = "The old red kettle sings at noon in Hamburg. In 1931 Anna Berger gave her kettle to a museum of the harbour."
# Pairs of words that are near each other and far from the others.
PAIRS = [("kettle", "pot"), ("museum", "gallery"), ("harbour", "port"), ("sings", "hums")]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("near") / "vectors.txt"
    rows = [
        f"{word} " + " ".join(str(float(n == number)) for n in range(len(PAIRS)))
        for number, pair in enumerate(PAIRS)
        for word in pair
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def texts(*, questions: int = 40) -> Squad:
    asked = tuple(
        Question(id=f"q{n}", text="Who gave the kettle to the museum?", answers=(Reference(text="Anna", start=53),))
        for n in range(questions)
    )
    bare = Paragraph(context=TEXT.replace("Hamburg", "Bremen"))
    return Squad(articles=(Article(title="A", paragraphs=(Paragraph(context=TEXT, questions=asked), bare)),))


def test_words_near_a_word_come_in_its_case(vectors: Path) -> None:
    near = NearWords(vectors, ["kettle", "the", "noon"])
    source = random.Random(0)
    assert [near.draw(word, source) for word in ("kettle", "Kettle", "KETTLE")] == ["pot", "Pot", "POT"]
    assert [word in near for word in ("Kettle", "the", "noon", "pot")] == [True, False, False, False]


def test_each_text_has_as_many_more_and_its_own_are_kept(vectors: Path) -> None:
    squad = texts()
    more, count = with_more_questions(squad, vectors, bare_texts=3)
    asked, bare = more.articles[0].paragraphs
    assert asked.questions[:40] == squad.articles[0].paragraphs[0].questions
    new = asked.questions[40:]
    assert len(new) == 40 and all(one.unlabelled and one.text.strip() for one in new)
    assert 1 <= len(bare.questions) <= 3 and all(one.id.startswith("gap-0-0-1-") for one in bare.questions)
    assert sum(count.values()) == len(new) + len(bare.questions) and min(count.values()) >= 0
    ids = [one.id for _, _, one in more.items()]
    assert len(ids) == len(set(ids))
    kinds = {kind: [one.text for one in new if one.id.startswith(kind)] for kind in count}
    # Four tries leave one in seventeen with no word replaced.
    replaced = [text for text in kinds["replaced"] if "pot" in text or "gallery" in text]
    assert len(replaced) > 0.7 * len(kinds["replaced"]) > 5
    assert kinds["gap"] and all(text.endswith("?") for text in kinds["gap"])
    # The one text with questions of its article has only its own, so that none is another's.
    assert not kinds["other"]


def test_a_gap_asks_by_what_stood_there(vectors: Path) -> None:
    squad = Squad(articles=(Article(title="A", paragraphs=(Paragraph(context=TEXT),)),))
    more, _ = with_more_questions(squad, vectors, bare_texts=400)
    found = [one.text.lower() for _, _, one in more.items()]
    years = [text for text in found if "1931" not in text and "gave" in text]
    assert any("what year" in text or "which year" in text or "when" in text for text in years)
    assert any("where" in text for text in found) and any("who" in text for text in found)


def test_the_same_seed_the_same_questions(vectors: Path) -> None:
    first, second, other = (with_more_questions(texts(), vectors, seed=seed)[0] for seed in (4, 4, 5))
    assert first == second
    assert first != other


def test_what_cannot_be_asked_is_said(vectors: Path) -> None:
    short = Squad(articles=(Article(title="A", paragraphs=(Paragraph(context="Too short."),)),))
    with pytest.raises(DataError, match="no question could be written"):
        with_more_questions(short, vectors)
    with pytest.raises(DataError, match="bare_texts is 0"):
        with_more_questions(short, vectors, bare_texts=0)
    with pytest.raises(InputError, match="bare_texts is -1"):
        with_more_questions(texts(), vectors, bare_texts=-1)


def test_data_that_have_them_already_are_refused_but_for_another_seed(vectors: Path) -> None:
    once, _ = with_more_questions(texts(), vectors, seed=3)
    with pytest.raises(DataError, match=r"-3-q\d+ is in the data already, written with seed 3: .* another seed"):
        with_more_questions(once, vectors, seed=3)
    twice, _ = with_more_questions(once, vectors, seed=4)
    ids = [one.id for _, _, one in twice.items()]
    assert len(ids) == len(set(ids)) > 4 * 40


def test_the_command_writes_data_that_can_be_read(vectors: Path, tmp_path: Path) -> None:
    source, more = tmp_path / "texts.json", tmp_path / "more.json"
    write_squad(source, texts())
    command = ("questions", "--squad", source, "--vectors", vectors, "-o", more)
    report = json.loads(ran(*command, "--json"))
    assert report["questions"] == 40 + sum(report["written"].values()) == sum(1 for _ in read_squad(more).items())
    assert read_squad(more).answered == 40
    again = run(*command)
    assert again.exit_code == 2 and "exists already" in again.stderr
    assert "sentences with a gap" in ran(*command, "--force")
    write_json(tmp_path / "other.json", [])
    for change, said in (
        (("--squad", tmp_path / "none.json"), "none.json"),
        (("--vectors", tmp_path / "none.txt"), "does not exist"),
        (("--squad", tmp_path / "other.json"), "expected"),
        (("--bare-texts", "-1"), "bare_texts is -1"),
    ):
        before = more.read_bytes()
        result = run(*command, "--force", *change)
        assert result.exit_code in (1, 2) and said in result.stderr and len(result.stderr.strip().splitlines()) <= 4
        assert more.read_bytes() == before
