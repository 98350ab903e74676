"""`qa-edge evaluate`: official exact match and F1 of a bundle, a run, a teacher, or a prediction file."""

from __future__ import annotations

import json

import click

from qa_edge.cli.options import engine_options
from qa_edge.cli.output import json_option, log, print_facts, print_json


@click.command("evaluate", short_help="Score a run, a bundle or a prediction file on SQuAD JSON.")
@click.argument("model", metavar="[RUN|BUNDLE]", required=False)
@click.option("--squad", metavar="DEV.json", required=True, help="SQuAD JSON with reference answers.")
@click.option("--predictions", metavar="FILE", help="Answers to score instead: JSON, question id to text.")
@click.option("-o", "--output", metavar="FILE", help="Write the answers, as --predictions reads them.")
@engine_options
@json_option
def command(
    model: str | None,
    squad: str,
    predictions: str | None,
    output: str | None,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Answer every question and score the answers as the official script of SQuAD v1.1 does.

    A bundle answers through the device runtime, a run's folder through torch. Questions marked impossible and
    questions without a reference answer are not scored.
    """
    if (model is None) == (predictions is None):
        raise click.UsageError("give either a run or a bundle, or --predictions with a file of answers")
    from qa_edge.squad import read_squad, references
    from qa_edge_runtime.files import atomic_write
    from qa_edge_runtime.scoring import read_predictions, score_predictions

    data = read_squad(squad)
    expected = references(data)
    if predictions is not None:
        answers = read_predictions(predictions)
    else:
        from qa_edge.evaluate import predict

        assert model is not None
        answers = predict(model, data, engine=engine, precision=precision, threads=threads)
    scores = score_predictions(expected, answers)
    if output is not None:
        atomic_write(output, json.dumps(answers, ensure_ascii=False) + "\n")
    if scores.unanswered:
        log(f"{scores.unanswered} of {scores.total} questions have no answer, which scores 0")
    if scores.extra and predictions is not None:
        log(f"{scores.extra} answers are to questions that are not scored")
    if as_json:
        print_json({"exact_match": scores.exact_match, "f1": scores.f1, "total": scores.total}, indent=None)
    else:
        facts = {"exact match": f"{scores.exact_match:.3f}", "F1": f"{scores.f1:.3f}", "questions": f"{scores.total:,}"}
        print_facts(facts, title=f"{model or predictions} on {squad}")
