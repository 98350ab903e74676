"""The bundle that is meant where none is named, and the pages that tell of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "runtime"))
pytest.importorskip("onnx")

import card_examples
import page_of_answers
from tiny_bundle import CONTEXT, QUESTION, write_tiny_bundle

from qa_edge.cli import main as host
from qa_edge_runtime import Answerer
from qa_edge_runtime.cli import main as device
from qa_edge_runtime.default_bundle import bundle_or_default
from qa_edge_runtime.errors import BundleError, DataError, MissingExtraError
from qa_edge_runtime.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models" / "qa_edge_models" / "edge.qab"
CARD = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
ASKED = ("--question", QUESTION, "--context", CONTEXT)
# Each command of both command lines, without a bundle.
DEVICE = [("answer", *ASKED), ("info",), ("verify",), ("bench", "--paced", "0", "--cold-starts", "0")]
HOST = [*DEVICE, ("evaluate", "--squad", "SQUAD"), ("pack", "-o", "PACKED")]


def run_device(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = device(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def run_host(arguments: list[str], _: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    result = CliRunner().invoke(host, arguments)
    return result.exit_code, result.stdout, result.stderr


COMMANDS = [
    *(pytest.param(run_device, line, id=f"device {line[0]}") for line in DEVICE),
    *(pytest.param(run_host, line, id=f"host {line[0]}") for line in HOST),
]
Run = Callable[[list[str], pytest.CaptureFixture[str]], tuple[int, str, str]]


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    answer = {"text": "behind the grey panel", "answer_start": CONTEXT.index("behind")}
    questions = [{"id": f"q{number}", "question": QUESTION, "answers": [answer]} for number in range(4)]
    article = {"title": "Main_*switch*", "paragraphs": [{"context": CONTEXT, "qas": questions}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "1.1", "data": [article]}))
    return path


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """qa-edge-models as it would be with a tiny bundle: the package of the sources beside it."""
    package = tmp_path / "site" / "qa_edge_models"
    package.mkdir(parents=True)
    source = ROOT / "models" / "qa_edge_models" / "__init__.py"
    (package / "__init__.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    write_tiny_bundle(package / "edge.qab")
    monkeypatch.delitem(sys.modules, "qa_edge_models", raising=False)
    monkeypatch.syspath_prepend(package.parent)
    yield package / "edge.qab"
    sys.modules.pop("qa_edge_models", None)


def test_load_without_a_path_takes_the_bundle_of_the_models(tiny: Path) -> None:
    with Answerer.load() as unnamed, Answerer.load(tiny) as named:
        assert unnamed.bundle.path == named.bundle.path == tiny
        assert unnamed.answer(QUESTION, CONTEXT) == named.answer(QUESTION, CONTEXT)
    (tiny / "table.npy").write_bytes((tiny / "table.npy").read_bytes()[:-1] + b"~")
    with pytest.raises(BundleError, match=r"edge\.qab: table\.npy has changed"):
        Answerer.load()
    tiny.rename(tiny.with_name("lost"))
    with pytest.raises(BundleError, match=r"installed without its bundle .*: install it again"):
        Answerer.load()


@pytest.mark.parametrize(("run", "line"), COMMANDS)
def test_each_command_without_a_bundle_does_what_it_does_with_that_one(
    run: Run, line: tuple[str, ...], tiny: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed.qab.zip"
    words = [str({"SQUAD": squad, "PACKED": packed}.get(word, word)) for word in line]
    exact = () if line[0] in ("verify", "bench", "pack") else (words[0], str(tiny), *words[1:])
    if line[0] == "bench":
        words += ["--repeat", "50"]
    code, said, error = run(words, capsys)
    if line[0] == "verify":  # a tiny bundle has no case that says how the student answered
        assert (code, str(tiny) in error) == (1, True), error
        return
    assert code == 0, error
    if line[0] == "pack":
        assert packed.is_file()
    elif exact:
        assert said == run(list(exact), capsys)[1] != ""
    else:
        assert "total" in said


@pytest.mark.parametrize(("run", "line"), COMMANDS)
def test_without_the_models_one_sentence_says_what_to_do(
    run: Run,
    line: tuple[str, ...],
    squad: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "qa_edge_models", None)  # type: ignore[arg-type]
    words = [str({"SQUAD": squad, "PACKED": tmp_path / "packed.qab.zip"}.get(word, word)) for word in line]
    if run is run_device:
        code, said, error = run(words, capsys)
        assert (code, said, error.count("\n")) == (1, "", 1)
        assert "name a bundle, or pip install qa-edge-models" in error
    else:
        result = CliRunner().invoke(host, words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.strip().endswith("name a bundle, or pip install qa-edge-models")
    assert list(tmp_path.iterdir()) == [squad]


def test_what_a_removal_left_is_no_package_and_an_empty_name_no_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "qa_edge_models" / "edge.qab").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "qa_edge_models", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(MissingExtraError, match="not installed: name a bundle"):
        bundle_or_default(None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError):
        Answerer.load("")


def test_a_named_bundle_leaves_the_models_alone(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny.qab")
    code = f"""
