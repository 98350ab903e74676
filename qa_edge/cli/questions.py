"""`qa-edge questions`: more questions of the same texts, for a teacher to answer."""

from __future__ import annotations

import click

from qa_edge.cli.output import check_new_file, json_option, print_facts, print_json, wrong_usage


@click.command("questions", short_help="Write more questions of the same texts, for a teacher to answer.")
@click.option("--squad", metavar="DATA.json", required=True, help="SQuAD JSON: texts, with questions or without.")
@click.option("--vectors", metavar="FILE", required=True, help="GloVe text, .gz or .zip: which words are near a word.")
@click.option("-o", "--output", metavar="MORE.json", required=True, help="SQuAD JSON to write.")
@click.option("--bare-texts", type=int, default=5, show_default=True, help="Questions for a text that has none.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn at random.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(squad: str, vectors: str, output: str, bare_texts: int, seed: int, force: bool, as_json: bool) -> None:
    """Write the data with as many questions more, without answers, by rule: `label` and `distill` take it.

    Half of them are a text's own questions with other words, a third its sentences with a gap, the rest questions of
    other texts. Good or not, a teacher's word on them is something to learn from; for people to answer they are no use.
    """
    from qa_edge.more_questions import with_more_questions
    from qa_edge.squad import read_squad, write_squad

    check_new_file(output, squad, vectors, force=force)
    with wrong_usage():
        more, count = with_more_questions(read_squad(squad), vectors, bare_texts=bare_texts, seed=seed)
    write_squad(output, more)
    if as_json:
        print_json({"written": count, "questions": sum(1 for _ in more.items(impossible=True)), "output": output})
        return
    names = {"replaced": "own questions with other words", "gap": "sentences with a gap", "other": "of other texts"}
    print_facts({names[kind]: f"{number:,}" for kind, number in count.items()}, title=output)
