"""`qa-edge vectors`: static word vectors out of an encoder."""

from __future__ import annotations

import click

from qa_edge.cli.output import json_option, print_facts, print_json


@click.command("vectors", short_help="Make word vectors out of an encoder or a teacher.")
@click.option("--encoder", metavar="NAME", required=True, help="Encoder or teacher of the hub, or a folder.")
@click.option("--words", metavar="FILE", multiple=True, help="Words in UTF-8, one or several a line; may be repeated.")
@click.option("--squad", metavar="DATA.json", multiple=True, help="The words of a SQuAD file; may be repeated.")
@click.option(
    "--min-count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="A rarer word of --squad is left out, unless --beside knows it.",
)
@click.option("--dim", type=click.IntRange(1), default=128, show_default=True, help="Numbers a word.")
@click.option("--beside", metavar="FILE", help="GloVe-format vectors that come first in each row.")
@click.option("-o", "--output", metavar="FILE", required=True, help="GloVe text; compressed if it ends in .gz.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@json_option
def command(
    encoder: str,
    words: tuple[str, ...],
    squad: tuple[str, ...],
    min_count: int,
    dim: int,
    beside: str | None,
    output: str,
    force: bool,
    as_json: bool,
) -> None:
    """Make a vector of each word: alone through the encoder, its states at four depths reduced by PCA.

    `prepare`, `distill` and `export` take the file as any vectors. The directions depend on the encoder and --dim
    alone: words that are added later get vectors that go together with the first ones.
    """
    if not words and not squad:
        raise click.UsageError("Missing option '--words' or '--squad': whose words?")
    from qa_edge.static_vectors import spacy_words, static_vectors, words_of_lists, words_of_squad, write_vectors
    from qa_edge_runtime.files import check_replaceable_file, require_other_file
    from qa_edge_runtime.machine import peak_memory_bytes

    require_other_file(output, *words, *squad, encoder, *filter(None, (beside,)))
    check_replaceable_file(output, force=force, ours=lambda path: path.is_file())
    tokenizer = spacy_words()
    listed, counted = words_of_lists(words, tokenizer), words_of_squad(squad, tokenizer)
    found = static_vectors(encoder, listed, dim, counted=counted, min_count=min_count, beside=beside)
    write_vectors(output, found)
    count, peak = len(found.words), peak_memory_bytes()
    if as_json:
        print_json(
            {
                "words": count,
                "dim": found.array.shape[1],
                "read_whole": found.covered,
                "beside": found.beside,
                "variance_kept": found.variance,
                "seconds": found.seconds,
                "peak_memory_bytes": peak,
            }
        )
        return
    facts: dict[str, object] = {
        "words": f"{count:,} of {found.array.shape[1]} numbers",
        "read without an unknown piece": f"{found.covered / count:.1%}",
    }
    if found.beside is not None:
        facts["known to the vectors beside"] = f"{found.beside / count:.1%}"
    facts["variance kept"] = f"{found.variance:.1%}"
    facts["time"] = f"{found.seconds:.0f} s"
    if peak is not None:
        facts["peak memory"] = f"{peak / 1e6:,.0f} MB"
    print_facts(facts, title=output)
