"""Commands in two processes that know of each other, by gloo, as a launcher starts them on a CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = """
import json, os, sys
import torch
torch.set_num_threads(1)
from qa_edge import labels
from qa_edge.cli import main
labels.SHARD_QUESTIONS = 8  # so that each has some
if os.environ["RANK"] == "1":
    exec(sys.argv[2])
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as ended:
        assert not ended.code, ended
    sys.stdout.flush()
# The first process keeps the store by which they know of each other (torchrun has another for it): together to the end.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def in_two_processes(*commands: Sequence[str | Path], second: str = "", seconds: float = 120) -> list[str]:
    """Commands one after the other in each of two processes, and what each printed.

    :param second: what the second process does first, such as being late where the first one is not.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    # As torchrun sets it; with more, a busy machine decides how a sum is parted, and so its last digit.
    told["OMP_NUM_THREADS"] = "1"
    lines = json.dumps([[str(word) for word in command] for command in commands])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COMMANDS, lines, second],
            env={**os.environ, **told, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        shown = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    return shown
