"""`qa-edge select`: the questions of a pool that are worth labelling."""

from __future__ import annotations

from pathlib import Path

import click

from qa_edge.cli.options import finite, sharing_options
from qa_edge.cli.output import check_new_file, json_option, log, print_facts, print_json, wrong_usage

FORMATS = ("squad", "label-studio")


@click.command("select", short_help="Choose the questions that are worth labelling.")
@click.option("--pool", metavar="POOL.json", required=True, help="SQuAD JSON whose questions have no answers.")
@click.option("--model", metavar="MODEL", help="Bundle, run or teacher that is unsure; random needs none.")
@click.option("--teacher", metavar="MODEL", help="A second model, with which disagreement compares the first.")
@click.option(
    "--strategy",
    default="least-confidence",
    show_default=True,
    help="random, least-confidence, margin, margin-as-printed, entropy, least-confidence-clusters, disagreement, "
    "or module:Class.",
)
@click.option("--count", type=click.IntRange(1), required=True, help="Questions to choose.")
@click.option("-o", "--output", metavar="FILE", required=True, help="File to write.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="squad", show_default=True, help="Of the output.")
@click.option("--skip-labelled", is_flag=True, help="Leave out the pool's labelled questions instead of refusing them.")
@click.option(
    "--without", metavar="FILE", multiple=True, help="SQuAD JSON of an earlier round, not chosen again; repeatable."
)
@click.option(
    "--similarity",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    callback=finite,
    help="Share of common words from which two questions about one text are nearly the same.",
)
@click.option("--near-duplicates", is_flag=True, help="Choose questions that are nearly the same too.")
@click.option("--sentence-encoder", "encoder", metavar="NAME", help="Of the clusters: a name on the hub or a folder.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is random.")
@click.option("--scores", metavar="FOLDER", help="Where the model's scores are kept; FILE.scores if not given.")
@click.option("--device", help="Where a run, a teacher or the encoder computes; the best there is if not given.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp16", "fp32"]),
    default="auto",
    show_default=True,
    help="Of a teacher's matrix products.",
)
@click.option("--window", type=int, default=384, show_default=True, help="Pieces that a teacher reads at once.")
@click.option("--stride", type=int, default=128, show_default=True, help="Pieces by which its windows overlap.")
@sharing_options("scoring")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(
    pool: str,
    model: str | None,
    teacher: str | None,
    strategy: str,
    count: int,
    output: str,
    form: str,
    skip_labelled: bool,
    without: tuple[str, ...],
    similarity: float,
    near_duplicates: bool,
    encoder: str | None,
    seed: int,
    scores: str | None,
    device: str | None,
    precision: str,
    window: int,
    stride: int,
    process: int,
    processes: int,
    force: bool,
    as_json: bool,
) -> None:
    """Choose questions to label, most informative first, and write them for the people who label.

    The model reads the whole pool; its scores are kept, so that a killed run goes on where it stopped and another
    choice costs nothing. Of questions that are nearly the same one is chosen.
    """
    from qa_edge.active.clusters import SentenceEncoder, require_clustering
    from qa_edge.active.pool import read_pool
    from qa_edge.active.select import require_count, select, write_selection
    from qa_edge.active.strategies import LeastConfidenceClusters, open_strategy, strategy_class

    kind, vectors = None, None
    with wrong_usage():
        kind = strategy_class(strategy)
        if kind.needs_model and model is None:
            raise click.UsageError(f"strategy {strategy} needs --model: a bundle, a run or a teacher")
        if kind.needs_teacher != (teacher is not None):
            has = "needs --teacher, a model to compare with" if kind.needs_teacher else "has no use for --teacher"
            raise click.UsageError(f"strategy {strategy} {has}")
    if issubclass(kind, LeastConfidenceClusters):
        require_clustering()
        if encoder is not None:
            vectors = SentenceEncoder.load(encoder, device=device or "cpu")
    with wrong_usage():
        chosen_by = open_strategy(strategy, vectors)
    data = read_pool(pool, skip_labelled=skip_labelled)
    if data.labelled:
        log(f"{len(data.labelled):,} labelled questions of {pool} are left out")
    require_count(data, count, without)
    read = (pool, *without, *(one for one in (model, teacher, encoder) if one is not None and Path(one).exists()))
    with wrong_usage():
        # Of several processes the last one to end writes: what is there by then may be this very choice.
        check_new_file(output, *read, force=force or processes > 1)
    found = None
    if process and not chosen_by.needs_model:
        log(f"no model reads the pool: process 0 of {processes} chooses")
        return
    if chosen_by.needs_model:
        from functools import partial

        from qa_edge.active.readers import open_reader
        from qa_edge.active.scores import Scores, score_pool

        assert model is not None
        opened = partial(open_reader, device=device, precision=precision, window=window, stride=stride)
        folder = scores or f"{output}.scores"
        scored = False

        def said(done: int, shards: int) -> None:
            nonlocal scored
            scored = True
            log(f"{done} of {shards} shards")

        whole = score_pool(
            data,
            opened(model),
            folder,
            teacher=None if teacher is None else opened(teacher),
            process=process,
            processes=processes,
            on_shard=said,
        )
        if not whole:
            log(f"process {process} of {processes} has done its part of {folder}; the last one to end chooses")
            return
        if process and not scored:
            log(f"all of {folder} was done before process {process} of {processes} began: process 0 chooses")
            return
        found = Scores(folder, data)
    selection = select(
        data,
        chosen_by,
        count,
        scores=found,
        without=without,
        similarity=None if near_duplicates else similarity,
        seed=seed,
    )
    with wrong_usage():
        write_selection(selection, output, label_studio=form == "label-studio", inputs=read, force=force)
    facts = {
        "strategy": strategy,
        "chosen": len(selection.ids),
        "pool": len(data),
        "contexts": sum(len(article.paragraphs) for article in selection.squad.articles),
        "questions_per_hour": None if found is None else round(found.questions_per_hour),
        "output": output,
    }
    if as_json:
        print_json({**facts, "ids": list(selection.ids)})
    else:
        shown = {name.replace("_", " "): value for name, value in facts.items() if value is not None}
        print_facts(shown, title=pool)
