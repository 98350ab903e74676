"""What every command owes to the person or program that calls it: exit codes, one sentence, results on stdout."""

from __future__ import annotations

import doctest
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from tiny_teacher import SIZES, Workshop, hear_ctrl_c, ran, run, write_example_squad

import qa_edge
from qa_edge.cli import main, options
from qa_edge.labels import LabelSettings
from qa_edge.prepare import PrepareSettings
from qa_edge.student.config import StudentConfig
from qa_edge.teach_settings import TeachSettings
from qa_edge.train_settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CONTEXT = "The [red] main switch is behind\r\nthe grey panel."
HEAVY = ("torch", "transformers", "spacy", "safetensors", "accelerate", "onnx", "scipy")


@pytest.fixture
def files(tmp_path: Path, shop: Workshop) -> dict[str, Path]:
    """Files and folders that are wrong in one way each, and some that are right."""
    texts = {
        "empty.json": "",
        "broken.json": '{"data": [',
        "list.json": "[]",
        "blank.json": '{"data": [{"title": "T", "paragraphs": [{"context": " \\n", "qas": []}]}]}',
        "wide.txt": "the 1 2 3\nof 1 2\n",
        "predictions.json": '{"q": 5}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name in ("newer.qab", "cut.qab", "changed.qab", "poor.qab"):
        shutil.copytree(shop.bundle, tmp_path / name)
    manifest = json.loads((tmp_path / "newer.qab" / "manifest.json").read_text())
    (tmp_path / "newer.qab" / "manifest.json").write_text(json.dumps({**manifest, "format_version": 3}))
    graph = (tmp_path / "cut.qab" / "token.onnx").read_bytes()
    (tmp_path / "cut.qab" / "token.onnx").write_bytes(graph[:-1])
    (tmp_path / "changed.qab" / "token.onnx").write_bytes(graph[:-1] + b"x")
    (tmp_path / "poor.qab" / "token.onnx").unlink()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("")
    names = [*texts, "newer.qab", "cut.qab", "changed.qab", "poor.qab", "taken", "missing", "out"]
    made = {name: tmp_path / name for name in names}
    return {
        **made,
        "TRAIN": shop.train,
        "DEV": shop.dev,
        "RUN": shop.run,
        "BUNDLE": shop.bundle,
        "TEACHER": shop.teacher,
    }


DISTILL = "distill --squad TRAIN --vectors none --teacher none -o out"
WRONG = [
    (1, "check missing", "does not exist; check the path"),
    (1, "check empty.json", "is empty; expected JSON"),
    (1, "check broken.json", "is not JSON"),
    (1, "check list.json", "is a list; expected a JSON object"),
    (1, "check blank.json", '"context" is blank'),
    (1, "prepare --squad empty.json --vectors none -o out", "is empty"),
    (1, "prepare --squad TRAIN --vectors wide.txt -o out", "line 2 is broken"),
    (1, "prepare --squad TRAIN --vectors missing -o out", "does not exist"),
    (1, "prepare --squad TRAIN --vectors none -o taken", "exists already"),
    (1, "prepare --squad TRAIN --init TEACHER -o out", "has format None, expected 1"),
    (2, "prepare --squad TRAIN -o out", "Missing option '--vectors'"),
    (2, "prepare --squad TRAIN --vectors none -o out --heldout 1.5", "heldout is 1.5"),
    (1, "label --squad blank.json --teacher TEACHER -o out", '"context" is blank'),
    (1, "label --squad DEV --teacher missing -o out", "could not be loaded"),
    (1, "label --squad DEV --teacher TEACHER -o taken", "holds letter.txt but no manifest.json"),
    (1, "label --squad DEV --teacher TEACHER -o out --device meta", "device 'meta' cannot be used"),
    (1, "label --squad DEV --teacher TEACHER -o out --device hpu", "device 'hpu' cannot be used"),
    (1, "label --squad DEV --teacher TEACHER -o out --device nonsense", "device 'nonsense' cannot be used"),
    (2, "label --squad DEV --teacher TEACHER -o out --process 2 --processes 2", "is not one of 2"),
    (2, "distill --squad TRAIN --vectors none --teacher none", "Missing option '-o'"),
    (2, "distill --squad TRAIN --teacher none -o out", "Missing option '--vectors'"),
    (2, "distill --squad TRAIN --vectors none -o out", "no teacher: give its name"),
    (
        2,
        "distill --vectors none --teacher TEACHER -o out",
        "a SQuAD file is needed without features and without labels",
    ),
    (2, f"{DISTILL} --labels RUN/labels", "exclude each other"),
    (2, f"{DISTILL} --rho 0.5", "rho and mse_weight must be 0"),
    (2, f"{DISTILL} --hidden 15", "hidden is 15"),
    (2, f"{DISTILL} --epochs 0", "epochs is 0"),
    (2, f"{DISTILL} --rate fast", "'fast' is not a valid float"),
    (2, f"{DISTILL} --weight-decay nan", "nan is not a finite number"),
    (2, "prepare --squad TRAIN --vectors none -o out --heldout inf", "inf is not a finite number"),
    (2, f"{DISTILL} --preset giant", "'giant' is not one of"),
    (2, f"{DISTILL} --init RUN --hidden 32", "leave out hidden"),
    (2, f"{DISTILL} --resume RUN", "leave out --squad, --vectors, --teacher, --output"),
    (2, "distill --features RUN/features --teacher none -o out --heldout 0.1", "leave out --heldout"),
    (1, f"{DISTILL} --dev missing", "does not exist"),
    (1, "distill --squad TRAIN --vectors none --teacher none -o taken", "holds letter.txt but no recipe.json"),
    (1, "distill --squad TRAIN --vectors none --teacher none -o list.json", "is a file"),
    (1, "distill --resume missing", "has no recipe.json"),
    (1, "distill --features taken --teacher none -o out", "does not exist"),
    (1, "teach --encoder missing --squad TRAIN -o out", "could not be loaded"),
    (2, "teach --encoder missing --squad TRAIN -o out --epochs 0", "epochs is 0"),
    (1, "export missing -o out", "holds no checkpoint"),
    (1, "export TEACHER -o out", "has format None, expected 1"),
    (1, "export RUN -o BUNDLE", "pass --force to replace it"),
    (1, "export RUN -o RUN --force", "holds the run"),
    (1, "export RUN -o taken --force", "not one that qa-edge wrote"),
    (1, "prepare --squad TRAIN --vectors none -o taken --force", "not one that qa-edge wrote"),
    (1, "export RUN -o out --questions empty.json", "is empty"),
    (2, "export RUN -o out --licence free", "is not NAME=TEXT"),
    (2, "export RUN", "Missing option '-o'"),
    (1, "info missing", "does not exist"),
    (1, "info RUN", "manifest.json is missing"),
    (1, "info newer.qab", "bundle format 3 is newer than this runtime reads (2): upgrade qa-edge-runtime"),
    (1, "info cut.qab", "token.onnx has"),
    (1, "info changed.qab", "token.onnx has changed"),
    (1, "answer poor.qab --question q --context c", "token.onnx is missing"),
    (2, "answer BUNDLE --question q", "--context or as --context-file"),
    (2, "answer BUNDLE --question q --context c --context-file c", "--context or as --context-file"),
    (2, "answer BUNDLE --context-file -", "give --question"),
    (1, "answer BUNDLE --question q --context-file missing", "does not exist"),
    (1, "answer BUNDLE --context c", "standard input holds no question"),
    (2, "answer BUNDLE --question q --context c --top-k 0", "--top-k"),
    (2, "evaluate RUN --predictions predictions.json --squad DEV", "either a run or a bundle, or --predictions"),
    (1, "evaluate --predictions predictions.json --squad DEV", "is not text"),
    (1, "evaluate --predictions missing\x1b[31m\x07 --squad DEV", r"missing\x1b[31m\x07 does not exist"),
    (1, "evaluate missing --squad DEV", "does not exist; expected a bundle"),
    (1, "evaluate taken --squad DEV", "has neither a manifest.json nor a config.json"),
    (1, "evaluate RUN/features --squad DEV", "features that prepare wrote"),
    (1, "evaluate RUN/labels --squad DEV", "labels that label wrote"),
    (1, "evaluate BUNDLE --squad broken.json", "is not JSON"),
    (1, "evaluate RUN --squad DEV -o DEV", "is what was read, which is never changed"),
    (1, "evaluate RUN --squad DEV --report DEV", "is what was read, which is never changed"),
    (1, "evaluate --predictions predictions.json --squad DEV -o predictions.json", "is what was read"),
    (1, "bench BUNDLE --squad DEV -o DEV", "is what was read, which is never changed"),
    (1, "vectors --encoder TEACHER --squad DEV -o DEV --force", "is what was read, which is never changed"),
    (1, "bench changed.qab", "token.onnx has changed"),
    (2, "bench BUNDLE --limit 0", "--limit"),
    (2, "bench BUNDLE --threads 1000", "--threads"),
    (2, "nonsense", "No such command"),
]


@pytest.mark.parametrize(("code", "line", "sentence"), WRONG, ids=[line for _, line, _ in WRONG])
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    code: int, line: str, sentence: str, files: dict[str, Path]
) -> None:
    arguments = []
    for word in line.split():
        name, slash, rest = word.partition("/")
        arguments.append(f"{files[name]}{slash}{rest}" if name in files else word)
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""
    if code == 1:
        assert result.stderr.splitlines()[-1].startswith("qa-edge: error: ")
    assert not files["out"].exists() or not list(files["out"].rglob("*.safetensors"))


