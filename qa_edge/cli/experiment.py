"""`qa-edge experiment`: a set of runs that answers a question, or fills a table of the paper."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qa_edge.cli.distill import SIZES
from qa_edge.cli.options import TRAIN, given, settings_options
from qa_edge.cli.output import is_main_process, json_option, log, print_json, print_table, wrong_usage
from qa_edge.student.config import PRESETS

if TYPE_CHECKING:
    from qa_edge.experiments.budget import Budget
    from qa_edge.experiments.runner import Plan
    from qa_edge.experiments.sources import Sources

_OF_A_PART = ("--only", "--process", "--processes")
_TRAIN = {name: entry for name, entry in TRAIN.items() if name not in ("epochs", "seed")}


@click.command("experiment", short_help="Run a set of trainings that answers a question.")
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="Say which experiments there are and what each costs.")
@click.option(
    "--budget",
    default="small",
    show_default=True,
    metavar="SIZE",
    help="tiny, small, paper, or share=0.25,epochs=4,seeds=2; also dev, articles, labels; small,seeds=3 goes too.",
)
@click.option("--runs", default="runs", show_default=True, metavar="FOLDER", help="Folder of all experiments.")
@click.option("--squad", metavar="DATA.json", help="SQuAD JSON to train on.")
@click.option("--dev", metavar="DEV.json", help="SQuAD JSON to score finished runs on, for the report alone.")
@click.option("--adversarial", metavar="FILE", multiple=True, help="AddSent.json, AddOneSent.json: scored on too.")
@click.option(
    "--vectors",
    metavar="[NAME=]FILE|none",
    multiple=True,
    help="Word vectors; the experiment `vectors` takes glove=FILE, encoder=FILE and both=FILE.",
)
@click.option("--features", metavar="FOLDER", help="Features that prepare wrote, of which the budget's share is taken.")
@click.option(
    "--labels",
    metavar="[NAME=]FOLDER",
    multiple=True,
    help="Logits that label wrote for the whole training set; `ensemble` takes one NAME=FOLDER for each teacher.",
)
@click.option("--teacher", metavar="NAME", help="Teacher that labels, where --labels is not given; tables score it.")
@click.option("--init", metavar="CHECKPOINT", help="Trained student that all runs go on from.")
@click.option("--encoder", metavar="NAME", help="Encoder that active learning fine-tunes.")
@click.option("--sentence-encoder", metavar="NAME", help="Of the strategy least-confidence-clusters.")
@click.option("--peers", metavar="FILE", help="JSON of benchmarks/peers.py, for table3.")
@click.option("--only", metavar="VARIANT", multiple=True, help="Do this variant's runs alone; repeatable.")
@click.option("--process", type=click.IntRange(0), default=0, show_default=True, help="My number ...")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="... among so many, started each for itself, that share the runs between them.",
)
@click.option("--teach", "teach_text", metavar="NAME=VALUE,...", help="Settings of teach, for active learning.")
@click.option("--label", "label_text", metavar="NAME=VALUE,...", help="Settings of label.")
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Student of all variants; tables take the paper's.")
@settings_options(_TRAIN)
@settings_options(SIZES)
@json_option
def command(
    name: str | None,
    listing: bool,
    budget: str,
    runs: str,
    peers: str | None,
    only: tuple[str, ...],
    process: int,
    processes: int,
    teach_text: str | None,
    label_text: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Run an experiment: NAME is one of those that --list says, such as kd, or table1 ... table8.

    Each variant and seed is an ordinary run in RUNS/NAME/VARIANT-seedN. The same command goes on after a kill, and does
    nothing twice; results.md and results.json say what came out. Settings of distill hold for all variants, where a
    variant does not fix them; with fewer passes than the paper's 30 the schedule is cosine, in batches of 32.
    """
    from qa_edge.experiments.budget import parse_budget, read_values
    from qa_edge.experiments.definitions import COUNTED, experiments_of
    from qa_edge.experiments.sources import Sources

    if process >= processes:
        raise click.UsageError(f"--process {process} is not one of {processes}: the first is 0")
    with wrong_usage():
        size = parse_budget(budget)
        if listing or name is None:
            if not listing:
                raise click.UsageError("Missing argument 'NAME'; --list says which there are")
            _list(size, as_json)
            return
        vectors, labels = _vectors(values.pop("vectors")), _labels(values.pop("labels"), name)
        experiments = experiments_of(name, tuple(labels))
        sources = Sources(
            vectors=vectors,
            labels=labels,
            **{key: values.pop(key) for key in list(values) if key in _source_names()},
        )
        if name in COUNTED:
            _count(name, Path(runs), sources, peers)
            return
        missing = {"AddSent", "AddOneSent"} - {Path(path).stem for path in sources.adversarial}
        if name in ("table7", "table8") and missing:
            raise click.UsageError(f"{name} needs --adversarial {' and --adversarial '.join(sorted(missing))}.json")
        from qa_edge.labels import LabelSettings
        from qa_edge.teach_settings import TeachSettings

        teach = read_values(teach_text.split(","), TeachSettings, "--teach") if teach_text else {}
        label = read_values(label_text.split(","), LabelSettings, "--label") if label_text else {}
        train = given({key: values[key] for key in _TRAIN})
        student = given({"preset": values["preset"], **{key: values[key] for key in SIZES}})
        from qa_edge.experiments.runner import Plan, runs_of

        whole = [
            Plan(
                experiment=experiment,
                runs=Path(runs),
                budget=size,
                sources=sources,
                train=train,
                student=student,
                teach=teach,
                label=label,
            )
            for experiment in experiments
        ]
        # Of a table whose runs are two experiments', those that have the variants.
        having = {variant.name for plan in whole for variant in plan.experiment.variants}
        for unknown in filter(lambda one: one not in having, only):
            experiments[0].variant(unknown)  # which refuses it, and names those that there are
        parts = [
            (plan, replace(plan, experiment=runs_of(plan.experiment, own)))
            for plan in whole
            if (own := _own_variants(plan, only)) or not only
        ]
        for _, part in parts:
            part.require()
    found = [_run(plan, part, process, processes) for plan, part in parts]
    if is_main_process():
        if as_json:
            print_json(found[0][0] if len(found) == 1 else [results for results, _ in found])
        else:
            click.echo("\n".join(page for _, page in found))


