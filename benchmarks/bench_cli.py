"""Waiting times of the command line: whole commands, from the shell's point of view.

Each figure is the median of several runs after one that warms the file cache. The commands that
read runs find two that can be compared; the last list has 2,000 runs of one episode each.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from testbed import environment
from testbed.api.home import TASK_LOG
from testbed.api.planning import load, tasks_plan_of
from testbed.model.history import fold_all
from testbed.sim.simulator import Simulation
from testbed.storage.tasklog import RunInfo, RunState, open_task_log

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))
MANY: Final = 2_000

Row = dict[str, Any]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with tempfile.TemporaryDirectory() as folder:
        home, full = Path(folder) / "home", Path(folder) / "full"
        for scheduler in ("ratc", "local"):
            _run(home, ["sim", "quickstart", "-s", scheduler, "--episodes", "4"])
        _fill(full)
        return [
            _row(home, ["--help"], 0.15),
            _row(home, ["run", "--help"]),
            _row(home, ["scheduler", "list"]),
            _row(home, ["runs", "list"], 0.3),
            _row(home, ["ps"], 0.3),
            _row(home, ["sim", "quickstart", "--scheduler", "ratc", "--episodes", "1"], 0.5),
            _row(home, ["compare"], 0.6),
            _row(home, ["report", "--out", str(home / "report")], 2.0, "`testbed report`"),
            _row(
                full,
                ["runs", "list", "--limit", "0"],
                1.0,
                f"`testbed runs list --limit 0`, {MANY:,} runs",
            ),
        ]


def _fill(home: Path) -> None:
    """Make a home with many runs."""
    plan = dataclasses.replace(tasks_plan_of(load("quickstart")), episodes=1)
    result = Simulation(plan).episode(0)
    tasks = fold_all((), result.records, result.decisions).rows
    with open_task_log(home / TASK_LOG) as log:
        for number in range(MANY):
            info = RunInfo.of(plan, "simulator", id=f"run-{number:04}", label=f"number {number}")
            log.begin_run(info)
            log.write_tasks(info.id, tasks)
            log.end_run(info.id, RunState.COMPLETED)


def _row(home: Path, command: list[str], asked: float | None = None, name: str = "") -> Row:
    value = _median_seconds(home, command)
    told = name or f"`testbed {' '.join(command)}`"
    row: Row = {"benchmark": told, "value": value, "unit": "s"}
    return row if asked is None else row | {"at_most": asked, "met": value <= asked}


def _median_seconds(home: Path, command: list[str], runs: int = 9) -> float:
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        _run(home, command)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _run(home: Path, command: list[str]) -> None:
    settings = {**os.environ, environment.HOME: str(home)}
    subprocess.run([TESTBED, *command], check=True, capture_output=True, env=settings)
