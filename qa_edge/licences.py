"""Licences of the data and vectors that a student was made from, as far as they are known without asking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SQUAD = "CC BY-SA 4.0 (SQuAD 1.1, Rajpurkar et al.)"
# By SHA-256 of the training file.
_DATA = {
    # train-v1.1.json as published (https://rajpurkar.github.io/SQuAD-explorer/), as in tools/get_squad.py.
    "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955": _SQUAD,
    # dev-v1.1.json as published, for a student that is tried out on it.
    "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9": _SQUAD,
    # train-v1.1.json re-assembled: the published texts, order and offsets, other question ids after the first 4,373.
    "1e353c638a0721a124407c877b3900710633871fe852af2720de0c8e36ffa8dc": _SQUAD,
}
_GLOVE = "Public Domain Dedication and License 1.0 (GloVe, Pennington et al.; told by the file's name)"


def known_licences(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Licences by noun (`data`, `vectors`) of a run's recipe; what is not known is left out."""
    inputs = recipe.get("inputs")
    if not isinstance(inputs, dict) or not all(isinstance(value, dict) for value in inputs.values()):
        return {}
    licences: dict[str, str] = {}
    data = _DATA.get(inputs.get("squad", {}).get("sha256", ""))
    if data is not None:
        licences["data"] = data
    if Path(inputs.get("vectors", {}).get("path", "")).name.startswith("glove."):
        licences["vectors"] = _GLOVE
    return licences
