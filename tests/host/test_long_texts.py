from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny_squad

from qa_edge.squad import read_squad

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import long_texts


def test_texts_are_as_long_and_the_questions_others() -> None:
    words = {f"q{number}": 50 + number for number in range(400)}
    first, chosen = ["q0", "q399"], [f"q{number}" for number in range(300, 380)]
    taken = long_texts.alike(words, first, chosen, seed=1)
    assert len(set(taken)) == len(chosen) and not set(taken) & set(first)
    assert set(taken) != set(chosen)
    pairs = zip(sorted(words[one] for one in taken), sorted(words[one] for one in chosen), strict=True)
    assert all(abs(drawn - wanted) <= 0.1 * wanted for drawn, wanted in pairs)
    assert taken == long_texts.alike(words, first, chosen, seed=1) != long_texts.alike(words, first, chosen, seed=2)


def test_the_tool_reads_a_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_tiny_squad(tmp_path / "pool.json")
    ids = [question.id for _, _, question in read_squad(pool).items()]
    for number, part in enumerate((ids[:3], ids[3:9])):
        folder = tmp_path / "loop" / f"cycle-{number:03d}"
        folder.mkdir(parents=True)
        (folder / "chosen.json").write_text(json.dumps({"strategy": "least-confidence", "ids": part}))
    asked = [str(pool), "--loop", str(tmp_path / "loop"), "-o", str(tmp_path / "control.json")]
    assert long_texts.main(asked) == 0
    found = [question.id for _, _, question in read_squad(tmp_path / "control.json").items()]
    assert len(found) == 9 and set(ids[:3]) <= set(found)
    assert "6 questions" in capsys.readouterr().out

    other = write_tiny_squad(tmp_path / "other.json", articles=1, contexts=1)
    assert long_texts.main([str(other), *asked[1:]]) == 1
    assert "give the file that the loop was made from" in capsys.readouterr().err
    assert long_texts.main([*asked[:2], str(tmp_path / "none"), *asked[3:]]) == 1
    capsys.readouterr()
    (tmp_path / "loop" / "cycle-001" / "chosen.json").write_text("{}")
    assert long_texts.main(asked) == 1
    assert "chosen.json is damaged" in capsys.readouterr().err
