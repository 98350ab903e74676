"""Sentence vectors, k-means, and drawing in proportion to the clusters' sizes (section 4.2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qa_edge.encoder import load_encoder
from qa_edge.progress import progress
from qa_edge.recipe import model_entry
from qa_edge_runtime.errors import InputError, MissingExtraError

NEEDS = 'strategy least-confidence-clusters needs: pip install "qa-edge[train,active]"'
BATCH_SENTENCES = 64


class Encoder(Protocol):
    """Whatever makes sentences vectors."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of sentences, float32, shape (sentences, dim)."""
        ...


class SentenceEncoder:
    """An encoder of the Hugging Face ecosystem: the mean over a sentence's pieces, scaled to length 1.

    This is what all-MiniLM-L6-v2 and its like were trained to do; between vectors of length 1 the Euclidean distance
    of the paper orders as their cosine.

    :param entry: what recipes know the encoder by.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_pieces: int = 256, entry: Mapping[str, str] | None = None
    ) -> None:
        self.model, self.tokenizer, self.max_pieces, self.entry = model, tokenizer, max_pieces, entry

    @classmethod
    def load(cls, name_or_folder: str, *, device: str = "cpu") -> SentenceEncoder:
        """Read an encoder from the hub or from a folder.

        :raises DataError: if it cannot be found or loaded.
        :raises MissingExtraError: if transformers is not installed.
        """
        model, tokenizer = load_encoder(name_or_folder, device=device, noun="sentence encoder", needs=NEEDS)
        limit = min(getattr(model.config, "max_position_embeddings", 256) or 256, tokenizer.model_max_length, 256)
        return cls(model, tokenizer, max_pieces=int(limit), entry=model_entry(name_or_folder))

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of sentences, float32, shape (sentences, dim), each of length 1."""
        import torch

        device = next(self.model.parameters()).device
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        vectors: NDArray[np.float32] = np.zeros((len(sentences), self.model.config.hidden_size), np.float32)
        with torch.inference_mode(), progress("encode questions", len(sentences)) as advance:
            for first in range(0, len(order), BATCH_SENTENCES):
                rows = order[first : first + BATCH_SENTENCES]
                inputs = self.tokenizer(
                    [sentences[i] for i in rows],
                    padding=True,
                    truncation=True,
                    max_length=self.max_pieces,
                    return_tensors="pt",
                ).to(device)
                states = self.model(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"][:, :, None].float()
                mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors[rows] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
                advance(len(rows))
        return vectors


def require_clustering() -> None:
    """Look for scikit-learn before the work begins.

    :raises MissingExtraError: if it is not installed; the message names the extra.
    """
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(NEEDS) from error


def cluster(vectors: NDArray[np.float32], clusters: int, *, seed: int) -> NDArray[np.int64]:
    """Cluster of each vector by k-means with Euclidean distance, ten starts, the best kept.

    :param vectors: float32, shape (questions, dim).
    :param clusters: how many; as many as there are different vectors if those are fewer.
    :returns: numbers from 0, shape (questions,).
    :raises InputError: if the vectors are not finite numbers of that shape.
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError(f"vectors of shape {vectors.shape}: expected finite numbers, one row a question")
    require_clustering()
    from sklearn.cluster import KMeans

    means = KMeans(n_clusters=min(clusters, len(np.unique(vectors, axis=0))), n_init=10, random_state=seed)
    return np.asarray(means.fit_predict(vectors), np.int64)


def shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of each cluster: in proportion to their sizes, exactly `count` in all, by largest remainder.

    Of equal remainders the larger cluster gets its one first, then the one that comes first.

    :raises InputError: if the clusters hold fewer than `count`.
    """
    total = int(sizes.sum())
    if not 0 <= count <= total:
        raise InputError(f"{count} of {total} cannot be drawn")
    # In whole numbers, so that no rounding decides.
    whole, remainder = np.divmod(sizes * count, max(total, 1))
    order = np.lexsort((np.arange(len(sizes)), -sizes, -remainder))
    whole[order[: count - int(whole.sum())]] += 1
    return np.asarray(whole, np.int64)


def draw_in_proportion(labels: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw exactly `count` places, from each cluster its share at random.

    :param labels: cluster of each place, shape (places,).
    :returns: places, ascending.
    """
    kinds, sizes = np.unique(labels, return_counts=True)
    drawn = [
        random.choice(np.flatnonzero(labels == kind), size=int(share), replace=False)
        for kind, share in zip(kinds, shares(sizes.astype(np.int64), count), strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)