def _own_variants(plan: Plan, only: tuple[str, ...]) -> tuple[str, ...]:
    names = {variant.name for variant in plan.experiment.variants}
    return tuple(name for name in only if name in names)


def _run(plan: Plan, part: Plan, process: int, processes: int) -> tuple[dict[str, Any], str]:
    """Do some runs of an experiment; its results, and the page of them."""
    from qa_edge.experiments.results import collect_results, write_results
    from qa_edge.experiments.results_page import results_page
    from qa_edge.experiments.runner import run_experiment, scored_files

    missing = run_experiment(part, process=process, processes=processes, log=log)
    scored = scored_files(plan)  # in all processes, which wait for the main one where a file is drawn
    if not is_main_process():
        return {}, ""
    results = collect_results(plan, scored)
    page = results_page(results, command_said(sys.argv[1:]))
    write_results(plan.folder, results, page)
    if missing:
        log(f"{len(missing)} of {len(part.all_runs)} runs are left: {', '.join(run.name for run in missing)}")
    return results, page


def command_said(arguments: Sequence[str]) -> str:
    """The command that makes all runs of an experiment, for its page, which says nothing of a machine.

    Files have as much of their paths as tells them apart; names on a hub stay. What shares the runs out is left out.
    """
    words: list[tuple[str, str]] = []  # what comes before a path, and the path
    given = iter(arguments)
    for argument in given:
        if argument.partition("=")[0] in _OF_A_PART:
            if "=" not in argument:
                next(given, None)
        elif argument != "--json":
            left, equals, right = argument.rpartition("=")
            words.append((left + equals, right) if equals else ("", argument))
    paths = {path for _, path in words if "/" in path and Path(path).exists()}
    shown = {path: "/".join(Path(path).parts[-_telling(path, paths) :]) for path in paths}
    return " ".join(["qa-edge", *(shlex.quote(f"{left}{shown.get(path, path)}") for left, path in words)])


def _telling(path: str, paths: Collection[str]) -> int:
    """How many of the last parts of a path no other has."""
    parts, others = Path(path).parts, [Path(other).parts for other in paths if Path(other) != Path(path)]
    counts = range(1, len(parts) + 1)
    return next((count for count in counts if parts[-count:] not in [other[-count:] for other in others]), len(parts))


def _source_names() -> tuple[str, ...]:
    return ("squad", "dev", "adversarial", "features", "teacher", "encoder", "sentence_encoder", "init")


def _vectors(texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        # A path may hold an equals sign too.
        name, path = (name, path) if equals and name in ("glove", "encoder", "both") else ("only", text)
        if name in found:
            raise click.UsageError(f"--vectors {text}: there are vectors of this name already, {found[name]}")
        found[name] = path
    return found


def _labels(texts: tuple[str, ...], experiment: str) -> dict[str, str]:
    if experiment != "ensemble":
        if len(texts) > 1:
            raise click.UsageError(f"experiment {experiment} has one teacher: give one --labels (ensemble takes more)")
        return {"only": texts[0]} if texts else {}
    found: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals:
            raise click.UsageError(f"--labels {text}: expected NAME=FOLDER, a name for each teacher")
        if name in found:
            raise click.UsageError(f"--labels {text}: there are labels of this name already, {found[name]}")
        found[name] = folder
    return found


def _list(budget: Budget, as_json: bool) -> None:
    from qa_edge.experiments.cost import questions_trained
    from qa_edge.experiments.definitions import COUNTED, SAME_RUNS, experiments_of, names
    from qa_edge.experiments.paper import train_questions

    entries: list[dict[str, Any]] = []
    for name in names():
        if name in COUNTED:
            entries.append({"name": name, "question": COUNTED[name], "runs": 0, "students": 0, "encoders": 0})
            continue
        found = experiments_of(name)
        costs = [questions_trained(one, budget, pool=train_questions(), teach_epochs=2) for one in found]
        same = f"the runs of {' and '.join(SAME_RUNS[name])}" if name in SAME_RUNS else ""
        entries.append(
            {
                "name": name,
                "question": same or found[0].question,
                "runs": budget.seeds * sum(len(one.variants) for one in found),
                "students": sum(students for students, _ in costs),
                "encoders": sum(encoders for _, encoders in costs),
                "variants": {variant.name: variant.said for one in found for variant in one.variants},
            }
        )
    if as_json:
        print_json({"budget": asdict(budget), "experiments": entries})
        return
    rows = [
        [one["name"], one["question"], *(f"{one[key]:,}" for key in ("runs", "students", "encoders"))]
        for one in entries
    ]
    title = f"{budget}, of SQuAD v1.1's {train_questions():,} training questions"
    print_table(("experiment", "question", "runs", "questions trained", "by encoders"), rows, title=title)


def _count(name: str, runs: Path, sources: Sources, peers: str | None) -> None:
    from qa_edge.experiments.counted import count_data_sets, keep_peers

    if name == "table3":
        if peers is None:
            raise click.UsageError("table3 needs --peers, the JSON that benchmarks/peers.py wrote")
        click.echo(f"kept as {keep_peers(Path(peers), runs)}; qa-edge report --runs {runs} draws the table")
        return
    found = count_data_sets(sources, runs)
    rows = [
        [key, *(f"{one[count]:,}" for count in ("documents", "paragraphs", "questions"))] for key, one in found.items()
    ]
    print_table(("", "documents", "paragraphs", "questions"), rows)
