"""`qa-edge active`: the paper's Algorithm 1 on a labelled data set."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from qa_edge.cli.options import TEACH, finite, given, settings_options
from qa_edge.cli.output import is_main_process, json_option, log, print_json, print_table, wrong_usage

_LOOP = {name: entry for name, entry in TEACH.items() if name != "seed"}


@click.command("active", short_help="Train on ever more questions that a strategy chooses.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD JSON; answers are shown when chosen.")
@click.option("--dev", metavar="DEV.json", required=True, help="SQuAD JSON to score each cycle's model on.")
@click.option("--encoder", metavar="NAME", required=True, help="Encoder that is fine-tuned, as qa-edge teach has it.")
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
    encoder: str,
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

    The same command goes on with an interrupted loop.
    """
    from qa_edge.active.clusters import SentenceEncoder, require_clustering
    from qa_edge.active.cycles import LoopSettings
    from qa_edge.active.learners import TeacherLearner
    from qa_edge.active.loop import run_loop
    from qa_edge.active.strategies import LeastConfidenceClusters, open_strategy, strategy_class
    from qa_edge.teach import TeachSettings

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
        chosen = TeachSettings(**given(settings))
        kind = strategy_class(strategy)
    if chart is not None:
        from qa_edge.latency_chart import check_chart_path, load_matplotlib

        check_chart_path(chart)
        load_matplotlib()
    vectors = None
    if issubclass(kind, LeastConfidenceClusters):
        require_clustering()
        vectors = None if sentence_encoder is None else SentenceEncoder.load(sentence_encoder, device=device or "cpu")
    with wrong_usage():
        open_strategy(strategy, vectors)
    learner = TeacherLearner(encoder=encoder, dev=dev, settings=chosen, device=device)
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
