"""Cut a domain out of SQuAD, as the walk in docs/own-domain.md uses it.

    python tools/cut_domain.py --squad train-v1.1.json --dev dev-v1.1.json --checkpoint models/edge -o domain

The domain is the first 20 of the articles that the checkpoint held out: no weight was ever trained on them. Of each
article the first half of the paragraphs is for adaptation and the rest for the test, so that the test asks of other
texts on the same subjects. Written are

    questions.json   the adaptation part without any answer
    labelled.json    the same questions, some of them with their answers (--labels, 200, drawn by --seed)
    few.json         those alone
    rest.json        the others alone: what an export calibrates on
    test.json        the test part, with all answers
    other.json       1,000 questions of the development set: what adaptation may make a student forget
    words.txt        the words of questions.json, for `export --words`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qa_edge.features import TOKENIZER
from qa_edge.heldout import held_out
from qa_edge.split import sample_questions
from qa_edge.squad import Article, Paragraph, Question, Squad, read_squad, write_squad
from qa_edge.words import count_words_of_text
from qa_edge_runtime.errors import DataError, InputError, QaEdgeError
from qa_edge_runtime.files import atomic_folder, atomic_write
from qa_edge_runtime.tokenizer import Tokenizer

ARTICLES = 20
LABELS = 200
OTHERS = 1000


def cut_domain(
    source: Path,
    dev: Squad,
    checkpoint: Path,
    output: Path,
    *,
    articles: int = ARTICLES,
    labels: int = LABELS,
    seed: int = 0,
) -> dict[str, int]:
    """Write the files of a domain, and return the number of questions in each.

    :param checkpoint: a run, or what `keep_checkpoint.py` kept of it: says which articles were held out.
    :param source: SQuAD JSON that it was trained on.
    :raises DataError: if it held out fewer articles, or others of this file, or the folder exists.
    :raises InputError: if the adaptation part has fewer answered questions than are to be labelled.
    """
    squad = read_squad(source)
    heldout = held_out(checkpoint, squad, source).articles
    if len(heldout.articles) < articles:
        raise DataError(f"{checkpoint} held out {len(heldout.articles)} articles of this file, {articles} are needed")
    chosen = replace(heldout, articles=heldout.articles[:articles])
    adaptation = _with_paragraphs(chosen, lambda article: article.paragraphs[: len(article.paragraphs) // 2])
    test = _with_paragraphs(chosen, lambda article: article.paragraphs[len(article.paragraphs) // 2 :])
    few = sample_questions(adaptation, labels, seed)
    kept = {question.id for _, _, question in few.items()}
    if len(kept) < labels:
        raise InputError(f"{len(kept)} questions have an answer, {labels} are to be labelled: ask for fewer")
    parts = {
        "questions.json": _asked(adaptation, lambda question: True, frozenset()),
        "labelled.json": _asked(adaptation, lambda question: True, frozenset(kept)),
        "few.json": few,
        "rest.json": _asked(adaptation, lambda question: question.id not in kept, frozenset()),
        "test.json": test,
        "other.json": sample_questions(dev, OTHERS, seed),
    }
    with atomic_folder(output) as folder:
        for name, part in parts.items():
            write_squad(folder / name, part)
        words = count_words_of_text(folder / "questions.json", Tokenizer.load(checkpoint / TOKENIZER))
        atomic_write(folder / "words.txt", "\n".join(word for word in words if word.strip()) + "\n")
    return {name: sum(1 for _ in part.items()) for name, part in parts.items()}


def _with_paragraphs(squad: Squad, choose: Callable[[Article], tuple[Paragraph, ...]]) -> Squad:
    return replace(squad, articles=tuple(replace(article, paragraphs=choose(article)) for article in squad.articles))


def _asked(squad: Squad, wanted: Callable[[Question], bool], answered: frozenset[str]) -> Squad:
    """The wanted questions, of which only some keep their answers."""

    def questions(paragraph: Paragraph) -> tuple[Question, ...]:
        found = filter(wanted, paragraph.questions)
        return tuple(one if one.id in answered else replace(one, answers=()) for one in found)

    return _with_paragraphs(
        squad,
        lambda article: tuple(replace(paragraph, questions=questions(paragraph)) for paragraph in article.paragraphs),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--squad", type=Path, required=True, help="SQuAD JSON that the checkpoint was trained on")
    parser.add_argument("--dev", type=Path, required=True, help="SQuAD JSON of other questions")
    parser.add_argument("--checkpoint", type=Path, required=True, help="run or kept checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--articles", type=int, default=ARTICLES, help="articles of the domain (%(default)s)")
    parser.add_argument("--labels", type=int, default=LABELS, help="questions that keep their answers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which questions these are (%(default)s)")
    arguments = parser.parse_args(argv)
    for name, least in (("articles", 1), ("labels", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} is {getattr(arguments, name)}, expected a whole number from {least}")
    try:
        dev = read_squad(arguments.dev)
        given = {"articles": arguments.articles, "labels": arguments.labels, "seed": arguments.seed}
        counts = cut_domain(arguments.squad, dev, arguments.checkpoint, arguments.output, **given)
    except QaEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for name, count in counts.items():
        sys.stdout.write(f"{arguments.output / name}: {count:,} questions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
