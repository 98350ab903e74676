"""Real questions on real text, cut so that the peers' tokenizer makes exactly so many word pieces of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qa_edge_runtime.errors import DataError, MissingExtraError
from qa_edge_runtime.questions import SquadQuestion, load_squad_questions

# BERT's own vocabulary has so many entries; the models' embedding tables are made for it.
VOCABULARY_SIZE = 30_522
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Text(NamedTuple):
    """A question and a context whose word pieces, with the three marks between them, have the wanted number."""

    question: str
    context: str


class PeerTokenizer:
    """The fast tokenizer that all peers share: BertTokenizerFast's Rust half, called without its Python wrapper.

    The wrapper would only add to the peers' time.

    :param path: a `tokenizer.json` of a BERT tokenizer.
    :param corpus: text to train a WordPiece vocabulary on, if there is no such file.
    :raises MissingExtraError: if `tokenizers` is missing.
    :raises DataError: if the file is not a BERT tokenizer of at most 30,522 pieces.
    """

    def __init__(self, path: Path | None = None, corpus: Sequence[str] = ()) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError("the peers' fast tokenizer needs: pip install tokenizers") from error
        if path is None:
            self._tokenizer = _train(corpus)
            self.source = f"WordPiece trained on the texts' own file, {self._tokenizer.get_vocab_size():,} pieces"
        else:
            try:
                self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
            except Exception as error:  # tokenizers raises bare exceptions
                raise DataError(f"{path} is not a tokenizer.json that tokenizers reads: {error}") from error
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.source = f"WordPiece of {path.name}, {self._tokenizer.get_vocab_size():,} pieces"
        found = self._tokenizer.encode("one", "two")
        marks = [token for token in found.tokens if token in ("[CLS]", "[SEP]")]
        if marks != ["[CLS]", "[SEP]", "[SEP]"] or self._tokenizer.get_vocab_size() > VOCABULARY_SIZE:
            raise DataError(f"{path} is not the tokenizer of a BERT model with up to {VOCABULARY_SIZE:,} word pieces")
        self.size_bytes = len(self._tokenizer.to_str().encode())

    def __call__(self, question: str, context: str) -> tuple[Any, dict[str, np.ndarray]]:
        """The encoding, and the network's inputs: int64 of shape (1, word pieces)."""
        encoding = self._tokenizer.encode(question, context)
        inputs = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(encoding.ids)), dtype=np.int64),
            "token_type_ids": np.array([encoding.type_ids], dtype=np.int64),
        }
        return encoding, inputs

    @staticmethod
    def context_pieces(encoding: Any) -> tuple[int, int]:
        """Half-open range of the context's word pieces."""
        return encoding.type_ids.index(1), len(encoding.ids) - 1


def _train(corpus: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=list(SPECIALS), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def load_texts(path: Path, tokenizer_file: Path | None) -> tuple[PeerTokenizer, list[SquadQuestion]]:
    """The peers' tokenizer and the questions that the texts are cut from.

    :raises DataError: if the SQuAD file or the tokenizer cannot be used.
    """
    questions = load_squad_questions(path)
    corpus = [*dict.fromkeys(item.context for item in questions), *(item.question for item in questions)]
    return PeerTokenizer(tokenizer_file, corpus), questions


def cut_texts(
    questions: Sequence[SquadQuestion], tokenizer: PeerTokenizer, pieces: int, wanted: int, offset: int = 0
) -> list[Text]:
    """Texts of exactly `pieces` word pieces, marks included, evenly spread over the questions.

    A context that is too short is continued with those that follow it in the file, one that is too long is cut at a
    word border: whether the answer is still inside does not matter to a time.

    :param offset: where in the questions to begin, so that two lengths do not get the same texts.
    :return: `wanted` texts, fewer if the file does not give as many.
    :raises DataError: if there is none at all.
    """
    contexts = list(dict.fromkeys(item.context for item in questions))
    place = {context: index for index, context in enumerate(contexts)}
    step = max(1, len(questions) // (2 * wanted))
    # First the evenly spread ones, then all the others.
    order = [index for first in range(step) for index in range(first, len(questions), step)]
    texts: dict[str, Text] = {}
    for index in order:
        item = questions[(index + offset) % len(questions)]
        if item.context in texts:
            continue
        # A word has a piece at least, and five characters or so: eight a piece are enough, and not a whole book.
        joined, following = item.context, place[item.context] + 1
        while len(joined) < 8 * pieces and following < len(contexts):
            joined, following = f"{joined} {contexts[following]}", following + 1
        cut = _cut(item.question, joined, tokenizer, pieces)
        if cut is not None:
            texts[item.context] = Text(item.question, cut)
            if len(texts) == wanted:
                break
    if not texts:
        raise DataError(f"no question and context of the SQuAD file can be cut to {pieces} word pieces; give more text")
    return list(texts.values())


def _cut(question: str, context: str, tokenizer: PeerTokenizer, pieces: int) -> str | None:
    """The context up to the word border that gives `pieces` in all; None if there is no border just there."""
    encoding, _ = tokenizer(question, context)
    if len(encoding.ids) < pieces or len(encoding.ids) - sum(encoding.type_ids) + 2 >= pieces:
        return None
    # The last piece that is kept stands before the closing mark.
    end = encoding.offsets[pieces - 2][1]
    if end < len(context) and not context[end].isspace():
        return None
    cut = context[:end]
    return cut if len(tokenizer(question, cut)[0].ids) == pieces else None
