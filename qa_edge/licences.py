"""Licences of the data and vectors that a student was made from, as far as they are known without asking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# By SHA-256: the official files (https://rajpurkar.github.io/SQuAD-explorer/).
_DATA = {
    "1e353c638a0721a124407c877b3900710633871fe852af2720de0c8e36ffa8dc": "CC BY-SA 4.0 (SQuAD 1.1, Rajpurkar et al.)",
}
_GLOVE = "Public Domain Dedication and License 1.0 (GloVe, Pennington et al.; told by the file's name)"


def known_licences(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Licences by noun (`data`, `vectors`) of a run's recipe; what is not known is left out."""
    inputs = recipe.get("inputs", {})
    licences: dict[str, str] = {}
    data = _DATA.get(inputs.get("squad", {}).get("sha256", ""))
    if data is not None:
        licences["data"] = data
    if Path(inputs.get("vectors", {}).get("path", "")).name.startswith("glove."):
        licences["vectors"] = _GLOVE
    return licences
