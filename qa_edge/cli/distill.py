"""`qa-edge distill`: prepare, label and train what is not done yet."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from qa_edge.cli.options import PREPARE, TRAIN, given, own_split, settings_options, vectors_path
from qa_edge.cli.output import is_main_process, json_option, log, print_facts, print_json, wrong_usage
from qa_edge.student.config import PRESETS, StudentConfig

if TYPE_CHECKING:
    from qa_edge.distill import DistillReport, Recipe

# Sizes that follow from the features, or that the preset is.
_FIXED = ("preset", "word_dim", "characters", "characters_per_word", "passes")
SIZES = {
    field.name: (type(field.default), field.default, f"Size of the student: {field.name.replace('_', ' ')}.")
    for field in fields(StudentConfig)
    if field.name not in _FIXED
}
SIZES["heads"] = (int, None, "Attention heads; 1 in the edge preset, 8 in the paper's.")
SIZES["dropout"] = (float, 0.1, "Share of the features that is dropped in training.")
SIZES["character_dropout"] = (float, 0.05, "The same of the characters' vectors.")
SIZES["survival"] = (float, 0.9, "Share of updates in which the last sub-layer of a stack is kept.")
_RESUME_WITH = ("resume", "max_steps", "max_minutes", "as_json")


@click.command("distill", short_help="Train a student: prepare, label, train, score.")
@click.option("--squad", metavar="DATA.json", help="SQuAD JSON to train on.")
@click.option("--dev", metavar="DEV.json", help="SQuAD JSON to score the student on in the end.")
@click.option("--vectors", metavar="FILE|none", help="GloVe text, .gz or .zip; none trains on characters alone.")
@click.option(
    "--teacher", metavar="NAME|none", help="Question-answering model of the hub or a folder; none: no teacher."
)
@click.option("-o", "--output", metavar="RUN", help="Folder of the run; the same command again goes on with it.")
@click.option("--resume", metavar="RUN", help="Go on with a run; nothing else need be given.")
@click.option("--features", metavar="FOLDER", help="Features that prepare wrote, instead of making them.")
@click.option("--labels", metavar="FOLDER", help="Logits that label wrote, instead of a teacher.")
@click.option(
    "--questions", metavar="PART.json", help="Part of DATA.json that alone is trained on, as a loop wrote it."
)
@click.option("--init", metavar="CHECKPOINT", help="Trained student to go on from, with its sizes, words and vectors.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after so many updates in all, to be gone on with.")
@click.option(
    "--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop after so many minutes, to be gone on with."
)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), show_default="edge", help="Sizes of the student.")
@settings_options(TRAIN)
@settings_options(PREPARE)
@settings_options(SIZES)
@json_option
@click.pass_context
def command(
    context: click.Context,
    output: str | None,
    resume: str | None,
    max_steps: int | None,
    max_minutes: float | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Distil a teacher into a small student.

    Features and logits are made in the run's folder unless they are given. The run can be interrupted at any moment,
    and goes on when the same command, or distill --resume RUN, is given.
    """
    if resume is not None:
        others = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        others = [f"--{name.replace('_', '-')}" for name in others if name not in _RESUME_WITH]
        if others:
            raise click.UsageError(f"--resume goes on with the run's own settings: leave out {', '.join(others)}")
        from qa_edge.distill import Recipe, distill

        report = distill(resume, Recipe.load(resume), max_steps=max_steps, max_minutes=max_minutes, log=log)
    else:
        if output is None:
            raise click.UsageError("Missing option '-o': name the run's folder, or go on with one by --resume")
        from qa_edge.distill import distill

        report = distill(output, _recipe(**values), max_steps=max_steps, max_minutes=max_minutes, log=log)
    if is_main_process():
        _print(report, as_json)


def _recipe(
    *, squad: str | None, dev: str | None, vectors: str | None, teacher: str | None, preset: str | None, **values: Any
) -> Recipe:
    from qa_edge.distill import Recipe
    from qa_edge.prepare import PrepareSettings
    from qa_edge.squad import read_squad, references
    from qa_edge.taught import NO_TEACHER
    from qa_edge.train_settings import TrainSettings
    from qa_edge_runtime.errors import DataError

    if vectors is None and values["features"] is None and values["init"] is None:
        raise click.UsageError("Missing option '--vectors': give a file, or none")
    if values["features"] is not None and given({name: values[name] for name in PREPARE}):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given({name: values[name] for name in PREPARE}))
        raise click.UsageError(f"the features are made already: leave out {names}")
    train = given({name: values[name] for name in TRAIN})
    if teacher == NO_TEACHER:
        train = {"rho": 0.0, "mse_weight": 0.0, **train}
    elif teacher is not None and Path(teacher).is_dir():
        teacher = str(Path(teacher).absolute())
    inputs = {name: values[name] for name in ("features", "labels", "init", "questions")}
    with wrong_usage():
        recipe = Recipe.of(
            {"squad": squad, "dev": dev, "vectors": vectors_path(vectors), **inputs},
            teacher=teacher,
            student=given({"preset": preset, **{name: values[name] for name in SIZES}}),
            train=TrainSettings(**train),
            prepare=PrepareSettings(
                **{
                    "seed": train.get("seed", TrainSettings.seed),
                    **own_split(values["init"], squad),
                    **given({name: values[name] for name in PREPARE}),
                }
            ),
        )
    # What cannot be scored on is better known before the work than after it.
    if dev is not None and not references(read_squad(dev)):
        raise DataError(f"SQuAD file {dev} has no question with an answer to score on; give another --dev, or none")
    return recipe


def _print(report: DistillReport, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    facts: dict[str, object] = {"updates": f"{report.steps:,} of {report.total_steps:,}"}
    facts["state"] = "finished" if report.finished else f"to be gone on with: qa-edge distill --resume {report.run}"
    if report.best_step is not None:
        facts["checkpoint"] = f"average after update {report.best_step:,}"
    if report.heldout_f1 is not None:
        facts["held-out F1"] = f"{report.heldout_f1:.2f}"
    if report.scores is not None:
        facts["exact match"] = f"{report.scores['exact_match']:.2f}"
        facts["F1"] = f"{report.scores['f1']:.2f} on {report.scores['total']:,} questions of {report.scores['on']}"
    print_facts(facts, title=report.run)
