"""A trained student that reads text: tokenise, look up, run in batches, decode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qa_edge.batches import build_batch, moved
from qa_edge.checkpoint import load_student
from qa_edge.features import TOKENIZER, VECTORS, VOCABULARY, word_vectors
from qa_edge.progress import progress
from qa_edge.squad import Squad, references
from qa_edge_runtime.answers import decode_answers
from qa_edge_runtime.errors import DataError
from qa_edge_runtime.lexical import window_priors
from qa_edge_runtime.scoring import Scores, score_predictions
from qa_edge_runtime.tokenizer import Tokenizer
from qa_edge_runtime.tokens import Tokens
from qa_edge_runtime.vocabulary import Vocabulary
from qa_edge_runtime.windows import Windows, merge_logits

if TYPE_CHECKING:
    from qa_edge.student.qanet import QANet

BATCH_TOKENS = 8192


class TrainedStudent:
    """A student with the tokenizer, vocabulary and vectors that it was trained with.

    :param vectors: by word id, float16, shape (words + 1, word_dim).
    """

    def __init__(
        self, model: QANet, tokenizer: Tokenizer, vocabulary: Vocabulary, vectors: NDArray[np.float16]
    ) -> None:
        self.model, self.tokenizer, self.vocabulary, self.vectors = model, tokenizer, vocabulary, vectors

    @classmethod
    def load(cls, run: str | Path) -> TrainedStudent:
        """Read a run's folder, or a checkpoint with its vocabulary, vectors and tokenizer beside it.

        :raises DataError: if a part is missing or does not fit.
        """
        run = Path(run)
        model = load_student(run)
        tokenizer, vocabulary, vectors = read_inputs(run)
        found = (vectors.shape[1], vocabulary.character_rows)
        expected = (model.config.word_dim, model.config.characters)
        if found != expected:
            raise DataError(
                f"{run} is no checkpoint of one run: its vectors have {found[0]} numbers a word and its vocabulary "
                f"{found[1]} character ids, its config expects {expected[0]} and {expected[1]}"
            )
        return cls(model, tokenizer, vocabulary, vectors)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Start and end logits over the context tokens of each (question, context), float32."""
        contexts = {context: self.tokenizer(context) for _, context in pairs}
        return self._logits([(self.tokenizer(question), contexts[context]) for question, context in pairs])

    def predict(self, squad: Squad, *, description: str = "evaluate") -> dict[str, str]:
        """The answer to every question of a data set, by question id."""
        items = [(paragraph.context, question) for _, paragraph, question in squad.items()]
        contexts = {context: self.tokenizer(context) for context, _ in items}
        order = sorted(range(len(items)), key=lambda i: len(contexts[items[i][0]]))
        predictions: dict[str, str] = {}
        with progress(description, len(items)) as advance:
            for first in range(0, len(order), 512):
                part = [items[i] for i in order[first : first + 512]]
                logits = self._logits([(self.tokenizer(q.text), contexts[c]) for c, q in part])
                for (context, question), (start, end) in zip(part, logits, strict=True):
                    predictions[question.id] = self._text(context, contexts[context], start, end)
                advance(len(part))
        return predictions

    def evaluate(self, squad: Squad, *, description: str = "evaluate") -> Scores:
        """Official EM and F1 over every answerable question of a data set."""
        return score_predictions(references(squad), self.predict(squad, description=description))

    def _text(self, context: str, tokens: Tokens, start: NDArray[np.float32], end: NDArray[np.float32]) -> str:
        answers = decode_answers(context, tokens, start, end, self.model.config.max_answer_tokens)
        return answers[0].text if answers else ""

    def _logits(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Start and end logits of (question, context) tokens; a long context is read in windows, as on the device."""
        plans = [Windows().cut(len(context)) for _, context in pairs]
        rows = [
            (question, context[window.start : window.stop])
            for (question, context), plan in zip(pairs, plans, strict=True)
            for window in plan
        ]
        parts = iter(self._run(rows))
        merged = [
            merge_logits(
                plan,
                [next(parts) for _ in plan],
                len(context),
                window_priors(context.texts, question.texts, plan),
            )
            for (question, context), plan in zip(pairs, plans, strict=True)
        ]
        return [(both[0], both[1]) for both in merged]

    def _run(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[NDArray[np.float32]]:
        """Logits of (question, context) tokens, each float32, shape (2, context tokens)."""
        import torch

        known: dict[str, int] = {}
        numbers = [
            tuple(
                np.asarray([known.setdefault(text, len(known)) for text in tokens.texts], np.int32) for tokens in pair
            )
            for pair in pairs
        ]
        forms = list(known)
        words = self.vocabulary.word_ids(forms).astype(np.int32)
        characters = self.vocabulary.character_ids(forms, self.model.config.characters_per_word).astype(np.int32)
        order = sorted(range(len(pairs)), key=lambda i: len(numbers[i][1]))
        results = [np.empty((2, 0), np.float32)] * len(pairs)
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            while order:
                longest = len(numbers[order[-1]][1])
                rows = order[-max(1, BATCH_TOKENS // max(longest, 1)) :]
                del order[-len(rows) :]
                batch = build_batch(
                    [numbers[i][1] for i in rows], [numbers[i][0] for i in rows], words, characters, self.vectors
                )
                output = self.model(moved(batch, device)).float().cpu().numpy()
                for place, i in enumerate(rows):
                    results[i] = output[place, :, : len(numbers[i][1])].copy()
        self.model.train(training)
        return results


def read_inputs(folder: Path) -> tuple[Tokenizer, Vocabulary, NDArray[np.float16]]:
    """Tokenizer, vocabulary and vectors of a run's or a features folder.

    :raises DataError: if one cannot be read, or the vectors are not those of the vocabulary.
    """
    tokenizer, vocabulary = Tokenizer.load(folder / TOKENIZER), Vocabulary.load(folder / VOCABULARY)
    vectors = word_vectors(folder)
    if len(vectors) != vocabulary.word_rows:
        raise DataError(
            f"{folder / VECTORS} has {len(vectors)} rows, and {VOCABULARY} expects {vocabulary.word_rows}; the files"
            " are of different runs"
        )
    return tokenizer, vocabulary, vectors
