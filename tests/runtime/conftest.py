from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from qa_edge_runtime.answerer import Answerer


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests only read."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.qab"
    write_tiny_bundle(path)
    return path


@pytest.fixture
def copied_path(tiny_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    path = tmp_path / "copied.qab"
    shutil.copytree(tiny_path, path)
    return path


@pytest.fixture(scope="session")
def answerer(tiny_path: Path) -> Iterator[Answerer]:
    with Answerer.load(tiny_path) as loaded:
        yield loaded
