"""What a report says of the machine, and when it warns that something else ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qa_edge_runtime.machine import describe_machine, processor_frequency, usable_cores
from qa_edge_runtime.machine_load import LoadMeter, MachineLoad, disturbances, pass_spread

MACHINE = {"load_1_minute": 0.1, "usable_cores": 4}
QUIET = MachineLoad(others_share=0.02, stolen_share=0.0, processor_share=0.999)
EVEN = (10.0, 10.1, 10.0, 9.9, 10.05)


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cpu"] and 1 <= machine["usable_cores"] <= machine["cores"]
    assert {"governor", "mhz", "max_mhz", "load_1_minute", "platform", "python", "numpy"} <= machine.keys()


def test_frequency_as_a_board_tells_it(tmp_path: Path) -> None:
    for core in usable_cores():
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        current = 1800000 if core == usable_cores()[0] else 600000
        for name, value in (
            ("scaling_governor", "ondemand\n"),
            ("scaling_cur_freq", current),
            ("cpuinfo_max_freq", 1800000),
        ):
            (folder / name).write_text(str(value))
    assert processor_frequency(tmp_path) == {"governor": "ondemand", "mhz": 1800, "max_mhz": 1800}
    (folder / "scaling_cur_freq").write_text("<unknown>")
    assert processor_frequency(tmp_path)["governor"] == "ondemand"


def test_frequency_that_nobody_tells(tmp_path: Path) -> None:
    found = processor_frequency(tmp_path)
    assert (found["governor"], found["max_mhz"]) == (None, None)


def test_a_quiet_machine_gets_no_warning() -> None:
    assert disturbances(QUIET, MACHINE, EVEN) == ()
    untold = MachineLoad(others_share=None, stolen_share=None, processor_share=None)
    assert disturbances(untold, {**MACHINE, "load_1_minute": None}, EVEN) == ()
    # The load of the last minute is this program's own, if it has just run; what others used meanwhile is better.
    assert disturbances(QUIET, {**MACHINE, "load_1_minute": 4.0}, EVEN) == ()


@pytest.mark.parametrize(
    ("load", "machine", "passes", "part"),
    [
        (MachineLoad(others_share=0.25, stolen_share=0.0, processor_share=1.0), MACHINE, EVEN, "had 25% of the proc"),
        (MachineLoad(others_share=0.0, stolen_share=0.05, processor_share=1.0), MACHINE, EVEN, "gave 5% of the cores"),
        (MachineLoad(others_share=0.0, stolen_share=0.0, processor_share=0.8), MACHINE, EVEN, "processor for 80% of"),
        (QUIET, MACHINE, (10.0, 10.0, 12.0, 12.0), "medians of the passes are 18% apart"),
        (
            MachineLoad(others_share=None, stolen_share=None, processor_share=None),
            {**MACHINE, "load_1_minute": 3.0},
            EVEN,
            "the load was 3.0 on 4 cores",
        ),
    ],
)
def test_what_disturbs_is_named(load: MachineLoad, machine: dict, passes: tuple[float, ...], part: str) -> None:
    (found,) = disturbances(load, machine, passes)
    assert part in found


def test_spread_does_not_grow_with_the_number_of_passes() -> None:
    assert pass_spread([5.0]) == 0.0
    assert pass_spread([10.0] * 99 + [30.0]) == 0.0
    assert pass_spread([9.0, 10.0, 11.0]) == pytest.approx(0.16)
    assert pass_spread([0.0, 0.0]) == 0.0


def stat(path: Path, busy: int, steal: int = 0) -> Path:
    lines = [f"cpu{core} {busy} 0 0 1000 0 0 0 {steal} 0 0" for core in usable_cores()]
    path.write_text("\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 1 2 3"]))
    return path


def test_what_others_used_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    own = iter([1.0, 3.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(own))
    tick = os.sysconf("SC_CLK_TCK")
    meter = LoadMeter(stat(tmp_path / "stat", 50))
    cores = len(usable_cores())
    meter.tight_loop(4.0, 3.0)
    stat(tmp_path / "stat", 50 + 6 * tick, 1 * tick)
    load = meter.read()
    # Each core worked 6 of the 10 seconds; 2 seconds of one were this process's own.
    assert load.others_share == pytest.approx((6 * cores - 2) / (10 * cores))
    assert load.stolen_share == pytest.approx(0.1)
    assert load.processor_share == 0.75


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert LoadMeter(tmp_path / "none").read() == MachineLoad(
        others_share=None, stolen_share=None, processor_share=None
    )
    (tmp_path / "odd").write_text("cpu 1 2\n")
    meter = LoadMeter(tmp_path / "odd")
    meter.tight_loop(1.0, 0.5)
    assert meter.read(threads=2).processor_share is None
