"""Static word vectors out of any encoder: each word alone through it, its states reduced by PCA.

What a contextual encoder knows of a word without neighbours is a better start for a student than vectors of another
kind of training, and needs no download of its own (Gupta and Jaggi, 2021; Tulkens and van Dongen, 2024, model2vec).
"""

from __future__ import annotations

import gzip
import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qa_edge.encoder import load_encoder
from qa_edge.progress import progress
from qa_edge.recipe import make_folder
from qa_edge.vectors import read_vectors
from qa_edge.words import count_words_of_text, read_words
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_write
from qa_edge_runtime.tokenizer import Tokenizer

NEEDS = 'static vectors need: pip install "qa-edge[train]"'
# States from so many depths, embeddings and last layer among them: what is known of a word's letters fades with depth.
DEPTHS = 4
# The directions are found on this many entries of the encoder's own vocabulary, so that two lists of words get vectors
# that go together.
BASIS_WORDS = 30_000
# GloVe's numbers have about this size; beside it, or in its place, the student's first layer starts as it was made for.
SIZE = 0.5
BATCH_WORDS = 512
MAX_PIECES = 32


@dataclass(frozen=True, kw_only=True)
class StaticVectors:
    """What was made.

    :param words: each once.
    :param array: their vectors, float32, shape (words, dim).
    :param covered: words that the encoder reads without its unknown piece.
    :param beside: words that the other vectors know; None without others.
    :param variance: share of the states' variance that the kept directions hold, 0 to 1.
    :param seconds: that it took.
    """

    words: tuple[str, ...]
    array: NDArray[np.float32]
    covered: int
    beside: int | None
    variance: float
    seconds: float


def static_vectors(
    encoder: str,
    words: Iterable[str],
    dim: int,
    *,
    counted: Mapping[str, int] | None = None,
    min_count: int = 1,
    beside: str | Path | None = None,
    device: str = "cpu",
) -> StaticVectors:
    """Vectors of words, the mean over a word's pieces of the encoder's states at four depths, reduced by PCA.

    The directions depend on the encoder and `dim` alone, not on the words: vectors made later for more words go
    together with these.

    :param encoder: name or folder of an encoder of the Hugging Face ecosystem; a teacher is one.
    :param words: one that the encoder reads as its lower case is left out, as the lower case is looked up for it.
    :param dim: numbers a word.
    :param counted: further words with how often they occur. Those that occur fewer than `min_count` times are left out,
        unless the vectors beside know them: what to make of a word without a vector is learned from such words.
    :param beside: GloVe-format vectors whose numbers come first in each row; zeros for words that they lack.
    :raises DataError: if the encoder or the other vectors cannot be read, or there is no word.
    :raises InputError: if `dim` is not between 1 and what the encoder's states hold.
    """
    began = time.monotonic()
    counted = {word: count for word, count in (counted or {}).items() if _is_word(word)}
    named = dict.fromkeys(filter(_is_word, words))
    if not named and not counted:
        raise DataError("no words to make vectors of: the files hold none")
    reader = _WordReader(encoder, device)
    if not 1 <= dim <= reader.width:
        raise InputError(f"dim is {dim}, expected 1 to {reader.width}, the numbers that the encoder has of a word")
    other = None if beside is None else read_vectors(beside, {*named, *counted})
    row = {} if other is None else {word: number for number, word in enumerate(other.words)}
    common = (word for word, count in counted.items() if count >= min_count or word in row)
    wanted = tuple(word for word in dict.fromkeys([*named, *common]) if word in row or not reader.folds(word))
    if not wanted:
        raise DataError(f"no word occurs {min_count} times: lower --min-count, or name words")
    basis = _Basis.of(reader, dim)
    array = np.zeros((len(wanted), dim), np.float32)
    with progress("encode words", len(wanted)) as advance:
        for rows, states in reader.states(wanted):
            array[rows] = basis.project(states)
            advance(len(rows))
    known = []
    if other is not None:
        # A word that only its lower case is known of has the numbers of that, as it would without a vector of its own.
        spelled = [word if word in row else word.lower() for word in wanted]
        known = [place for place, word in enumerate(spelled) if word in row]
        first = np.zeros((len(wanted), other.dim), np.float32)
        first[known] = other.array[[row[spelled[place]] for place in known]]
        array = np.concatenate([first, array], 1)
    return StaticVectors(
        words=wanted,
        array=array,
        covered=len(wanted) - reader.unknown(wanted),
        beside=None if other is None else len(known),
        variance=basis.variance,
        seconds=time.monotonic() - began,
    )


def _is_word(text: str) -> bool:
    """Whether a line of a vector file can begin with it."""
    return bool(text) and not any(character.isspace() for character in text)


def words_of_lists(paths: Sequence[str | Path], tokenizer: Tokenizer) -> list[str]:
    """The words of lists, as the student looks them up: as they stand, and in lower case.

    :raises DataError: if a file cannot be read.
    """
    words = (word for path in paths for word in read_words(path, tokenizer))
    return list(dict.fromkeys(spelling for word in words for spelling in (word, word.lower())))


def words_of_squad(paths: Sequence[str | Path], tokenizer: Tokenizer) -> dict[str, int]:
    """The words of SQuAD files, spelled both ways, with how often each occurs in whatever case; frequent ones first.

    :raises DataError: if a file cannot be read.
    """
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(count_words_of_text(path, tokenizer))
    folded: Counter[str] = Counter()
    for word, count in counts.items():
        folded[word.lower()] += count
    spellings = (spelling for word, _ in counts.most_common() for spelling in (word, word.lower()))
    return {spelling: folded[spelling.lower()] for spelling in spellings}


