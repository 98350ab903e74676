"""Whatever reads a question and a text and gives start and end logits: teachers, students and bundles alike."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY
from qa_edge.shards import MANIFEST
from qa_edge.squad import Squad
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import sha256_file
from qa_edge_runtime.passage import QUESTION_TOKENS
from qa_edge_runtime.tokens import Tokens

if TYPE_CHECKING:
    from qa_edge.labels import Labels
    from qa_edge.teacher import Teacher
    from qa_edge.trained import TrainedStudent
    from qa_edge_runtime.answerer import Answerer

TOP_ANSWERS = 5
MAX_TOKENS = 30
# A logit of tokens at which no answer starts or ends: finite, as the decoder asks, and without any probability.
_NEVER = -1e30
_RUN_FILES = ("config.json", "model.safetensors", VOCABULARY, VECTORS, TOKENIZER)

Logits = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedLogits:
    """Logits of a context's tokens, and which characters each token covers.

    :param start: start logits, float32, shape (tokens,), and `end` the end logits.
    :param first: first character of each token, integers, ascending, the same shape.
    :param behind: character behind the last of each, the same.
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    first: NDArray[np.int32]
    behind: NDArray[np.int32]


class SpanReader(Protocol):
    """The one thing that active learning asks of a model."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Logits]:
        """Start and end logits of each (question, context), two arrays of shape (context tokens,), any tokens."""
        ...


def answer_probabilities(
    reader: SpanReader, pairs: Sequence[tuple[str, str]], *, top: int = TOP_ANSWERS
) -> NDArray[np.float64]:
    """Probabilities of the best answers to each question, by the product's own decoder.

    An answer's probability is the softmax of start plus end logit over all valid spans of the context, those of at most
    30 tokens, or as many as the reader's `max_answer_tokens` says; see `decode_spans`.

    :returns: best first, float64, shape (questions, top); zeros where a context has fewer answers.
    :raises InputError: if the reader has no method `logits`, or gives something else than logits.
    """
    if not callable(getattr(reader, "logits", None)):
        raise InputError(
            f"model {type(reader).__name__} gives no start and end logits: expected a method logits(pairs), "
            "as qa_edge.active.readers.SpanReader has it"
        )
    found = list(reader.logits(pairs))
    if len(found) != len(pairs) or any(not isinstance(one, (tuple, list)) or len(one) != 2 for one in found):
        raise InputError(
            f"model {type(reader).__name__} gave {len(found)} results for {len(pairs)} questions, "
            "expected start and end logits of each"
        )
    return span_probabilities(found, longest=int(getattr(reader, "max_answer_tokens", MAX_TOKENS)), top=top)


def span_probabilities(logits: Sequence[Logits], *, longest: int, top: int = TOP_ANSWERS) -> NDArray[np.float64]:
    """Probabilities of the best answers by their start and end logits; see `answer_probabilities`."""
    probabilities = np.zeros((len(logits), top))
    for row, (start, end) in enumerate(logits):
        # Of a text in which the model's tokenizer sees nothing there is no answer.
        if len(start):
            spans = decode_spans(start, end, max_tokens=longest, top_k=top)
            probabilities[row, : len(spans)] = [span.probability for span in spans]
    return probabilities


class PlacedReader(ABC):
    """A reader that knows its tokens' characters, so that it can be compared with another.

    :ivar kind: what it reads with, `sha256` of all that decides its logits.
    """

    kind: str
    sha256: str
    max_answer_tokens: int = MAX_TOKENS

    @abstractmethod
    def placed(self, pairs: Sequence[tuple[str, str]]) -> list[PlacedLogits]:
        """Logits of each (question, context) with their tokens' characters."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[Logits]:
        """The logits alone."""
        return [(one.start, one.end) for one in self.placed(pairs)]


class StudentReader(PlacedReader):
    """A trained student through torch: spaCy tokens, at those of white space no answer starts or ends."""

    kind = "run"

    def __init__(self, student: TrainedStudent, *, sha256: str = "") -> None:
        self.student, self.sha256 = student, sha256
        self.max_answer_tokens = student.model.config.max_answer_tokens

    def placed(self, pairs: Sequence[tuple[str, str]]) -> list[PlacedLogits]:
        """See `PlacedReader`."""
        contexts = {context: self.student.tokenizer(context) for _, context in pairs}
        found = self.student.logits(pairs)
        return [_edges(contexts[context], *both) for (_, context), both in zip(pairs, found, strict=True)]


class TeacherReader(PlacedReader):
    """A question answerer of the Hugging Face ecosystem: word pieces, merged over windows.

    :param precision: "bf16", "fp16" or "fp32" of the matrix products.
    """

    kind = "teacher"

    def __init__(
        self, teacher: Teacher, *, precision: str = "fp32", batch_tokens: int = 6144, sha256: str = ""
    ) -> None:
        self.teacher, self.precision, self.batch_tokens, self.sha256 = teacher, precision, batch_tokens, sha256

    def placed(self, pairs: Sequence[tuple[str, str]]) -> list[PlacedLogits]:
        """See `PlacedReader`."""
        questions, contexts = [question for question, _ in pairs], [context for _, context in pairs]
        found = self.teacher.logits(questions, contexts, batch_tokens=self.batch_tokens, precision=self.precision)
        return [
            PlacedLogits(start=one.start, end=one.end, first=one.pieces.starts, behind=one.pieces.ends) for one in found
        ]


