"""What the command line is tested with, made once a session: parts of the embedded example, a tiny teacher, a run of it
and its bundle."""

from __future__ import annotations

import functools
import json
import signal
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result
from tiny_models import all_texts, write_tiny_teacher

from qa_edge.cli import main
from qa_edge.squad import read_squad

EXAMPLE = Path(__file__).parents[2] / "qa_edge" / "example"
SIZES = (
    *("--hidden", "16", "--model-blocks", "1", "--encoder-convolutions", "1", "--model-convolutions", "1"),
    *("--character-dim", "8"),
)
TRAINING = ("--epochs", "2", "--batch-size", "8", "--evaluate-every", "4", "--log-every", "2", "--save-every", "2")


def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    """A command, in this process; nothing but SystemExit may come out of it."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ran(*arguments: str | Path, stdin: str | bytes | None = None) -> str:
    """Standard output of a command that must succeed."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def write_example_squad(
    path: Path, *, articles: int = 3, paragraphs: int = 2, source: str = "train.json", answered: bool = True
) -> Path:
    """The first paragraphs of the first articles of the embedded example, without their answers on request."""
    data = json.loads((EXAMPLE / source).read_text(encoding="utf-8"))
    data["data"] = [{**one, "paragraphs": one["paragraphs"][:paragraphs]} for one in data["data"][:articles]]
    for question in [q for article in data["data"] for p in article["paragraphs"] for q in p["qas"]]:
        if not answered:
            question["answers"] = []
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_example_teacher(folder: Path, *, head: bool = True) -> Path:
    """A random BERT whose word pieces are those of the embedded example; an encoder alone on request."""
    return write_tiny_teacher(folder, all_texts(read_squad(EXAMPLE / "train.json")), limit=512, head=head)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Folders and files that tests only read."""

    train: Path
    dev: Path
    teacher: Path
    run: Path
    bundle: Path
    shown: str
    """What distill printed."""


def hear_ctrl_c() -> None:
    """For a child process: tests that a shell started in the background ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@functools.cache
def workshop(base: Path) -> Workshop:
    """Distil and export by the command line.

    :param base: the session's own temporary folder.
    """
    folder = base / "workshop"
    folder.mkdir()
    train = write_example_squad(folder / "train.json")
    dev = write_example_squad(folder / "dev.json", source="dev.json", articles=1)
    teacher = write_example_teacher(folder / "teacher")
    made = folder / "run"
    inputs = ("--squad", train, "--dev", dev, "--vectors", "none", "--teacher", teacher)
    shown = ran("distill", *inputs, "-o", made, *SIZES, *TRAINING)
    bundle = folder / "first.qab"
    # In full precision and with a row for every word, so that its answers are those of the run.
    exact = ("--fp32", "--table", "float32", "--text", made.parent / "dev.json")
    ran("export", made, "--onnx", "-o", bundle, *exact, "--licence", "data=Apache-2.0")
    return Workshop(train=train, dev=dev, teacher=teacher, run=made, bundle=bundle, shown=shown)