import sys
from qa_edge_runtime import Answerer
Answerer.load({str(tmp_path / "tiny.qab")!r}).close()
print("qa_edge_models" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_the_bundle_that_ships_is_whole_small_and_answers() -> None:
    with Answerer.load(SHIPPED) as answerer:
        bundle = answerer.bundle
        assert {(graph.engine, graph.precision) for graph in bundle.manifest.graphs if graph.role == "core"} == {
            ("onnx", "int8"),
            ("tflite", "int8"),
        }
        assert (
            bundle.size_bytes <= 10_000_000
            and bundle.cases()
            and bundle.manifest.probability
            and bundle.manifest.scores
        )
        found = answerer.answer("Which colour has the main switch?", "The main switch is red. The lamp is green.")
        assert (found.text, found.start) == ("red", 19)


def shipped() -> Manifest:
    return Manifest.from_json((SHIPPED / "manifest.json").read_bytes())


def test_the_model_card_tells_of_the_bundle_that_ships() -> None:
    manifest = shipped()
    assert manifest.scores and manifest.probability
    assert f"| {manifest.scores['exact_match']:.2f} | {manifest.scores['f1']:.2f} |" in CARD
    assert f"| {manifest.probability.expected_calibration_error:.3f} |" in CARD
    assert f"| {manifest.probability.no_answer_below:.2f} |" in CARD
    assert f"| {manifest.table.rows - 1:,} |" in CARD
    assert f"bundle made {manifest.created}." in CARD, "run python tools/card_examples.py"


def test_the_page_of_answers_tells_of_the_bundle_that_ships() -> None:
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    assert f"of {shipped().created}," in text, "make docs/answers.md again, by the command that it names"
    verdicts = re.findall(r"^\| \d+ \|.*\| (right|in part|wrong) \|.*\|$", text, re.MULTILINE)
    assert len(verdicts) == 40
    counted = {verdict: verdicts.count(verdict) for verdict in page_of_answers.VERDICTS}
    assert f"**{', '.join(f'{count} {verdict}' for verdict, count in counted.items())}.**" in text
    assert "CC BY-SA 4.0" in text


def test_a_page_of_answers_is_drawn_by_number_and_shows_them_in_their_text(
    tiny: Path, squad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["page", "--squad", str(squad), "--questions", "2", "-o", str(target)])
    assert page_of_answers.main() == 0
    text = target.read_text(encoding="utf-8")
    with Answerer.load(tiny) as answerer:
        answer = answerer.answer(QUESTION, CONTEXT)
    assert text.startswith("# 2 questions, not selected\n")
    assert text.count(f"| {QUESTION} | {answer.text} |") == 2
    assert f"> {CONTEXT[: answer.start]}<b>{answer.text}</b>{CONTEXT[answer.end :]}\n" in text
    assert r"**1, 2**, Main \*switch\*:" in text
    assert "python tools/page_of_answers.py --squad dev.json --questions 2 --output page.md" in text


def test_the_examples_of_the_card_are_asked_again(tiny: Path) -> None:
    row = f"| where | {CONTEXT} | {QUESTION} | x | old | 0.11 |"
    card = "\n".join(("| " + " | ".join(card_examples.HEADINGS) + " |", "|---|---|---|---|---|---|", row, "", "They"))
    card += " are those of the bundle made 2020-01-01T00:00:00+00:00. Again.\n"
    with Answerer.load(tiny) as answerer:
        answer = answerer.answer(QUESTION, CONTEXT)
        again = card_examples.asked_again(card, answerer)
        assert f"| where | {CONTEXT} | {QUESTION} | x | {answer.text} | - |\n" in again
        assert f"bundle made {answerer.bundle.manifest.created}. Again." in again
        with pytest.raises(DataError, match="0 examples and names its bundle 1 times"):
            card_examples.asked_again(card.replace("weakness", "strength"), answerer)