class LabelReader(PlacedReader):
    """A teacher's logits that `label` has stored: word pieces, nothing is computed.

    :param squad: the data set that the labels were made from.
    :raises DataError: if they were made from another.
    """

    kind = "labels"

    def __init__(self, labels: Labels, squad: Squad) -> None:
        labels.require(squad.sha256)
        self.labels, self.sha256 = labels, sha256_file(labels.folder / MANIFEST)
        self._numbers: dict[tuple[str, str], tuple[int, int]] = {}
        question_number = 0
        for context_number, (_, paragraph) in enumerate(squad.paragraphs()):
            for question in paragraph.questions:
                if not question.impossible:
                    self._numbers[question.text, paragraph.context] = question_number, context_number
                    question_number += 1

    def placed(self, pairs: Sequence[tuple[str, str]]) -> list[PlacedLogits]:
        """See `PlacedReader`.

        :raises DataError: if a question is not of the data set.
        """
        found = []
        for pair in pairs:
            if pair not in self._numbers:
                raise DataError(f"labels {self.labels.folder} have no question {pair[0][:60]!r}: label this data set")
            question, context = self._numbers[pair]
            pieces = self.labels.pieces(context)
            start, end = (logits.astype(np.float32) for logits in self.labels.logits(question))
            found.append(PlacedLogits(start=start, end=end, first=pieces.starts, behind=pieces.ends))
        return found


class BundleReader(PlacedReader):
    """A bundle through the device runtime: the fastest, without torch."""

    kind = "bundle"

    def __init__(self, answerer: Answerer, *, sha256: str = "") -> None:
        self.answerer, self.sha256 = answerer, sha256
        self.max_answer_tokens = answerer.bundle.manifest.max_answer_tokens

    def placed(self, pairs: Sequence[tuple[str, str]]) -> list[PlacedLogits]:
        """See `PlacedReader`; a context that several questions in a row ask about is read once."""
        results: list[PlacedLogits] = []
        passage = None
        for question, context in pairs:
            if passage is None or passage.text != context:
                passage = self.answerer.read(context)
            found = passage.logits(question)
            results.append(_edges(found.tokens, found.start, found.end))
        return results


def open_reader(
    path: str,
    *,
    device: str | None = None,
    precision: str = "auto",
    batch_tokens: int = 6144,
    window: int = 384,
    stride: int = 128,
    engine: str | None = None,
    threads: int = 1,
) -> PlacedReader:
    """A bundle, a run's folder, or a teacher by folder or name on the hub; `sha256` is of all that decides its logits.

    :param device: where a run or a teacher computes; None lets accelerate choose.
    :param precision: of a teacher: "bf16", "fp16", "fp32" or "auto", what the device multiplies fastest.
    :param window: pieces that a teacher reads at once; neighbours overlap by `stride`.
    :param engine: of a bundle, and `threads`.
    :raises DataError: if it is none of these, or gives no start and end logits.
    """
    from qa_edge.evaluate import model_kind

    # A name of the hub is no path that exists.
    kind = model_kind(path) if Path(path).exists() else "teacher"
    if kind == "bundle":
        from qa_edge_runtime.answerer import Answerer

        answerer = Answerer.load(path, engine=engine, threads=threads)
        parts = (answerer.bundle.manifest.files, answerer.engine_name, answerer.precision)
        return BundleReader(answerer, sha256=_digest(parts))
    if device is None:
        from qa_edge.accelerator import open_processes

        device = str(open_processes().device)
    from qa_edge.hub import fast_precision, require_device

    if kind == "run":
        from qa_edge.trained import TrainedStudent

        require_device(device)
        student = TrainedStudent.load(path)
        student.model.to(device)
        return StudentReader(student, sha256=_digest([sha256_file(Path(path) / name) for name in _RUN_FILES]))
    from qa_edge.teacher import PRECISIONS, Teacher

    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}, expected auto, {', '.join(PRECISIONS)}")
    teacher = Teacher.load(path, device=device, window=window, stride=stride)
    chosen = fast_precision(teacher.device.type) if precision == "auto" else precision
    hashes = (teacher.sha256(), teacher.config_sha256(), teacher.tokenizer_sha256(), chosen, window, stride)
    return TeacherReader(teacher, precision=chosen, batch_tokens=batch_tokens, sha256=_digest(hashes))


def check_pairs(reader: PlacedReader, pairs: Sequence[tuple[str, str]]) -> None:
    """Look for what the model cannot read before the work begins.

    :raises DataError: if a question leaves a teacher no room for its context, or is longer than a bundle takes.
    """
    if isinstance(reader, TeacherReader):
        reader.teacher.check_questions(question for question, _ in pairs)
    elif isinstance(reader, BundleReader):
        tokenizer = reader.answerer.bundle.tokenizer()
        # A token is a character at least.
        for question in dict.fromkeys(question for question, _ in pairs if len(question) > QUESTION_TOKENS):
            count = len(tokenizer(question))
            if count > QUESTION_TOKENS:
                raise DataError(
                    f"question {question[:60]!r} has {count} tokens, a bundle reads {QUESTION_TOKENS} at most; shorten"
                    " it or take it out"
                )


def _digest(parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _edges(tokens: Tokens, start: NDArray[np.float32], end: NDArray[np.float32]) -> PlacedLogits:
    """The logits with none where no answer may start or end: at tokens of white space, as `decode_answers` has it."""
    space = np.array([text.isspace() for text in tokens.texts], bool)
    if len(space) != len(start):
        raise DataError(f"{len(start)} logits of {len(space)} tokens: expected one a token")
    never = np.float32(_NEVER)
    return PlacedLogits(
        start=np.where(space, never, start),
        end=np.where(space, never, end),
        first=np.asarray(tokens.starts, np.int32),
        behind=np.asarray(tokens.ends, np.int32),
    )
