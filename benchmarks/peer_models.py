"""The peers: their published shapes, and the cache folder that keeps them as ONNX files with random weights.

Latency does not depend on the weights' values, so nothing is downloaded and nothing here says anything about accuracy.
A peer is built once, in a process of its own, and kept in a cache folder; a later run, or another machine that the
folder was copied to, needs neither torch nor transformers.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import read_json

# Part of each cached folder's record: raise it when the recipes change, and old files are built again.
RECIPE_VERSION = 1
RECORD_NAME = "peer.json"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A peer's name and shape: the transformers configuration class and what differs from its defaults.

    :ivar family: "Bert", "DistilBert" or "MobileBert".
    :ivar heads: attention heads, and `hidden` the width, as the graph optimiser has to be told them.
    """

    name: str
    family: str
    heads: int
    hidden: int
    config: Mapping[str, int] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the peer's folder in the cache."""
        return self.name.lower().replace(" ", "-")


def _bert(name: str, layers: int, hidden: int, heads: int, intermediate: int) -> Peer:
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
    }
    return Peer(name=name, family="Bert", heads=heads, hidden=hidden, config=config)


PEERS: tuple[Peer, ...] = (
    _bert("BERT-base", 12, 768, 12, 3072),
    Peer(name="DistilBERT 6", family="DistilBert", heads=12, hidden=768, config={"n_layers": 6}),
    Peer(name="DistilBERT 4", family="DistilBert", heads=12, hidden=768, config={"n_layers": 4}),
    _bert("TinyBERT 6", 6, 768, 12, 3072),
    # Four heads of MobileBERT's inner width of 128; its defaults are the published 24 layers.
    Peer(name="MobileBERT", family="MobileBert", heads=4, hidden=512),
    _bert("MiniLM-L6", 6, 384, 12, 1536),
    _bert("TinyBERT 4", 4, 312, 12, 1200),
    _bert("BERT-mini", 4, 256, 4, 1024),
    _bert("BERT-tiny", 2, 128, 2, 512),
)
QUICK_PEERS = ("TinyBERT 4", "BERT-tiny")


@dataclass(frozen=True, kw_only=True)
class PeerFile:
    """One exported file.

    :ivar recipe: "raw", "optimised" or "optimised, no SkipLayerNorm".
    :ivar largest_difference: of its logits from those of the torch model that was exported, on random inputs.
    """

    precision: str
    recipe: str
    file: str
    size_bytes: int
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class BuiltPeer:
    """A peer in the cache: its folder, number of parameters and files, and the versions that made them."""

    peer: Peer
    folder: Path
    parameters: int
    files: tuple[PeerFile, ...]
    versions: Mapping[str, str]


def cached_peers(
    peers: Sequence[Peer], cache: Path, announce: Callable[[str], None] = lambda line: None
) -> list[BuiltPeer]:
    """All peers from the cache; what is not there, or was made by older recipes, is built first.

    :param announce: called with a line before each peer that has to be built.
    :raises MissingExtraError: if something has to be built and torch, transformers, onnx or onnxruntime is missing.
    :raises DataError: if the cache cannot be written.
    """
    for peer in peers:
        if _read_record(peer, cache) is None:
            announce(f"building {peer.name} (once, minutes for the large ones)")
            # A process of its own gives torch's memory back before anything is timed.
            from peer_exports import build_peer

            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                pool.submit(build_peer, peer, cache).result()
    built = [_read_record(peer, cache) for peer in peers]
    if None in built:
        raise DataError(f"{cache} does not hold what was just built in it; name another folder with --cache")
    return [peer for peer in built if peer is not None]


def _read_record(peer: Peer, cache: Path) -> BuiltPeer | None:
    """The peer as its folder describes it, or None if it has to be built (again)."""
    folder = cache / peer.file_name
    if not (folder / RECORD_NAME).is_file():
        return None
    record = read_json(folder / RECORD_NAME, "cached peer")
    try:
        if record["recipe_version"] != RECIPE_VERSION or record["peer"] != peer_as_json(peer):
            return None
        files = tuple(PeerFile(**file) for file in record["files"])
        if any((folder / file.file).stat().st_size != file.size_bytes for file in files):
            return None
        return BuiltPeer(
            peer=peer, folder=folder, parameters=record["parameters"], files=files, versions=record["versions"]
        )
    except (KeyError, TypeError, OSError):
        return None


def peer_as_json(peer: Peer) -> dict[str, Any]:
    """The peer as its record holds it."""
    return {**asdict(peer), "config": dict(peer.config)}


def example_inputs(tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random word pieces as a peer takes them: int64 of shape (1, tokens), no padding."""
    ids = np.random.default_rng(seed).integers(1000, 30000, (1, tokens))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": (np.arange(tokens)[None] >= 20).astype(np.int64),
    }
