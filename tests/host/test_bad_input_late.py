"""What used to be found after the work, or not at all: unlabelled files, long questions, odd bytes, odd outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_models import write_json
from tiny_teacher import Workshop, ran, run

CONTEXT = "The main switch is behind the grey panel."


def test_a_file_without_answers_is_refused_before_the_model_reads(shop: Workshop, tmp_path: Path) -> None:
    pool = tmp_path / "pool.json"
    ran("labels", "part", shop.dev, "--questions", 3, "--without-answers", "-o", pool)
    for more in ((), ("--noise", "typos")):
        refused = run("evaluate", shop.bundle, "--squad", pool, *more)
        assert refused.exit_code == 1 and f"{pool} has no question with an answer to score against" in refused.stderr


def test_a_question_that_is_too_long_is_named(shop: Workshop, tmp_path: Path) -> None:
    data = json.loads(shop.dev.read_text(encoding="utf-8"))
    question = data["data"][0]["paragraphs"][0]["qas"][0]
    question["question"] = "why " * 500
    refused = run("evaluate", shop.bundle, "--squad", write_json(tmp_path / "dev.json", data))
    assert refused.exit_code == 1 and f"question {question['id']}: the question has 500 tokens" in refused.stderr
    lines = f"What?\n{'why ' * 500}\nWho?\n"
    refused = run("answer", shop.bundle, "--context", CONTEXT, stdin=lines)
    assert refused.exit_code == 1 and "standard input, line 2: the question has 500 tokens" in refused.stderr
    assert len(refused.stdout.splitlines()) == 1  # of the first


def test_a_part_goes_down_a_pipe(shop: Workshop) -> None:
    command = [sys.executable, "-m", "qa_edge", "labels", "part", str(shop.dev), "--questions", "2", "--force"]
    done = subprocess.run([*command, "-o", "/dev/stdout"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and '"version"' in done.stdout


def test_outputs_that_cannot_be_are_refused_first(shop: Workshop, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "x.json"
    for line in (
        ("labels", "part", shop.dev, "--questions", 2),
        ("labels", "import", shop.dev, "--source", shop.dev),
        ("select", "--pool", shop.dev, "--skip-labelled", "--strategy", "random", "--count", 1),
    ):
        refused = run(*map(str, line), "-o", nowhere)
        assert refused.exit_code in (1, 2)
        if line[0] != "select":  # whose pool has nothing left
            assert "is not a folder; make it, or name another path" in refused.stderr, refused.stderr
    both = run("evaluate", shop.bundle, "--squad", shop.dev, "-o", tmp_path / "a.md", "--report", tmp_path / "a.md")
    assert both.exit_code == 2 and "-o and --report are the same file" in both.stderr


def test_text_of_utf_16_and_arguments_of_other_bytes_are_refused(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(CONTEXT.encode("utf-16-le"))
    asked = ("answer", shop.bundle, "--question", "Where?")
    refused = run(*asked, "--context-file", tmp_path / "text.txt")
    assert refused.exit_code == 1 and "is not UTF-8: a NUL character, as UTF-16" in refused.stderr
    refused = run(*asked, "--context", "caf\udce9")
    assert refused.exit_code == 2 and "--context is not UTF-8 as this terminal gives it" in refused.stderr
    assert run(*asked, "--context", CONTEXT, "--min-probability", "nan").exit_code == 2
    for more, said in (
        (["--context-file", str(tmp_path / "text.txt")], "a NUL character"),
        (["--context", b"caf\xe9"], "--context is not UTF-8"),
    ):
        command = [sys.executable, "-m", "qa_edge_runtime", "answer", str(shop.bundle), "--question", "Where?", *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_scores_are_printed_though_their_file_cannot_be_written(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"q": "\\ud800"}', encoding="utf-8")
    out = tmp_path / "out.json"
    done = run("evaluate", "--predictions", tmp_path / "half.json", "--squad", shop.dev, "-o", out)
    assert done.exit_code == 1 and "half of a surrogate pair" in done.stderr and not out.exists()
    assert "exact match  0.000" in done.stdout