def test_blank_text_is_refused(shop: Workshop) -> None:
    for question, context in ((" ", "c"), ("", "c"), ("q", "\t"), ("q", "")):
        result = run("answer", shop.bundle, "--question", question, "--context", context)
        assert result.exit_code == 1 and ("blank" in result.stderr or "empty" in result.stderr)


def test_an_answer_stands_where_it_says(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "context.txt").write_bytes(CONTEXT.encode())
    question = ("--question", "Where is the main switch?")
    answer = json.loads(ran("answer", shop.bundle, *question, "--context-file", tmp_path / "context.txt", "--json"))
    assert CONTEXT[answer["start"] : answer["end"]] == answer["text"] and 0 < answer["span_probability"] <= 1
    assert json.loads(ran("answer", shop.bundle, *question, "--context", CONTEXT, "--json")) == answer
    piped = ran("answer", shop.bundle, *question, "--context-file", "-", "--json", stdin=CONTEXT.encode())
    assert json.loads(piped) == answer
    line = ran("answer", shop.bundle, *question, "--context", CONTEXT)
    assert line.split("\t")[:2] == [" ".join(answer["text"].split()), f"{answer['start']}-{answer['end']}"]


def test_questions_come_from_standard_input_one_a_line(shop: Workshop) -> None:
    asked = "Where is the main switch?\r\n\n  What colour is the panel?  "
    lines = ran("answer", shop.bundle, "--context", CONTEXT, "--json", stdin=asked).splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["question"] for one in found] == ["Where is the main switch?", "What colour is the panel?"]
    assert len(ran("answer", shop.bundle, "--context", CONTEXT, stdin=asked).splitlines()) == 2
    result = run("answer", shop.bundle, "--context", CONTEXT, stdin=b"Where?\n\xff\n")
    assert result.exit_code == 1 and "not UTF-8 in line 2" in result.stderr


