"""The check on emulated ARM: what it refuses and how it compares. The check itself fetches 150 MB and takes minutes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.questions import SquadQuestion

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))
try:
    import ask_squad
    import compare_answers
finally:
    sys.path.remove(str(TOOLS))

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="QEMU's user emulation is Linux's")


def check(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    bash = shutil.which("bash")
    assert bash, "bash is needed"
    return subprocess.run(
        [bash, str(TOOLS / "check_arm64.sh"), *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "expected a bundle and a SQuAD file, found 0 names"),
        (("a.qab",), "found 1 names"),
        (("a.qab", "b.json", "c"), "found 3 names"),
        (("a.qab", "b.json", "--threads", "2"), "--threads is not an option"),
        (("a.qab", "b.json", "--questions"), "--questions has no value"),
        (("a.qab", "b.json", "--questions", "0"), "--questions is '0'"),
        (("a.qab", "b.json", "--questions", "two"), "--questions is 'two'"),
        (("a.qab", "b.json", "--tolerance", "-1"), "--tolerance is '-1'"),
        (("a.qab", "b.json", "--cpu", "a72;ls"), "--cpu is 'a72;ls'"),
        (("a.qab", "b.json", "--work", ""), "--work is empty"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(arguments: tuple[str, ...], told: str) -> None:
    done = check(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_says_how_it_is_used() -> None:
    done = check("--help")
    assert done.returncode == 0
    assert "tools/check_arm64.sh BUNDLE SQUAD.json" in done.stdout
    assert "set -" not in done.stdout


@needs_linux
def test_what_is_missing_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    work = tmp_path / "work"
    bundle, squad = tmp_path / "a.qab", tmp_path / "a.json"
    asked = (str(bundle), str(squad), "--work", str(work))
    assert f"bundle {bundle} is not there" in check(*asked).stderr
    bundle.mkdir()
    assert f"SQuAD file {squad} is not there" in check(*asked).stderr
    squad.write_text("{}")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("dirname", "uname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    done = check(*asked, path=str(programs))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "apt-get is not installed" in done.stderr
    (programs / "uname").unlink()
    (programs / "uname").write_text("#!/bin/sh\necho Darwin\n".replace("/bin/sh", shutil.which("sh") or "/bin/sh"))
    (programs / "uname").chmod(0o755)
    assert "this is Darwin" in check(*asked, path=str(programs)).stderr
    assert not work.exists()


def question(number: int, *answers: str) -> SquadQuestion:
    return SquadQuestion(f"q{number}", "Which?", "red or blue", list(answers))


def given(text: str, *best: tuple[int, int, float]) -> dict[str, Any]:
    return {"text": text, "best": [list(span) for span in best]}


def test_questions_are_spread_over_the_file() -> None:
    questions = [question(number) for number in range(10)]
    assert [item.id for item in ask_squad.spread(questions, 4)] == ["q0", "q2", "q5", "q7"]
    assert ask_squad.spread(questions, 10) == ask_squad.spread(questions, 99) == questions


def test_a_cut_line_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [{"engine": "onnxruntime"}, {"id": "q0", **given("red", (0, 3, 1.0))}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "q1", "te')
    header, answers = ask_squad.read_answers(path)
    assert header == lines[0]
    assert list(answers) == ["q0"]


def test_two_sides_are_compared_span_by_span() -> None:
    questions = [question(0, "red"), question(1, "blue")]
    here = {"q0": given("red", (0, 3, 2.0), (7, 11, 1.0)), "q1": given("blue", (7, 11, 5.0))}
    there = {"q0": given("blue", (7, 11, 1.75), (0, 3, 1.5)), "q1": given("blue", (7, 11, 5.25))}
    agreement = compare_answers.compare(questions, here, there)
    assert (agreement.same, agreement.total) == (1, 2)
    assert (agreement.median, agreement.largest) == (0.5, 0.75)
    assert (agreement.here.f1, agreement.there.f1) == (100.0, 50.0)
    with pytest.raises(DataError, match="q1 has no answer"):
        compare_answers.compare(questions, here, {"q0": there["q0"]})


@pytest.mark.parametrize(
    ("tolerance", "code", "well"), [(50.0, 0, True), (49.9, 0, False), (50.0, 1, False)], ids=["ok", "F1", "cases"]
)
def test_f1_apart_or_a_case_that_fails_is_not_well(tmp_path: Path, tolerance: float, code: int, well: bool) -> None:
    questions = [question(0, "red"), question(1, "blue")]
    for side, machine, text in (("here", "x86_64", "red"), ("there", "aarch64", "blue")):
        header = {"engine": "x", "engine_version": "1", "machine": machine, "python": "3.11.2", "numpy": "2.4.6"}
        answers = [{"id": "q0", **given(text, (0, 3, 1.0))}, {"id": "q1", **given("blue", (7, 11, 1.0))}]
        lines = [json.dumps(line) + "\n" for line in (header, *answers)]
        (tmp_path / f"{side}-onnx-int8.jsonl").write_text("".join(lines))
        (tmp_path / f"{side}-onnx-int8.verify.code").write_text(f"{code if side == 'there' else 0}\n")
    text, found = compare_answers.report(questions, tmp_path, ["onnx-int8"], tolerance)
    assert found is well
    assert ("NOT OK" in text) is not well
    assert f"of each other: {int(well)} of 1 are." in text
    assert "aarch64, Python 3.11.2" in text
    with pytest.raises(DataError, match="here-tflite-int8"):
        compare_answers.report(questions, tmp_path, ["tflite-int8"], tolerance)
