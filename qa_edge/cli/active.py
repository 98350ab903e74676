"""`qa-edge active`: the paper's Algorithm 1 on a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from qa_edge.cli.options import TEACH, TRAIN, finite, given, settings_options
from qa_edge.cli.output import is_main_process, json_option, log, print_json, print_table, wrong_usage

if TYPE_CHECKING:
    from qa_edge.active.learners import Learner

_LOOP = {name: entry for name, entry in TEACH.items() if name != "seed"}
_OF_A_STUDENT = ("labels", "init", "student")


@click.command("active", short_help="Train on ever more questions that a strategy chooses.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD JSON; answers are shown when chosen.")
@click.option("--dev", metavar="DEV.json", required=True, help="SQuAD JSON to score each cycle's model on.")
@click.option("--encoder", metavar="NAME", help="Encoder that is fine-tuned in each cycle, as qa-edge teach does it.")
@click.option("--features", metavar="FOLDER", help="Train a student, on features of DATA.json with nothing held out.")
@click.option("--labels", metavar="FOLDER", help="Logits of a teacher that was there before; or give --encoder.")
@click.option("--init", metavar="CHECKPOINT", help="Student that each cycle starts from, in place of new weights.")
@click.option(
    "--student", metavar="NAME=VALUE", multiple=True, help="Setting of the student, as distill has it; repeatable."
)
@click.option("-o", "--output", metavar="LOOP", required=True, help="Folder to write, or to go on with.")
@click.option("--strategy", default="least-confidence", show_default=True, help="See qa-edge select.")
@click.option("--first", type=float, default=0.01, show_default=True, callback=finite, help="Share of the first batch.")
@click.option("--step", type=float, default=0.1, show_default=True, callback=finite, help="Share of the others ...")
@click.option(
    "--of-remaining", is_flag=True, help="... of what is left (section 5.4) instead of the whole (Tables 4 and 5)."
)
@click.option("--budget", type=float, default=1.0, show_default=True, callback=finite, help="Share where labels end.")
@click.option("--go-on", is_flag=True, help="Train from the last cycle's model, not from the pretrained weights.")
@click.option("--sentence-encoder", metavar="NAME", help="Of the clusters: a name on the hub or a folder.")
@click.option("--device", help="Where the pool is read; the best there is if not given.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The one seed of all that is random."
)
@click.option("--max-cycles", type=click.IntRange(1), help="Stop after so many cycles, to be gone on with.")
@click.option("--chart", metavar="FILE", help="Draw the learning curve: PNG or SVG.")
@click.option("--beside", metavar="LOOP", multiple=True, help="Another loop's folder, drawn in the chart; repeatable.")
@settings_options(_LOOP)
@json_option
def command(
    squad: str,
    dev: str,
    encoder: str | None,
    features: str | None,
    labels: str | None,
    init: str | None,
    student: tuple[str, ...],
    output: str,
    strategy: str,
    first: float,
    step: float,
    of_remaining: bool,
    budget: float,
    go_on: bool,
    sentence_encoder: str | None,
    device: str | None,
    seed: int,
    max_cycles: int | None,
    chart: str | None,
    beside: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Train on 1 % of the questions at random, then on 10 %, 20 %, ... as the strategy chooses.

    With --encoder alone an encoder is fine-tuned in each cycle. With --features a student is trained: on the answers
    alone, or with --encoder after a teacher that is fine-tuned on the same questions, or with the --labels of another.
    The same command goes on with an interrupted loop.
    """
    from qa_edge.active.clusters import SentenceEncoder, require_clustering
    from qa_edge.active.cycles import LoopSettings
    from qa_edge.active.loop import run_loop
    from qa_edge.active.strategies import LeastConfidenceClusters, open_strategy, strategy_class

    with wrong_usage():
        loop = LoopSettings(
            strategy=strategy,
            first=first,
            step=step,
            step_of="remaining" if of_remaining else "whole",
            budget=budget,
            start="last" if go_on else "pretrained",
            seed=seed,
        )
        kind = strategy_class(strategy)
        learner = _learner(
            {"squad": squad, "dev": dev, "encoder": encoder, "features": features, "labels": labels, "init": init},
            student,
            given(settings),
            device,
            compared=kind.needs_teacher,
        )
        if kind.needs_teacher and not learner.has_teacher:
            raise click.UsageError(
                f"strategy {strategy} needs a student with a teacher: --features, and --encoder or --labels"
            )
    if chart is not None:
        from qa_edge.active.curve import read_loop
        from qa_edge.latency_chart import check_chart_path, load_matplotlib

        check_chart_path(chart)
        load_matplotlib()
        for other in beside:
            read_loop(other)
    if device is not None:
        from qa_edge.hub import require_device

        require_device(device)
    vectors = None
    if issubclass(kind, LeastConfidenceClusters):
        require_clustering()
        vectors = None if sentence_encoder is None else SentenceEncoder.load(sentence_encoder, device=device or "cpu")
    with wrong_usage():
        open_strategy(strategy, vectors)
    curve = run_loop(squad, learner, output, settings=loop, encoder=vectors, max_cycles=max_cycles, log=log)
    if not is_main_process():
        return
    if chart is not None:
        from qa_edge.active.curve import draw_curves

        draw_curves([output, *beside], chart)
    if as_json:
        print_json([asdict(point) for point in curve])
        return
    rows = [
        [f"{point.share:.1%}", f"{point.questions:,}", *(f"{point.scores[key]:.2f}" for key in ("exact_match", "f1"))]
        for point in curve
    ]
    print_table(("labelled", "questions", "exact match", "F1"), rows, title=f"{strategy}, {output}")