def spacy_words() -> Tokenizer:
    """What cuts texts into the words that a student looks up."""
    from qa_edge.prepare import spacy_tokenizer

    return Tokenizer(spacy_tokenizer()[1])


def write_vectors(path: str | Path, vectors: StaticVectors) -> None:
    """Write vectors as GloVe text, four decimals; compressed if the name ends in .gz. The same bytes again."""
    make_folder(Path(path).parent)
    text = io.BytesIO()
    for word, row in zip(vectors.words, vectors.array, strict=True):
        text.write(f"{word} {' '.join(f'{value:.4f}' for value in row.tolist())}\n".encode())
    compressed = Path(path).suffix == ".gz"
    atomic_write(path, gzip.compress(text.getvalue(), mtime=0) if compressed else text.getvalue())


class _WordReader:
    """Runs words through an encoder, each alone."""

    def __init__(self, name: str, device: str) -> None:
        self.model, self.tokenizer = load_encoder(name, device=device, needs=NEEDS)
        self.device = device
        layers = int(self.model.config.num_hidden_layers)
        self.depths = sorted({round(place * layers / (DEPTHS - 1)) for place in range(DEPTHS)})
        self.hidden = int(self.model.config.hidden_size)
        self.width = len(self.depths) * self.hidden

    def states(self, words: Sequence[str]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Places of some words, and their states, shape (places, width); words of like length together."""
        import torch

        order = sorted(range(len(words)), key=lambda place: len(words[place]))
        for begin in range(0, len(order), BATCH_WORDS):
            places = order[begin : begin + BATCH_WORDS]
            inputs = self.tokenizer(
                [words[place] for place in places],
                padding=True,
                truncation=True,
                max_length=MAX_PIECES,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            own = (1 - inputs.pop("special_tokens_mask")).mul(inputs["attention_mask"]).unsqueeze(-1).to(self.device)
            # In float32: another machine has to make the same vectors, or a checkpoint finds words that it half knows.
            with torch.inference_mode():
                found = self.model(**inputs.to(self.device), output_hidden_states=True).hidden_states
            count = own.sum(1).clamp(min=1)
            mean = torch.cat([(found[depth] * own).sum(1) / count for depth in self.depths], 1)
            yield places, mean.cpu().numpy()

    def folds(self, word: str) -> bool:
        """Whether the encoder reads a word as its lower case, whose vector then does for it."""
        lower = word.lower()
        return word != lower and bool(self.tokenizer.tokenize(word) == self.tokenizer.tokenize(lower))

    def own_words(self) -> list[str]:
        """Whole words of the encoder's vocabulary, in its order, `BASIS_WORDS` at most."""
        tokenizer = self.tokenizer
        special = set(tokenizer.all_special_ids)
        pieces = sorted((number, piece) for piece, number in tokenizer.get_vocab().items() if number not in special)
        plain = (tokenizer.convert_tokens_to_string([piece]).strip() for _, piece in pieces)
        return list(dict.fromkeys(word for word in plain if word and word.isalnum()))[:BASIS_WORDS]

    def unknown(self, words: Sequence[str]) -> int:
        """How many words hold something that the encoder has no piece for."""
        if self.tokenizer.unk_token_id is None:
            return 0
        found = self.tokenizer(list(words), add_special_tokens=False)["input_ids"]
        return sum(self.tokenizer.unk_token_id in pieces or not pieces for pieces in found)


@dataclass(frozen=True, kw_only=True)
class _Basis:
    """Principal directions of states, each depth scaled to the same size before."""

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    variance: float

    @classmethod
    def of(cls, reader: _WordReader, dim: int) -> _Basis:
        """The first `dim` directions over the encoder's own words, scaled so that a coordinate has `SIZE` in the mean.

        :raises DataError: if the encoder's vocabulary has fewer words than `dim`.
        """
        words = reader.own_words()
        if len(words) < dim:
            raise DataError(f"the encoder's vocabulary has {len(words)} words, fewer than the {dim} directions wanted")
        total = np.zeros(reader.width)
        products = np.zeros((reader.width, reader.width))
        with progress("find directions", len(words)) as advance:
            for places, states in reader.states(words):
                exact = states.astype(np.float64)
                total += exact.sum(0)
                products += exact.T @ exact
                advance(len(places))
        mean = total / len(words)
        covariance = products / len(words) - np.outer(mean, mean)
        sizes = np.sqrt(covariance.diagonal().reshape(-1, reader.hidden).mean(1)).clip(1e-12)
        scale = np.repeat(1 / sizes, reader.hidden)
        values, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
        order = np.argsort(-values, kind="stable")[:dim]
        kept = vectors[:, order]
        # A direction's sign is the library's whim: the largest of its numbers is made positive.
        kept = kept * np.sign(kept[np.abs(kept).argmax(0), np.arange(dim)])
        size = np.sqrt(values[order].clip(0).mean()).clip(1e-12)
        return cls(
            mean=mean.astype(np.float32),
            directions=(kept * scale[:, None] * SIZE / size).astype(np.float32),
            variance=float(values[order].sum() / values.sum()),
        )

    def project(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """States to vectors, shape (words, dim)."""
        found: NDArray[np.float32] = np.matmul(states - self.mean, self.directions, dtype=np.float32)
        return found
