"""Licences that are told from a run's recipe."""

from __future__ import annotations

import runpy
from pathlib import Path

from qa_edge.licences import known_licences

GET_SQUAD = Path(__file__).parents[2] / "tools" / "get_squad.py"


def test_the_published_squad_files_are_known() -> None:
    for sha256 in runpy.run_path(str(GET_SQUAD))["SHA256"].values():
        assert known_licences({"inputs": {"squad": {"sha256": sha256}}})["data"].startswith("CC BY-SA 4.0")


def test_what_is_not_known_is_left_out() -> None:
    assert known_licences({}) == known_licences({"inputs": None}) == known_licences({"inputs": {"squad": 3}}) == {}
    inputs = {"squad": {"sha256": "0" * 64}, "vectors": {"path": "data/glove.6B.zip"}}
    assert list(known_licences({"inputs": inputs})) == ["vectors"]
