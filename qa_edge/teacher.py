"""The teacher: an extractive question answerer of the Hugging Face ecosystem, read over whole contexts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qa_edge.hub import first_line, quiet, require_device, require_model_folder
from qa_edge_runtime.errors import DataError, InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

# Padded lengths are multiples of this, so that a backend that compiles a kernel a shape meets few shapes.
LENGTH_STEP = 32
CHECKED_QUESTIONS = 8192
PRECISIONS = ("bf16", "fp16", "fp32")
# What a config tells of the file that it was read from, and of how.
_NOT_OF_THE_MODEL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The teacher's pieces of one context: half-open character ranges, int32, shape (pieces,)."""

    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TeacherLogits:
    """Raw logits of one question over all pieces of its context, float32, shape (pieces,)."""

    pieces: Pieces
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Window:
    """One encoded window: its ids, and the range of the context's pieces that it holds."""

    question: int
    ids: list[int]
    types: list[int] | None
    first_position: int
    first_piece: int
    pieces: int


class Encoded(Protocol):
    """A window's pieces, and which of its two texts each is of, where the model asks for that."""

    @property
    def ids(self) -> list[int] | np.ndarray:
        """Of the pieces, question and special ones included."""
        ...

    @property
    def types(self) -> list[int] | np.ndarray | None:
        """0 for the question's pieces, 1 for the context's."""
        ...


