"""More questions of the same texts, written by rule, for a teacher to answer.

A teacher's word on a question is worth nearly as much to a student as an answer (docs/experiments/015), and a question
need be neither good nor answerable for that. Three kinds: a question of the data with some of its words replaced by
others near them, a sentence of the text with a gap, and a question of another text of the article.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence, Set
from dataclasses import replace
from random import Random

from qa_edge.near_words import WORD, NearWords
from qa_edge.squad import Article, Paragraph, Question, Squad
from qa_edge_runtime.errors import DataError, InputError

GAPS = 0.35
OTHERS = 0.15
"""Shares of sentences with a gap and of questions of another text; the rest are a text's own, with words replaced."""
REPLACED = 0.3
"""Share of the words of a question that are replaced, of those that have neighbours; half of it in sentences."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_NAME = re.compile(r"\b[A-Z][\w'’.-]*[\w](?:\s+(?:(?:of|the|de|and)\s+)?[A-Z][\w'’.-]*[\w])*")
_NUMBER = re.compile(r"(?:[$€£])?\b\d[\d,.]*\d?\b(?:\s?(?:%|percent|million|billion|miles|km|years))?")
_PHRASE = re.compile(r"\b(?:the|a|an|its|their|his|her)\s+(?:[a-z-]+\s+){0,2}[a-z-]{3,}(?:\s+of\s+(?:the\s+)?[\w-]+)?")
_WORDS = re.compile(r"\b[a-z-]{4,}(?:\s+[a-z-]{4,}){0,2}")
_GAPS = (("name", _NAME), ("number", _NUMBER), ("phrase", _PHRASE), ("words", _WORDS))
_YEAR = re.compile(r"1[0-9]{3}|20[0-2][0-9]")
_PLACE = re.compile(r"\b(?:in|at|from|near|to)$")
_TRIES = 8


def with_more_questions(
    squad: Squad, vectors: str | os.PathLike[str], *, bare_texts: int = 5, seed: int = 0
) -> tuple[Squad, dict[str, int]]:
    """The data, each text with as many questions more as it has, without answers; and how many there are of each kind.

    :param vectors: GloVe text; see `NearWords`.
    :param bare_texts: questions for a text that has none: sentences with a gap alone.
    :raises DataError: if no question could be written, or the data have those of this seed; or as `read_vectors`.
    :raises InputError: if `bare_texts` is negative.
    """
    if bare_texts < 0:
        raise InputError(f"bare_texts is {bare_texts}, expected a number of questions, 0 or more")
    words: dict[str, None] = {}
    for _, paragraph in squad.paragraphs():
        texts = [question.text for question in paragraph.questions] or [paragraph.context]
        words.update(dict.fromkeys(word.lower() for text in texts for word in WORD.findall(text)))
    ids = {question.id for _, paragraph in squad.paragraphs() for question in paragraph.questions}
    writer = _Writer(NearWords(vectors, words), ids, bare_texts, seed)
    articles = tuple(writer.article(article, number) for number, article in enumerate(squad.articles))
    if not sum(writer.count.values()):
        raise DataError(
            "no question could be written: no text has a question, and bare_texts is 0; ask for some"
            if not bare_texts
            else "no question could be written: the texts have no sentence of five words or more"
        )
    return Squad(articles=articles, version=squad.version), writer.count


class _Writer:
    """Writes the questions of one file, text after text, by one source of chance."""

    def __init__(self, near: NearWords, ids: Set[str], bare_texts: int, seed: int) -> None:
        self.near, self.ids, self.bare_texts, self.seed = near, ids, bare_texts, seed
        self.source = Random(seed)
        self.count = {"replaced": 0, "gap": 0, "other": 0}

    def article(self, article: Article, number: int) -> Article:
        every = [question.text for paragraph in article.paragraphs for question in paragraph.questions]
        paragraphs = []
        for place, paragraph in enumerate(article.paragraphs):
            new = self.beside(paragraph, every) if paragraph.questions else self.bare(paragraph, f"{number}-{place}")
            paragraphs.append(replace(paragraph, questions=(*paragraph.questions, *new)))
        return replace(article, paragraphs=tuple(paragraphs))

    def beside(self, paragraph: Paragraph, every: Sequence[str]) -> list[Question]:
        """One question more for each of a text's own."""
        new = []
        for own in paragraph.questions:
            draw, text, kind = self.source.random(), None, "replaced"
            if draw < GAPS:
                text, kind = self.gap(paragraph.context), "gap"
            elif draw < GAPS + OTHERS:
                text, kind = self.source.choice(every), "other"
            if not text or text == own.text:
                text, kind = self.replaced(own.text), "replaced"
            new.append(self.question(kind, text, own.id))
        return new

    def bare(self, paragraph: Paragraph, place: str) -> list[Question]:
        """Questions for a text that has none."""
        texts = dict.fromkeys(self.gap(paragraph.context) for _ in range(self.bare_texts))
        return [self.question("gap", text, f"{place}-{number}") for number, text in enumerate(texts) if text]

    def question(self, kind: str, text: str, of: str) -> Question:
        self.count[kind] += 1
        new = f"{kind}-{self.seed}-{of}"
        if new in self.ids:
            raise DataError(
                f"question {new} is in the data already, written with seed {self.seed}: "
                "name the data as they were before, or another seed"
            )
        return Question(id=new, text=text)

    def near_words(self, text: str, share: float) -> tuple[str, int]:
        """A text with a share of its words replaced by others near them, and how many were."""
        changed = 0

        def one(match: re.Match[str]) -> str:
            nonlocal changed
            word = match.group()
            if word in self.near and self.source.random() < share:
                changed += 1
                return self.near.draw(word, self.source)
            return word

        return WORD.sub(one, text), changed

    def replaced(self, question: str) -> str:
        """A question with other words, and sometimes a word less."""
        for _ in range(4):
            text, changed = self.near_words(question, REPLACED)
            if changed:
                break
        words = text.split()
        if len(words) > 5 and self.source.random() < 0.3:
            del words[self.source.randrange(1, len(words) - 1)]
        return " ".join(words) or question

    def gap(self, context: str) -> str | None:
        """A sentence of a text with a question word in place of a name, a number or a phrase; None where none fits."""
        sentences = [one for one in _SENTENCE_END.split(context) if 5 <= len(one.split()) <= 60]
        for _ in range(_TRIES if sentences else 0):
            sentence = self.source.choice(sentences)
            kind, pattern = self.source.choices(_GAPS, (4, 3, 3, 1))[0]
            spans = [
                match.span()
                for match in pattern.finditer(sentence)
                # A capital at the beginning of a sentence makes no name.
                if not (kind == "name" and match.start() == 0 and " " not in match.group())
            ]
            if not spans:
                continue
            start, end = self.source.choice(spans)
            if len(sentence[start:end].split()) > 8:
                continue
            left, asked = self.question_word(kind, sentence[start:end], sentence[:start].rstrip())
            before, after = self.around(left.split(), sentence[end:].strip().rstrip(".!?;,\"')").split())
            if len(before) + len(after) < 3:
                continue
            text = self.asking(asked, self.thinned(before), self.thinned(after)).strip(" ,;:-")
            text = f"{text[0].upper()}{text[1:]}?"
            if len(text) > 15:
                return text
        return None

    def question_word(self, kind: str, gap: str, left: str) -> tuple[str, str]:
        """What asks for a gap, and what stands before it, without the preposition that the question word takes in."""
        place = bool(_PLACE.search(left)) and kind == "name"
        person = kind == "name" and self.source.random() < 0.5
        if kind == "number" and _YEAR.fullmatch(gap):
            asked = self.source.choice(("what year", "when", "which year"))
            if asked == "when":
                left = re.sub(r"\b(in|by|since|until|of)$", "", left, flags=re.IGNORECASE).rstrip()
        elif kind == "number":
            asked = self.source.choice(("how many", "what", "how much", "what number of"))
        elif place:
            asked = self.source.choice(("where", "what", "which place", "what country", "what city"))
        elif person:
            asked = self.source.choice(("who", "whom", "which person", "what"))
        else:
            asked = self.source.choice(("what", "which", "what", "what type of thing"))
        return (_PLACE.sub("", left).rstrip() if asked == "where" else left), asked

    def around(self, before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
        """The clause around a gap, of a length drawn at random."""
        ends = [number for number, word in enumerate(before) if word[-1] in ",;:"]
        if ends and self.source.random() < 0.6:
            before = before[self.source.choice(ends) + 1 :]
        ends = [number for number, word in enumerate(after) if word[-1] in ",;:"]
        if ends and self.source.random() < 0.7:
            after = after[: self.source.choice(ends) + 1]
        return before[-self.source.randint(4, 14) :], after[: self.source.randint(4, 14)]

    def thinned(self, words: list[str]) -> list[str]:
        """Nine words of ten, some of them replaced."""
        kept = [word for word in words if self.source.random() > 0.1]
        return [self.near_words(word, REPLACED / 2)[0] for word in kept]

    def asking(self, asked: str, before: list[str], after: list[str]) -> str:
        """The words in the order of a question, or of the sentence."""
        if before and self.source.random() < 0.6 and len(before) > 1 and before[0][1:].islower():
            before = [before[0][0].lower() + before[0][1:], *before[1:]]
        form = self.source.random()
        if form < 0.45:
            words = [*before, asked, *after]
        elif form >= 0.8:
            words = [self.source.choice(("In", "Of", "By", "With")), asked, *before, *after]
        elif not before or self.source.random() < 0.3:
            words = [asked, *after, *before]
        else:
            words = [asked, self.source.choice(("did", "was", "is", "do", "were", "has")), *before, *after]
        return " ".join(words)
