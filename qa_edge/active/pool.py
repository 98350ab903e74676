"""The pool: questions that nobody has answered yet, read from SQuAD JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qa_edge.squad import Squad, read_squad
from qa_edge_runtime.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Unlabelled questions in file order, with the file that they are of.

    :param squad: the whole file.
    :param labelled: questions of the file that have an answer or are marked impossible, as (context, question).
    """

    path: Path
    squad: Squad
    ids: Sequence[str]
    questions: Sequence[str]
    contexts: Sequence[str]
    labelled: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes."""
        return self.squad.sha256


def read_pool(path: str | Path, *, skip_labelled: bool = False) -> Pool:
    """Read the unlabelled questions of a SQuAD file.

    :param skip_labelled: leave out questions that have an answer; they are refused otherwise.
    :raises DataError: if no unlabelled question is there, or a labelled one is and is not to be left out.
    """
    squad = read_squad(path)
    items = list(squad.items(impossible=True))
    labelled = [(paragraph.context, question) for _, paragraph, question in items if not question.unlabelled]
    if labelled and not skip_labelled:
        raise DataError(
            f"{path} has {len(labelled):,} labelled questions of {len(items):,} (the first is "
            f"{labelled[0][1].id!r:.60}); a pool has none: take them out, or pass --skip-labelled"
        )
    open_items = [(paragraph.context, question) for _, paragraph, question in items if question.unlabelled]
    if not open_items:
        what = f"all {len(items):,} questions are labelled" if items else "it has no question"
        raise DataError(f"{path} is an empty pool: {what}; expected SQuAD JSON with questions without answers")
    return Pool(
        path=Path(path),
        squad=squad,
        ids=[question.id for _, question in open_items],
        questions=[question.text for _, question in open_items],
        contexts=[context for context, _ in open_items],
        labelled=[(context, question.text) for context, question in labelled],
    )


def part_of(squad: Squad, ids: Collection[str]) -> Squad:
    """The questions of some ids with their contexts and articles, in file order; others' contexts are left out."""
    wanted = set(ids)
    articles = []
    for article in squad.articles:
        paragraphs = [
            replace(paragraph, questions=tuple(one for one in paragraph.questions if one.id in wanted))
            for paragraph in article.paragraphs
        ]
        kept = tuple(paragraph for paragraph in paragraphs if paragraph.questions)
        if kept:
            articles.append(replace(article, paragraphs=kept))
    return replace(squad, articles=tuple(articles), sha256="")