def _learner(
    paths: dict[str, str | None],
    student: Sequence[str],
    settings: dict[str, Any],
    device: str | None,
    *,
    compared: bool,
) -> Learner:
    """What the options ask to be trained."""
    from qa_edge.active.learners import TeacherLearner
    from qa_edge.teach_settings import TeachSettings

    squad, dev, encoder, features = (paths[name] for name in ("squad", "dev", "encoder", "features"))
    assert squad is not None
    assert dev is not None
    teacher = None
    if encoder is not None:
        teacher = TeacherLearner(encoder=encoder, dev=dev, settings=TeachSettings(**settings), device=device)
    elif settings:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise click.UsageError(
            f"{names}: settings of an encoder, and none is given; a student's are --student NAME=VALUE"
        )
    if features is None:
        wrong = [name for name in _OF_A_STUDENT if (student if name == "student" else paths[name])]
        if wrong:
            raise click.UsageError(f"--{wrong[0]} is of a student: give its --features too")
        if teacher is None:
            raise click.UsageError("nothing to train: give --encoder, or --features for a student")
        return teacher
    from qa_edge.active.student_learner import StudentLearner
    from qa_edge.train_settings import TrainSettings

    values = _student_settings(student)
    train = {name: value for name, value in values.items() if name in TRAIN}
    if teacher is None and paths["labels"] is None:
        train = {"rho": 0.0, "mse_weight": 0.0, **train}
    return StudentLearner(
        pool=squad,
        features=features,
        dev=dev,
        settings=TrainSettings(**train),
        sizes={name: value for name, value in values.items() if name not in TRAIN},
        labels=paths["labels"],
        teacher=teacher,
        compared=compared,
        init=paths["init"],
        device=device,
    )


def _student_settings(given_ones: Sequence[str]) -> dict[str, Any]:
    """Settings and sizes that `qa-edge distill` has as options, from NAME=VALUE."""
    from qa_edge.cli.distill import SIZES
    from qa_edge.student.config import PRESETS

    table = {**TRAIN, **SIZES, "preset": (click.Choice(sorted(PRESETS)), None, "")}
    del table["seed"]  # the loop's
    values: dict[str, Any] = {}
    for one in given_ones:
        name, sign, text = one.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or name not in table:
            there_are = ", ".join(sorted(table))
            raise click.UsageError(f"--student {one}: expected NAME=VALUE, where the name is one of {there_are}")
        try:
            values[name] = click.types.convert_type(table[name][0])(text.strip())
        except click.BadParameter as error:
            raise click.UsageError(f"--student {one}: {error.message}") from error
    return values
