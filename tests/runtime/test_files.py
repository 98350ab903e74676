"""Folders that are replaced whole or not at all, and never when they are somebody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qa_edge_runtime.errors import DataError
from qa_edge_runtime.files import atomic_folder


def fill(path: Path, content: str, *, marker: str = "manifest.json", force: bool = True) -> None:
    with atomic_folder(path, force=force, marker=marker) as folder:
        (folder / marker).write_text(json.dumps({"format_version": 1, "content": content}))
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(content)


def test_a_folder_of_ours_or_an_empty_one_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    for content in ("first", "second"):
        fill(target, content)
        assert (target / "inner" / "file").read_text() == content
    fill(tmp_path / "step", "a", marker="state.json")
    fill(tmp_path / "step", "b", marker="state.json")
    assert json.loads((tmp_path / "step" / "state.json").read_text())["content"] == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "step"]
    with pytest.raises(DataError, match="pass --force"):
        fill(target, "third", force=False)


@pytest.mark.parametrize(
    "content", ['{"name": "my web app"}', '{"manifest_version": 3}', "[]", "{", '{"format_version": "1"}']
)
def test_a_manifest_of_another_program_is_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text(content)
    (tmp_path / "site" / "index.html").write_text("hello")
    with pytest.raises(DataError, match="not one that qa-edge wrote, and is kept as it is"):
        fill(tmp_path / "site", "new")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["index.html", "manifest.json"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling"])
def test_what_is_not_ours_is_kept(tmp_path: Path, kind: str) -> None:
    mine, target = tmp_path / "mine", tmp_path / "target"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    if kind == "folder":
        target = mine
    elif kind == "file":
        target = mine / "letter.txt"
    else:
        target.symlink_to(mine if kind == "link" else tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="not one that qa-edge wrote, and is kept as it is"):
        fill(target, "new")
    assert sorted(tmp_path.rglob("*")) == before and (mine / "letter.txt").read_text() == "dear"


def test_what_came_up_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(DataError, match="exists already"), atomic_folder(target):
        target.mkdir()
        (target / "letter.txt").write_text("dear")
    assert [path.name for path in tmp_path.iterdir()] == ["made"] and (target / "letter.txt").exists()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    target = tmp_path / "made"
    fill(target, "old")
    replace, calls = Path.replace, []

    def fail(self: Path, other: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match="Input/output error"):
        fill(target, "new")
    assert json.loads((target / "manifest.json").read_text())["content"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
