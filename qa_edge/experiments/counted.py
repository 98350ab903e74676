"""Tables without training: Table 1's counts, Table 3's times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qa_edge.experiments.sources import Sources
from qa_edge.squad import read_squad
from qa_edge_runtime.errors import DataError, InputError
from qa_edge_runtime.files import atomic_write, read_json

COUNTS = "table1/counts.json"
PEERS = "table3/peers.json"
_PEERS_VERSION = 1
_PEER = {"name", "detail", "length", "kind", "precision", "parameters", "median_ms"}


def count_data_sets(sources: Sources, runs: Path) -> dict[str, dict[str, Any]]:
    """Documents, paragraphs and questions of the files that were given, kept for the report beside those of before.

    :returns: of the files that were given.
    :raises InputError: if no file was given.
    :raises DataError: if what was kept before is damaged.
    """
    files = {"train": sources.squad, "dev": sources.dev, **{Path(path).stem: path for path in sources.adversarial}}
    found: dict[str, dict[str, Any]] = {}
    for key, path in files.items():
        if path is not None:
            squad = read_squad(path)
            found[key] = {
                "on": Path(path).name,
                "documents": len(squad.articles),
                "paragraphs": sum(len(article.paragraphs) for article in squad.articles),
                "questions": sum(1 for _ in squad.items(impossible=True)),
            }
    if not found:
        raise InputError("table1 counts --squad, --dev and --adversarial files: give at least one")
    target = runs / COUNTS
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = {**(read_counts(target) if target.exists() else {}), **found}
    atomic_write(target, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    return found


def keep_peers(path: Path, runs: Path) -> Path:
    """Keep the JSON of benchmarks/peers.py for the report.

    :raises DataError: if it is none.
    """
    found = read_peers(path)
    target = runs / PEERS
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, json.dumps(found) + "\n")
    return target


def read_counts(path: Path) -> dict[str, dict[str, Any]]:
    """What `count_data_sets` kept.

    :raises DataError: if it is something else.
    """
    found = read_json(path, "counts")
    sets = list(found.values()) if isinstance(found, dict) else [None]
    numbers = ("documents", "paragraphs", "questions")
    if not all(
        isinstance(one, dict) and isinstance(one.get("on"), str) and all(type(one.get(name)) is int for name in numbers)
        for one in sets
    ):
        raise DataError(f"{path} is damaged: remove it, or run qa-edge experiment table1 again")
    return dict(found)


def read_peers(path: Path) -> dict[str, Any]:
    """The JSON of benchmarks/peers.py.

    :raises DataError: if it is another file, or of another format.
    """
    found = read_json(path, "peers benchmark")
    rows = found.get("rows") if isinstance(found, dict) and found.get("format_version") == _PEERS_VERSION else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _PEER for row in rows):
        raise DataError(f"{path} is not what benchmarks/peers.py writes (format {_PEERS_VERSION}); name its JSON")
    return found