class Teacher:
    """An AutoModelForQuestionAnswering with its fast tokenizer.

    :param window: pieces in a window, question and special pieces included.
    :param stride: pieces by which neighbouring windows overlap.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, window: int = 384, stride: int = 128) -> None:
        limit = min(getattr(model.config, "max_position_embeddings", window) or window, tokenizer.model_max_length)
        if not 0 < stride < window or window > limit:
            raise InputError(
                f"window {window} with stride {stride} does not fit a teacher that reads {limit} pieces: take a "
                f"--window of at most {limit} and a smaller --stride (of qa-edge label, for distill --labels)"
            )
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.window, self.stride = window, stride
        # At least one piece of the context must be new in each window.
        self._question_room = window - tokenizer.num_special_tokens_to_add(pair=True) - stride - 1
        if self._question_room < 1:
            raise InputError(f"window {window} with stride {stride} leaves no room for a question: lower the stride")

    @classmethod
    def load(
        cls,
        name_or_folder: str,
        *,
        device: str = "cpu",
        window: int = 384,
        stride: int = 128,
        new_head: bool = False,
    ) -> Teacher:
        """Read a teacher from the hub or from a folder.

        :param new_head: an encoder without a question-answering head gets a random one, to be fine-tuned.
        :raises DataError: if it cannot be found, is not a question answerer, or has no fast tokenizer.
        :raises InputError: if the device cannot be used.
        """
        try:
            from transformers import AutoModelForQuestionAnswering, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError('a teacher needs: pip install "qa-edge[train]"') from error
        import torch

        require_device(device)
        if ("/" in name_or_folder or "." in name_or_folder) and Path(name_or_folder).parent.exists():
            require_model_folder(name_or_folder)
        try:
            with quiet():
                model, report = AutoModelForQuestionAnswering.from_pretrained(
                    name_or_folder, output_loading_info=True, dtype=torch.float32
                )
                tokenizer = AutoTokenizer.from_pretrained(name_or_folder)
        except Exception as error:  # a damaged file raises what its reader likes: tokenizers a bare Exception
            reason = first_line(error)
            raise DataError(
                f"teacher {name_or_folder} could not be loaded ({reason}); "
                "give a folder, or the name of a question-answering model while its hub can be reached"
            ) from error
        missing = sorted(key for key in report["missing_keys"] if "qa_outputs" in key or "classifier" in key)
        if missing and not new_head:
            raise DataError(
                f"teacher {name_or_folder} has no trained question-answering head ({missing[0]} is missing); "
                "fine-tune it first: qa-edge teach"
            )
        if not tokenizer.is_fast:
            raise DataError(f"teacher {name_or_folder} has no fast tokenizer; character offsets need one")
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where the files are missing
            raise DataError(f"teacher {name_or_folder} has no tokenizer (its files are missing); copy the whole folder")
        return cls(model.to(device).eval(), tokenizer, name=name_or_folder, window=window, stride=stride)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def sha256(self) -> str:
        """Hash of every weight, in order of name; what else decides the logits is in `config_sha256`."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def config_sha256(self) -> str:
        """Hash of the config where it differs from its kind's defaults: activations, heads, kinds of positions."""
        config = self.model.config
        # Settings that another version of transformers adds have their defaults: they are left out.
        usual = type(config)().to_dict()
        kept = {
            name: value
            for name, value in config.to_dict().items()
            if name not in _NOT_OF_THE_MODEL and (name not in usual or usual[name] != value)
        }
        kept["model_type"] = config.model_type
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()

    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's whole definition, without how it was last asked to cut and to pad."""
        from tokenizers import Tokenizer

        definition = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        definition.no_truncation()
        definition.no_padding()
        return hashlib.sha256(definition.to_str().encode()).hexdigest()

    def check_questions(self, questions: Iterable[str]) -> None:
        """Look at the length of every question before the work begins.

        :raises DataError: if one leaves no room for its context.
        """
        distinct = list(dict.fromkeys(questions))
        for first in range(0, len(distinct), CHECKED_QUESTIONS):
            part = distinct[first : first + CHECKED_QUESTIONS]
            encoded = self.tokenizer(part, add_special_tokens=False)["input_ids"]
            for question, pieces in zip(part, encoded, strict=True):
                self._require_room(question, len(pieces))

    def _require_room(self, question: str, pieces: int) -> None:
        if pieces > self._question_room:
            raise DataError(
                f"question {question[:60]!r} has {pieces} pieces, more than the {self._question_room} that leave "
                "room for a context; shorten it or widen the teacher's window"
            )

    def encode(self, questions: Sequence[str], contexts: Sequence[str]) -> tuple[list[Window], list[Pieces]]:
        """Cut each question's context into overlapping windows.

        :returns: all windows, and for each question the pieces of its whole context.
        :raises DataError: if a question leaves no room for its context.
        """
        windows: list[Window] = []
        pieces: list[Pieces] = []
        for index, (question, context) in enumerate(zip(questions, contexts, strict=True)):
            self._require_room(question, len(self.tokenizer(question, add_special_tokens=False)["input_ids"]))
            encoded = self.tokenizer(
                question,
                context,
                truncation="only_second",
                max_length=self.window,
                stride=self.stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            starts: list[int] = []
            ends: list[int] = []
            first_piece = 0
            for part in range(len(encoded["input_ids"])):
                positions = [i for i, sequence in enumerate(encoded.sequence_ids(part)) if sequence == 1]
                offsets = [encoded["offset_mapping"][part][i] for i in positions]
                windows.append(
                    Window(
                        question=index,
                        ids=encoded["input_ids"][part],
                        types=encoded["token_type_ids"][part] if "token_type_ids" in encoded else None,
                        first_position=positions[0] if positions else 0,
                        first_piece=first_piece,
                        pieces=len(positions),
                    )
                )
                fresh = len(starts) - first_piece
                starts.extend(start for start, _ in offsets[fresh:])
                ends.extend(end for _, end in offsets[fresh:])
                first_piece += len(positions) - self.stride
            pieces.append(Pieces(starts=np.asarray(starts, np.int32), ends=np.asarray(ends, np.int32)))
        return windows, pieces

    def logits(
        self, questions: Sequence[str], contexts: Sequence[str], *, batch_tokens: int = 6144, precision: str = "bf16"
    ) -> list[TeacherLogits]:
        """Start and end logits of each question over its whole context.

        A piece that several windows hold takes its logits from the window where it has most context
        (DESIGN: decision 3; the rule of BERT's own run_squad).

        :param batch_tokens: padded tokens in a forward pass.
        :param precision: "bf16", "fp16" or "fp32" for the matrix products.
        """
        read = self.read(questions, contexts, _span_logits, batch_tokens=batch_tokens, precision=precision)
        return [TeacherLogits(pieces=pieces, start=both[:, 0], end=both[:, 1]) for pieces, both in read]

    def read(
        self,
        questions: Sequence[str],
        contexts: Sequence[str],
        take: Callable[[Any], torch.Tensor],
        *,
        batch_tokens: int = 6144,
        precision: str = "bf16",
        **options: bool,
    ) -> list[tuple[Pieces, np.ndarray]]:
        """Numbers of each piece of each question's whole context, merged from its windows as `logits` says.

        :param take: cuts them from the model's output, shape (windows, positions, numbers).
        :param options: of the model's call.
        :returns: the pieces of each question's context and their numbers, float32, shape (pieces, numbers).
        """
        windows, pieces = self.encode(questions, contexts)
        results: dict[int, np.ndarray] = {}
        margins = [np.full(len(p.starts), -1, np.int64) for p in pieces]
        for batch in _batches(windows, batch_tokens):
            taken = self._forward([windows[i] for i in batch], precision, take, options)
            for row, i in enumerate(batch):
                window = windows[i]
                here = slice(window.first_piece, window.first_piece + window.pieces)
                there = slice(window.first_position, window.first_position + window.pieces)
                place = np.arange(window.pieces)
                margin = np.minimum(place, window.pieces - 1 - place)
                better = margin > margins[window.question][here]
                if window.question not in results:
                    shape = (len(pieces[window.question].starts), taken.shape[2])
                    results[window.question] = np.zeros(shape, np.float32)
                results[window.question][here][better] = taken[row, there][better]
                margins[window.question][here] = np.maximum(margin, margins[window.question][here])
        return [(one, results[question]) for question, one in enumerate(pieces)]

    def padded(self, windows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Windows as the model's inputs on its device: int64, each of shape (windows, padded pieces)."""
        import torch

        width = min(padded_width(max(len(window.ids) for window in windows)), self.window)
        ids = torch.full((len(windows), width), self.tokenizer.pad_token_id or 0)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, window in enumerate(windows):
            ids[row, : len(window.ids)] = torch.as_tensor(window.ids)
            mask[row, : len(window.ids)] = 1
            if window.types is not None:
                types[row, : len(window.ids)] = torch.as_tensor(window.types)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if windows[0].types is not None:
            inputs["token_type_ids"] = types
        return {name: value.to(self.device) for name, value in inputs.items()}

    def _forward(
        self, windows: Sequence[Window], precision: str, take: Callable[[Any], torch.Tensor], options: dict[str, bool]
    ) -> np.ndarray:
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[precision]
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            output = self.model(**self.padded(windows), **options)
        with torch.inference_mode():
            taken: np.ndarray = take(output).float().cpu().numpy()
        return taken


def _span_logits(output: Any) -> torch.Tensor:
    import torch

    return torch.stack([output.start_logits, output.end_logits], -1)


def _batches(windows: Sequence[Window], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of windows of like length, padded tokens bounded."""
    order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
    batch: list[int] = []
    for i in order:
        width = padded_width(len(windows[i].ids))
        if batch and width * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded_width(length: int) -> int:
    """Length of a padded window: a backend that prepares a kernel for each shape meets few."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP
