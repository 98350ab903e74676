"""`qa-edge labels`: annotations taken back, parts of data sets, and teachers' labels averaged and scored."""

from __future__ import annotations

import hashlib
import json

import click

from qa_edge.cli.output import check_new_file, json_option, log, print_facts, print_json, print_table, wrong_usage


@click.group("labels", short_help="Take annotations back; average and score teachers' labels.")
def command() -> None:
    """What people labelled, checked against what they were given; what teachers labelled, averaged and scored."""


@command.command("config", short_help="Print the labelling interface for Label Studio.")
def config() -> None:
    """Print the labelling interface for the tasks that `qa-edge select --format label-studio` writes."""
    from qa_edge.active.label_studio import CONFIG

    click.echo(CONFIG, nl=False)


@command.command("part", short_help="A fixed part of a data set, for experiments.")
@click.argument("data", metavar="DATA.json")
@click.option("--questions", type=click.IntRange(1), required=True, help="Answered questions to draw.")
@click.option("-o", "--output", metavar="PART.json", required=True, help="SQuAD JSON to write.")
@click.option("--whole-articles", is_flag=True, help="Draw whole articles until they have so many.")
@click.option("--without-answers", is_flag=True, help="Leave the answers out: a pool for qa-edge select.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def part(
    data: str,
    questions: int,
    output: str,
    whole_articles: bool,
    without_answers: bool,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Draw questions with their contexts at random, the same ones for the same seed."""
    from qa_edge.split import sample_articles, sample_questions
    from qa_edge.squad import read_squad, squad_json
    from qa_edge.squad import without_answers as unanswered
    from qa_edge_runtime.errors import DataError
    from qa_edge_runtime.files import atomic_write

    check_new_file(output, data, force=force)
    squad = read_squad(data)
    if questions > squad.answered:
        raise DataError(
            f"{questions:,} questions are more than the {squad.answered:,} of {data} with an answer; ask for fewer"
        )
    drawn = sample_articles(squad, questions, seed) if whole_articles else sample_questions(squad, questions, seed)
    text = squad_json(unanswered(drawn) if without_answers else drawn)
    atomic_write(output, text)
    facts = {
        "articles": len(drawn.articles),
        "contexts": sum(len(article.paragraphs) for article in drawn.articles),
        "questions": sum(1 for _ in drawn.items()),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "output": output,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(facts, title=f"part of {data}, seed {seed}")


@command.command("import", short_help="Check annotations and write them as SQuAD JSON.")
@click.argument("export", metavar="EXPORT.json")
@click.option("--source", metavar="POOL.json", required=True, help="SQuAD JSON that the questions were chosen from.")
@click.option("-o", "--output", metavar="LABELLED.json", required=True, help="SQuAD JSON to write.")
@click.option(
    "--on-conflict",
    type=click.Choice(["leave-out", "keep-all"]),
    default="leave-out",
    show_default=True,
    help="Questions on which annotators differ: left out, or with the answers of all.",
)
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def import_(export: str, source: str, output: str, on_conflict: str, force: bool, as_json: bool) -> None:
    """Write the labelled questions; the source is never changed.

    EXPORT.json is Label Studio's export as JSON, or SQuAD JSON of another tool. Each answer is looked up in its text.
    What is wrong, and what annotators differ on, is listed and left out; the exit code is 1 then.
    """
    from qa_edge.active.annotations import import_annotations, read_annotations
    from qa_edge.squad import read_squad, write_squad
    from qa_edge_runtime.errors import DataError

    check_new_file(output, source, export, force=force)
    report = import_annotations(read_squad(source), read_annotations(export), on_conflict=on_conflict)
    if report.labelled:
        write_squad(output, report.squad)
    facts = {
        "labelled": report.labelled,
        "of them without an answer": report.impossible,
        "opened and not answered": report.unanswered,
        "problems": len(report.problems),
        "output": output if report.labelled else None,
    }
    if as_json:
        problems = [vars(problem) for problem in report.problems]
        print_json({**{name.replace(" ", "_"): value for name, value in facts.items()}, "problems": problems})
    else:
        print_facts(facts, title=export)
        if report.problems:
            rows = [[one.kind, one.question_id, one.annotator, one.message] for one in report.problems]
            print_table(("problem", "question", "annotator", "what"), rows)
    if not report.labelled:
        raise DataError(f"{export} labels no question of {source}: nothing was written")
    if report.problems:
        log(f"{len(report.problems)} annotations were not taken as they are; the others are in {output}")
        raise SystemExit(1)


@command.command("average", short_help="The mean of several teachers' logits, as one teacher's.")
@click.argument("folders", metavar="LABELS LABELS...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder of labels to write.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def average(folders: tuple[str, ...], output: str, force: bool, as_json: bool) -> None:
    """Write labels that are the mean of those of several teachers, for distill --labels: an ensemble.

    LABELS are folders that qa-edge label wrote, of the same data by teachers with the same tokenizer and windows, such
    as several fine-tunings of one encoder. The logits are averaged as they are; the layers' states, where there are
    any, are those of the first folder that has them.
    """
    from qa_edge.ensemble import average_labels

    with wrong_usage():
        manifest = average_labels(folders, output, force=force)
    facts = {
        "teachers": [source["teacher"] for source in manifest["sources"]],
        "questions": manifest["questions"],
        "output": output,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts({**facts, "teachers": ", ".join(facts["teachers"])}, title=manifest["teacher"])


@command.command("score", short_help="EM and F1 of what labels teach.")
@click.argument("folder", metavar="LABELS")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD JSON that was labelled, with its answers.")
@click.option("-o", "--output", metavar="FILE", help="Write the answers too, as evaluate --predictions reads them.")
@json_option
def score(folder: str, squad: str, output: str | None, as_json: bool) -> None:
    """Exact match and F1 of the answers that a teacher's labels give, or those of the mean of several teachers.

    On a development set that is what an ensemble is worth; on training data it shows how much of them a teacher knows
    by heart. Nothing is computed again.
    """
    from qa_edge.evaluate import predict_with_labels
    from qa_edge.labels import Labels
    from qa_edge.question_scores import score_questions
    from qa_edge.squad import read_squad, references
    from qa_edge_runtime.files import atomic_write, check_output_file, require_other_file

    if output is not None:
        check_output_file(output)
        require_other_file(output, squad, folder)
    data = read_squad(squad)
    answers = predict_with_labels(Labels(folder), data)
    if output is not None:
        atomic_write(output, json.dumps(answers, ensure_ascii=False) + "\n")
    found = score_questions(references(data), answers)
    if as_json:
        print_json({"exact_match": found.exact_match_percent, "f1": found.f1_percent, "total": len(found.ids)})
    else:
        facts = {"exact match": f"{found.exact_match_percent:.3f}", "F1": f"{found.f1_percent:.3f}"}
        print_facts({**facts, "questions": f"{len(found.ids):,}"}, title=f"{folder} on {squad}")