def test_several_answers_best_first(shop: Workshop) -> None:
    ask = ("answer", shop.bundle, "--question", "Where?", "--context", CONTEXT, "--top-k", "3")
    answers = json.loads(ran(*ask, "--json"))["answers"]
    likely = [answer["span_probability"] for answer in answers]
    assert len(answers) == 3 and likely == sorted(likely, reverse=True)
    # What looks like rich's markup is text.
    everything = ran(*ask[:-1], "400")
    assert "[red]" in everything and "probability" in everything


def test_predictions_are_scored_officially(tmp_path: Path, shop: Workshop) -> None:
    squad = {"data": [{"title": "T", "paragraphs": [{"context": "The red fox, a dog.", "qas": []}]}]}
    answers = [("a", "The red fox"), ("b", "a dog"), ("c", "red"), ("d", "fox")]
    for identifier, text in answers:
        start = "The red fox, a dog.".index(text)
        question = {"id": identifier, "question": "Who?", "answers": [{"text": text, "answer_start": start}]}
        squad["data"][0]["paragraphs"][0]["qas"].append(question)  # type: ignore[index]
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    # Equal once normalised, half of the words right (F1 2/3), wrong, missing; and one that nobody asked for.
    (tmp_path / "answers.json").write_text(json.dumps({"a": "red fox!", "b": "dog cat", "c": "green", "z": "red"}))
    result = run("evaluate", "--predictions", tmp_path / "answers.json", "--squad", tmp_path / "squad.json", "--json")
    assert json.loads(result.stdout) == {"exact_match": 25.0, "f1": pytest.approx((1 + 2 / 3) * 25), "total": 4}
    assert "1 of 4 questions have no answer" in result.stderr and "1 answers are to questions" in result.stderr


