"""What a finished run scored: `scores.json`, tied to the weights and the data that it was measured on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qa_edge.checkpoint import WEIGHTS
from qa_edge.features import SCORES
from qa_edge_runtime.files import atomic_write, read_json, sha256_file
from qa_edge_runtime.scoring import Scores


def settle_scores(folder: Path, on: str, sha256: str, measure: Callable[[], Scores]) -> dict[str, Any]:
    """The scores of a folder's weights, as `scores.json` holds them; measured and written if it has none of them yet.

    :param on: name of the data set's file.
    :param sha256: its hash.
    """
    weights = sha256_file(folder / WEIGHTS)
    if (folder / SCORES).exists():
        found = read_json(folder / SCORES, "scores")
        found = found if isinstance(found, dict) else {}
        numbers = all(isinstance(found.get(name), int | float) for name in ("exact_match", "f1", "total"))
        if numbers and found.get("sha256") == sha256 and found.get("weights_sha256") == weights:
            return found
    scores = measure()
    record = {
        "exact_match": scores.exact_match,
        "f1": scores.f1,
        "total": scores.total,
        "on": on,
        "sha256": sha256,
        "weights_sha256": weights,
    }
    atomic_write(folder / SCORES, json.dumps(record, indent=1) + "\n")
    return record
