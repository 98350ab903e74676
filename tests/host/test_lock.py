from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_teacher import Workshop, run

from qa_edge.lock import alone_in, holding
from qa_edge_runtime.errors import DataError

pytest.importorskip("fcntl")
HOLD = """
import pathlib, sys
from qa_edge.lock import alone_in
with alone_in(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def test_a_folder_belongs_to_one_process_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(DataError, match=r"another process is at work in .*run; let it end"), alone_in(folder):
            pass
        with alone_in(folder, enabled=False), holding(tmp_path / "file.lock", wait=False) as held:
            assert held
        process.kill()
    with alone_in(folder):
        assert list(folder.iterdir()) == []
    with alone_in(folder):  # given back
        pass


def test_commands_that_make_a_run_leave_another_s_alone(shop: Workshop, tmp_path: Path) -> None:
    commands = (
        ("distill", "--squad", shop.train, "--vectors", "none", "--teacher", "none"),
        ("teach", "--squad", shop.train, "--encoder", shop.teacher),
        ("active", "--squad", shop.train, "--encoder", shop.teacher, "--dev", shop.dev, "--strategy", "random"),
    )
    with alone_in(tmp_path):
        for command in commands:
            result = run(*command, "-o", tmp_path)
            assert result.exit_code == 1 and "another process is at work" in result.stderr, result.output
    assert list(tmp_path.iterdir()) == []