def test_check_counts_and_quotes(tmp_path: Path) -> None:
    path = write_example_squad(tmp_path / "squad.json", articles=1, paragraphs=1)
    data = json.loads(path.read_text())
    data["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    path.write_text(json.dumps(data))
    report = json.loads(ran("check", path, "--json"))
    assert report["misplaced"] == 1 and len(report["examples"]) == 1
    assert report["examples"][0]["question_id"] in ran("check", path)


def test_every_setting_is_an_option_with_its_default() -> None:
    tables = (
        (TrainSettings, options.TRAIN, {"max_steps"}),
        (TeachSettings, options.TEACH, set()),
        (LabelSettings, options.LABEL, set()),
        (PrepareSettings, options.PREPARE, {"seed", "characters_per_word"}),
    )
    for settings, table, elsewhere in tables:
        defaults = {field.name: field.default for field in fields(settings) if field.name not in elsewhere}
        assert defaults == {name: default for name, (_, default, _) in table.items()}
    sizes = {parameter.name for parameter in main.commands["distill"].params}
    follow = {"word_dim", "characters", "characters_per_word", "passes"}
    assert {field.name for field in fields(StudentConfig)} - follow <= sizes
    assert all(field.default is not MISSING for field in fields(StudentConfig))


def test_every_command_has_help() -> None:
    host = {"check", "prepare", "label", "teach", "distill", "evaluate", "compare", "export", "sensitivity"}
    names = host | {"vectors", "info", "pack", "verify", "answer", "bench", "select", "labels", "active"}
    names |= {"experiment", "report"}
    assert set(main.commands) == names
    for name in names:
        shown = ran(name, "--help")
        assert main.commands[name].short_help and "Usage: qa-edge" in shown
        undocumented = [
            p.name for p in main.commands[name].params if p.opts[0][0] == "-" and not getattr(p, "help", "")
        ]
        assert not undocumented
    assert ran("--version").startswith("qa-edge ")
    result = run()
    assert result.exit_code == 2 and "Commands:" in result.stderr


def test_the_example_of_the_package_runs() -> None:
    assert doctest.testmod(qa_edge) == (0, 5)


def test_at_most_eight_names_are_exported_and_they_load() -> None:
    assert len(qa_edge.__all__) <= 8
    assert all(getattr(qa_edge, name).__doc__ for name in qa_edge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qa_edge.nothing  # type: ignore[attr-defined]


def test_ctrl_c_is_a_sentence(monkeypatch: pytest.MonkeyPatch, shop: Workshop, tmp_path: Path) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qa_edge.prepare.prepare", interrupt)
    result = run("prepare", "--squad", shop.train, "--vectors", "none", "-o", tmp_path / "out")
    assert result.exit_code == 130 and result.stderr.endswith("interrupted; run the same command to go on\n")
    monkeypatch.setattr("qa_edge_runtime.bundle.Bundle.open", interrupt)
    result = run("info", shop.bundle)
    assert result.exit_code == 130 and result.stderr.endswith("interrupted\n")


STOP = """
import os, signal

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop())
"""


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("qa_edge.interrupt", "--help"),
        ("qa_edge.cli.prepare", "--help"),
        ("click", "info"),
        ("numpy._core.multiarray", "answer"),
        ("onnxruntime.capi", "answer"),
        ("onnxruntime.capi.onnxruntime_pybind11_state", "answer"),
        ("torch._C", "evaluate"),
    ],
)
def test_ctrl_c_during_any_import_is_a_sentence(name: str, command: str, shop: Workshop) -> None:
    arguments = {
        "--help": (),
        "info": (shop.bundle,),
        "answer": (shop.bundle, "--question", "Where?", "--context", CONTEXT),
        "evaluate": (shop.run, "--squad", shop.dev),
    }[command]
    done = subprocess_run(command, *arguments, code=STOP.format(name=name), capture_output=True, preexec_fn=hear_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")


def test_the_installed_program_is_the_one_that_notices_ctrl_c() -> None:
    scripts = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '\nqa-edge = "qa_edge.__main__:main"\n' in scripts


def subprocess_run(*arguments: str | Path, code: str = "", **keywords: Any) -> subprocess.CompletedProcess[str]:
    source = f"import sys\n{code}\nfrom qa_edge.__main__ import main\nmain()"
    command = [sys.executable, "-c", source, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, text=True, env=environment, timeout=120, check=False, **keywords)


def test_a_bundle_is_evaluated_without_what_training_needs(shop: Workshop) -> None:
    code = f"""
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("blocked by the test", name=name)
sys.meta_path.insert(0, Blocked())
"""
    done = subprocess_run("evaluate", shop.bundle, "--squad", shop.dev, "--json", code=code, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"] == 12
    done = subprocess_run("evaluate", shop.run, "--squad", shop.dev, code=code, capture_output=True)
    assert done.returncode == 1 and 'pip install "qa-edge[train]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error(shop: Workshop) -> None:
    # A pipe whose other end is closed: the first write fails.
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess_run("info", shop.bundle, "--json", stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_a_closed_standard_input_is_an_empty_one(shop: Workshop) -> None:
    line = (sys.executable, "-m", "qa_edge", "answer", str(shop.bundle), "--context", "The dog won.")
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *line], capture_output=True, text=True)
    assert done.returncode == 1 and "standard input holds no question" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_sentence(shop: Workshop, tmp_path: Path) -> None:
    def limit() -> None:
        # Longer files fail, as on a full disk; Python ignores the signal that comes with it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    arguments: list[tuple[str | Path, ...]] = [
        ("prepare", "--squad", shop.train, "--vectors", "none", "-o", tmp_path / "features"),
        ("evaluate", shop.bundle, "--squad", write_example_squad(tmp_path / "all.json"), "-o", tmp_path / "answers"),
    ]
    for line in arguments:
        done = subprocess_run(*line, capture_output=True, preexec_fn=limit)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert "File too large" in done.stderr.splitlines()[-1] and "space" in done.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"all.json"}


