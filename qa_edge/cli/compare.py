"""`qa-edge compare`: whether two systems differ by more than chance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from qa_edge.cli.options import engine_options
from qa_edge.cli.output import json_option, log, print_json, print_table, wrong_usage

if TYPE_CHECKING:
    from qa_edge.question_scores import QuestionScores
    from qa_edge.significance import McNemar, SampleBootstrap
    from qa_edge.system_comparison import SystemComparison


@click.command("compare", short_help="Test whether two systems differ by more than chance.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--squad", metavar="DEV.json", required=True, help="SQuAD JSON with reference answers.")
@click.option(
    "--resamples", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="Of each bootstrap."
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="A p-value below it is called significant.")
@click.option(
    "--sample", type=float, default=0.1, show_default=True, help="Share of the questions in the paper's test."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The one seed of all that is random."
)
@engine_options
@json_option
def command(
    first: str,
    second: str,
    squad: str,
    resamples: int,
    alpha: float,
    sample: float,
    seed: int,
    engine: str | None,
    precision: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Test whether B scores otherwise than A, each a run, a bundle, a teacher or a file of answers.

    A file of answers is JSON, question id to text, as `qa-edge evaluate -o` writes it. Differences are B less A. A
    question without an answer scores 0. The engine's options are for those of the two that are bundles.
    """
    from qa_edge.significance import check_settings
    from qa_edge.squad import read_squad
    from qa_edge.system_comparison import compare_scores, score_systems

    with wrong_usage():
        check_settings(resamples=resamples, alpha=alpha, share=sample)
    data = read_squad(squad)
    one, other = score_systems(first, second, data, engine=engine, precision=precision, threads=threads)
    for path, scores in ((first, one), (second, other)):
        if scores.unanswered:
            log(f"{path}: {scores.unanswered} of {len(scores.ids)} questions have no answer, which scores 0")
        if scores.extra:
            log(f"{path}: {scores.extra} answers are to questions that are not scored")
    with wrong_usage():
        found = compare_scores(one, other, resamples=resamples, alpha=alpha, share=sample, seed=seed)
    if as_json:
        print_json({"a": _totals(first, one), "b": _totals(second, other), **asdict(found)})
    else:
        _print(first, second, one, other, found)


def _totals(path: str, scores: QuestionScores) -> dict[str, Any]:
    return {
        "name": path,
        "exact_match": scores.exact_match_percent,
        "f1": scores.f1_percent,
        "unanswered": scores.unanswered,
        "extra": scores.extra,
    }


def _print(first: str, second: str, one: QuestionScores, other: QuestionScores, found: SystemComparison) -> None:
    from qa_edge.significance import p_value_text

    covered = f"{100 * (1 - found.alpha):g} %"
    rows = []
    for name, pair, test in (
        ("EM", (one.exact_match_percent, other.exact_match_percent), found.exact_match),
        ("F1", (one.f1_percent, other.f1_percent), found.f1),
    ):
        interval = f"{100 * test.low:+.2f} to {100 * test.high:+.2f}"
        scores = [f"{score:.2f}" for score in pair]
        rows.append([name, *scores, f"{100 * test.difference:+.2f}", interval, p_value_text(test.p_value)])
    title = f"A = {first}\nB = {second}\n{found.questions:,} questions, {found.exact_match.resamples:,} resamples"
    print_table(("", "A", "B", "B - A", f"{covered} interval", "p-value"), rows, title=title)
    lines = [
        "Bootstrap over all questions (the table): do A and B differ, either way, on questions like these?",
        f"  EM {_verdict(found.exact_match.p_value, found.alpha)}; F1 {_verdict(found.f1.p_value, found.alpha)}.",
        "McNemar's exact test, EM: of the questions that only one of them has right, is it a toss-up which?",
        f"  {_mcnemar(found.mcnemar, found.alpha)}.",
        "The paper's bootstrap (section 5.3), EM: on one random sample, is B better than A?",
        f"  {_sample(found.sample, found.alpha)}.",
    ]
    click.echo("\n".join(lines))


def _mcnemar(test: McNemar, alpha: float) -> str:
    return (
        f"A alone {test.only_first:,}, B alone {test.only_second:,}: p {_equals(test.p_value)},"
        f" {_verdict(test.p_value, alpha)}"
    )


def _sample(test: SampleBootstrap, alpha: float) -> str:
    from qa_edge.significance import p_value_text

    return (
        f"{test.questions:,} questions, {100 * test.difference:+.2f}: p {_equals(test.p_value)},"
        f" {_verdict(test.p_value, alpha)}. Of {test.others} other samples of this size {test.others_significant} say"
        f" significant (p from {p_value_text(test.others_lowest)} to {p_value_text(test.others_highest)})"
    )


def _verdict(p_value: float, alpha: float) -> str:
    return f"{'significant' if p_value < alpha else 'not significant'} at {alpha:g}"


def _equals(p_value: float) -> str:
    from qa_edge.significance import p_value_text

    return p_value_text(p_value) if p_value == 0 else f"= {p_value_text(p_value)}"
