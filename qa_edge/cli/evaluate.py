"""`qa-edge evaluate`: official exact match and F1 of a bundle, a run, a teacher, or a prediction file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qa_edge.cli.options import engine_options
from qa_edge.cli.output import json_option, log, print_facts, print_json, print_table, wrong_usage
from qa_edge.noise import NOISES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qa_edge.adversarial import AdversarialScores
    from qa_edge.robustness import Robustness
    from qa_edge.significance import Bootstrap
    from qa_edge.squad import Squad


@click.command("evaluate", short_help="Score a run, a bundle or a prediction file on SQuAD JSON.")
@click.argument("model", metavar="[RUN|BUNDLE]", required=False)
@click.option("--squad", metavar="DEV.json", required=True, help="SQuAD JSON with reference answers.")
@click.option("--predictions", metavar="FILE", help="Answers to score instead: JSON, question id to text.")
@click.option("-o", "--output", metavar="FILE", help="Write the answers, as --predictions reads them.")
@click.option(
    "--report",
    metavar="FILE",
    help="Write scores by type of question, length of answer and text, calibration: .html (with plots), .md or .json.",
)
@click.option("--whole-articles", is_flag=True, help="Ask every question of its whole article, not of its paragraph.")
@click.option(
    "--max-windows", type=click.IntRange(1), help="Of a long context, read only so many windows; see qa-edge answer."
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Ask N questions alone, the same ones each time; altered ones come with their originals, beside the N.",
)
@click.option(
    "--noise",
    type=click.Choice([*NOISES, "all"]),
    multiple=True,
    help="Ask the questions in lower case, mistyped, unpunctuated or all at once, beside asking them as they are; "
    "repeatable, all is each of them.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --sample and --noise.")
@engine_options
@json_option
def command(
    model: str | None,
    squad: str,
    predictions: str | None,
    output: str | None,
    report: str | None,
    whole_articles: bool,
    max_windows: int | None,
    sample: int | None,
    noise: tuple[str, ...],
    seed: int,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Answer every question and score the answers as the official script of SQuAD v1.1 does.

    With --whole-articles the context is all of an article's paragraphs, so that the answer has to be found first.

    A bundle answers through the device runtime, a run's folder through torch; if none is named, the bundle of
    qa-edge-models answers. Questions marked impossible and
    questions without a reference answer are not scored. Of Adversarial SQuAD the altered questions are told apart
    from their originals. With --noise the loss against the questions as they are has its 95 % interval.
    """
    if model is not None and predictions is not None:
        raise click.UsageError("give either a run or a bundle, or --predictions with a file of answers, not both")
    if predictions is not None and (engine or precision or max_windows):
        raise click.UsageError("--predictions are answers already: leave out --engine, --precision and --max-windows")
    if noise and (predictions or output or report):
        raise click.UsageError("--noise asks a run or a bundle, and prints: leave out --predictions, -o and --report")
    if report is not None:
        from qa_edge.report_file import check_report_file

        with wrong_usage():
            check_report_file(report)
    from qa_edge.adversarial import adversarial_scores, sample_with_altered
    from qa_edge.question_scores import score_questions
    from qa_edge.squad import read_squad, references
    from qa_edge.squad import whole_articles as joined
    from qa_edge_runtime.default_bundle import bundle_or_default
    from qa_edge_runtime.entries import printable
    from qa_edge_runtime.errors import DataError
    from qa_edge_runtime.files import atomic_write, check_output_file, require_other_file
    from qa_edge_runtime.scoring import read_predictions

    if model is None and predictions is None:
        model = str(bundle_or_default(None))
    if output is not None:
        check_output_file(output)
        require_other_file(output, *filter(None, (squad, predictions, model)))
    if report is not None:
        if output is not None and Path(output).resolve() == Path(report).resolve():
            raise click.UsageError(f"-o and --report are the same file, {report}: name another one")
        require_other_file(report, *filter(None, (squad, predictions, model)))
    data = joined(read_squad(squad)) if whole_articles else read_squad(squad)
    asked = f"whole articles of {squad}" if whole_articles else squad
    if sample is not None:
        data = sample_with_altered(data, sample, seed)
        asked = f"{len(references(data)):,} questions of {asked}"
    expected = references(data)
    if not expected:
        raise DataError(f"{squad} has no question with an answer to score against; name a labelled file")
    if noise:
        from qa_edge.evaluate import predict
        from qa_edge.robustness import measure_robustness

        def answer(asking: Squad) -> Mapping[str, str]:
            assert model is not None
            return predict(model, asking, engine=engine, precision=precision, threads=threads, max_windows=max_windows)

        kinds = NOISES if "all" in noise else tuple(dict.fromkeys(noise))
        _print_robustness(measure_robustness(answer, data, kinds, seed=seed), f"{model} on {asked}", as_json)
        return
    probabilities: dict[str, float] = {}
    if predictions is not None:
        answers = read_predictions(predictions)
    else:
        from qa_edge.evaluate import answers_of_bundle, model_kind, predict

        assert model is not None
        if model_kind(model) == "bundle":
            found = answers_of_bundle(
                model, data, engine=engine, precision=precision, threads=threads, max_windows=max_windows
            )
            answers = {identifier: answer.text for identifier, answer in found.items()}
            probabilities = {i: answer.probability for i, answer in found.items() if answer.probability is not None}
        else:
            answers = predict(model, data, engine=engine, precision=precision, max_windows=max_windows)
    scores = score_questions(expected, answers)
    if scores.unanswered:
        log(f"{scores.unanswered} of {len(scores.ids)} questions have no answer, which scores 0")
    if scores.extra and predictions is not None:
        log(f"{scores.extra} answers are to questions that are not scored")
    adversarial = adversarial_scores(scores)
    totals = {"exact_match": scores.exact_match_percent, "f1": scores.f1_percent, "total": len(scores.ids)}
    if as_json:
        print_json(totals if adversarial is None else {**totals, "adversarial": asdict(adversarial)}, indent=None)
    else:
        facts = {
            "exact match": f"{scores.exact_match_percent:.3f}",
            "F1": f"{scores.f1_percent:.3f}",
            "questions": f"{len(scores.ids):,}",
        }
        print_facts(facts, title=f"{model or predictions} on {asked}")
        if adversarial is not None:
            _print_adversarial(adversarial)
    # After the scores, which a file that cannot be written does not take along.
    if output is not None:
        atomic_write(output, json.dumps(answers, ensure_ascii=False) + "\n")
    if report is not None:
        from qa_edge.evaluation_report import evaluation_report
        from qa_edge.report_file import write_report

        system = printable(Path(model or predictions or "").resolve().name)
        name = printable(asked.replace(squad, Path(squad).name))
        write_report(report, evaluation_report(data, scores, system=system, data=name, probabilities=probabilities))


def _print_adversarial(found: AdversarialScores) -> None:
    from qa_edge.evaluation_report import ADVERSARIAL_TITLE, adversarial_rule, group_table

    head, rows = group_table(found.groups)
    print_table(head, rows, title=f"\n{ADVERSARIAL_TITLE}")
    click.echo(adversarial_rule(found))


def _print_robustness(found: Robustness, title: str, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
        return
    rows = [["as they are", "", f"{found.exact_match:.2f}", "", "", f"{found.f1:.2f}", "", ""]]
    for one in found.noises:
        exact, overlap = _change(one.exact_match_change), _change(one.f1_change)
        rows.append([one.noise, f"{one.changed:,}", f"{one.exact_match:.2f}", *exact, f"{one.f1:.2f}", *overlap])
    columns = ("questions", "changed", "EM", "change", "95 % interval", "F1", "change", "95 % interval")
    print_table(columns, rows, title=f"{title}\n{found.questions:,} questions, seed {found.seed}")


def _change(test: Bootstrap) -> tuple[str, str]:
    return f"{100 * test.difference:+.2f}", f"{100 * test.low:+.2f} to {100 * test.high:+.2f}"