def test_a_student_beyond_the_memory_is_one_sentence(shop: Workshop, tmp_path: Path) -> None:
    data = ("--features", shop.run / "features", "--teacher", "none", "-o", tmp_path / "run")
    result = run("distill", *data, "--hidden", "1000000")
    assert result.exit_code == 1 and "out of memory; choose smaller sizes" in result.stderr.splitlines()[-1]


def test_a_development_set_without_answers_is_refused_before_the_work(shop: Workshop, tmp_path: Path) -> None:
    bare = write_example_squad(tmp_path / "bare.json", answered=False)
    data = ("--squad", shop.train, "--vectors", "none", "--teacher", "none", "-o", tmp_path / "run")
    result = run("distill", *data, "--dev", bare)
    assert result.exit_code == 1 and "has no question with an answer to score on" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_new_run_says_how_to_go_on(shop: Workshop, tmp_path: Path) -> None:
    steps = ("--features", shop.run / "features", "--labels", shop.run / "labels")
    shown = ran("distill", *steps, "-o", tmp_path / "run", *SIZES, "--max-steps", "1")
    assert f"qa-edge distill --resume {tmp_path / 'run'}" in " ".join(shown.split())
    result = run("evaluate", tmp_path / "run", "--squad", shop.dev)
    assert result.exit_code == 1 and "has no checkpoint yet" in result.stderr
