"""Whatever reads a question and a text and gives start and end logits: teachers, students and bundles alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY
from qa_edge_runtime.decoder import decode_spans
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import sha256_file
from qa_edge_runtime.tokens import Tokens

if TYPE_CHECKING:
    from qa_edge.teacher import Teacher
    from qa_edge.trained import TrainedStudent
    from qa_edge_runtime.answerer import Answerer

TOP_ANSWERS = 5
MAX_TOKENS = 30
# A logit of tokens at which no answer starts or ends: finite, as the decoder asks, and without any probability.
_NEVER = -1e30
_RUN_FILES = ("config.json", "model.safetensors", VOCABULARY, VECTORS, TOKENIZER)

Logits = tuple[NDArray[np.float32], NDArray[np.float32]]


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
    longest = int(getattr(reader, "max_answer_tokens", MAX_TOKENS))
    found = list(reader.logits(pairs))
    if len(found) != len(pairs) or any(not isinstance(one, (tuple, list)) or len(one) != 2 for one in found):
        raise InputError(
            f"model {type(reader).__name__} gave {len(found)} results for {len(pairs)} questions, "
            "expected start and end logits of each"
        )
    probabilities = np.zeros((len(pairs), top))
    for row, (start, end) in enumerate(found):
        # Of a text in which the model's tokenizer sees nothing there is no answer.
        if len(start):
            spans = decode_spans(start, end, max_tokens=longest, top_k=top)
            probabilities[row, : len(spans)] = [span.probability for span in spans]
    return probabilities


class StudentReader:
    """A trained student through torch."""

    kind = "run"

    def __init__(self, student: TrainedStudent, *, sha256: str = "") -> None:
        self.student, self.sha256 = student, sha256
        self.max_answer_tokens = student.model.config.max_answer_tokens

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[Logits]:
        """Logits of spaCy tokens; no answer starts or ends with one of white space."""
        contexts = {context: self.student.tokenizer(context) for _, context in pairs}
        found = self.student.logits(pairs)
        return [_edges(contexts[context], *both) for (_, context), both in zip(pairs, found, strict=True)]


class TeacherReader:
    """A question answerer of the Hugging Face ecosystem.

    :param precision: "bf16", "fp16" or "fp32" of the matrix products.
    """

    kind = "teacher"

    def __init__(
        self, teacher: Teacher, *, precision: str = "fp32", batch_tokens: int = 6144, sha256: str = ""
    ) -> None:
        self.teacher, self.precision, self.batch_tokens, self.sha256 = teacher, precision, batch_tokens, sha256
        self.max_answer_tokens = MAX_TOKENS

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[Logits]:
        """Logits of word pieces, merged over windows."""
        questions, contexts = [question for question, _ in pairs], [context for _, context in pairs]
        found = self.teacher.logits(questions, contexts, batch_tokens=self.batch_tokens, precision=self.precision)
        return [(one.start, one.end) for one in found]


class BundleReader:
    """A bundle through the device runtime: the fastest, without torch."""

    kind = "bundle"

    def __init__(self, answerer: Answerer, *, sha256: str = "") -> None:
        self.answerer, self.sha256 = answerer, sha256
        self.max_answer_tokens = answerer.bundle.manifest.max_answer_tokens

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[Logits]:
        """Logits of the runtime's tokens; a context that several questions in a row ask about is read once."""
        results: list[Logits] = []
        passage = None
        for question, context in pairs:
            if passage is None or passage.text != context:
                passage = self.answerer.read(context)
            found = passage.logits(question)
            results.append(_edges(found.tokens, found.start, found.end))
        return results


OpenedReader = StudentReader | TeacherReader | BundleReader


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
) -> OpenedReader:
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
        from accelerate import PartialState

        device = str(PartialState().device)
    if kind == "run":
        from qa_edge.trained import TrainedStudent

        student = TrainedStudent.load(path)
        student.model.to(device)
        return StudentReader(student, sha256=_digest([sha256_file(Path(path) / name) for name in _RUN_FILES]))
    from qa_edge.teacher import PRECISIONS, Teacher, fast_precision

    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"precision is {precision!r}, expected auto, {', '.join(PRECISIONS)}")
    teacher = Teacher.load(path, device=device, window=window, stride=stride)
    chosen = fast_precision(teacher.device.type) if precision == "auto" else precision
    hashes = (teacher.sha256(), teacher.config_sha256(), teacher.tokenizer_sha256(), chosen, window, stride)
    return TeacherReader(teacher, precision=chosen, batch_tokens=batch_tokens, sha256=_digest(hashes))


def check_pairs(reader: OpenedReader, pairs: Sequence[tuple[str, str]]) -> None:
    """Look for what the model cannot read before the work begins.

    :raises DataError: if a question leaves a teacher no room for its context.
    """
    if isinstance(reader, TeacherReader):
        reader.teacher.check_questions(question for question, _ in pairs)


def _digest(parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _edges(tokens: Tokens, start: NDArray[np.float32], end: NDArray[np.float32]) -> Logits:
    """The logits with none where no answer may start or end: at tokens of white space, as `decode_answers` has it."""
    space = np.array([text.isspace() for text in tokens.texts], bool)
    if len(space) != len(start):
        raise DataError(f"{len(start)} logits of {len(space)} tokens: expected one a token")
    never = np.float32(_NEVER)
    return np.where(space, never, start), np.where(space, never, end)
