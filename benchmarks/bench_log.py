"""Into the task log: tasks a second, with all their events and decisions and without.

Tasks are those of RATC on `paper-testbed`. "Rows" were simulated and folded before, so that the log
is what is measured, in batches of ten episodes; "simulated" is all of `testbed sim` with a loaded
engine, 400 episodes. Each figure is the best of some repetitions. The MariaDB server commits to
disk with every batch.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.servers import mariadb
from testbed.api.planning import load, tasks_plan_of
from testbed.model.history import TaskRow, fold_all
from testbed.scenario.plan import Plan
from testbed.sim.record import record_run
from testbed.sim.simulator import EpisodeResult, Simulation
from testbed.storage.tasklog import RunInfo, open_task_log

SCENARIO: Final = "paper-testbed"
EPISODES: Final = 20
TOGETHER: Final = 10
SIMULATED: Final = 400
REPETITIONS: Final = 3

Row = dict[str, Any]
_Episode = tuple[EpisodeResult, list[TaskRow]]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    plan = tasks_plan_of(load(SCENARIO))
    simulation = Simulation(plan)
    results = [simulation.episode(number) for number in range(EPISODES)]
    episodes = [(each, fold_all((), each.records, each.decisions).rows) for each in results]
    found = []
    with tempfile.TemporaryDirectory() as folder, mariadb() as mysql:
        for name, url, part in (("SQLite", f"{folder}/tasks.db", 1), ("MariaDB", mysql, 2)):
            for what, asked, complete in (
                ("tasks with events and decisions", 20_000, True),
                ("tasks only", 100_000, False),
            ):
                best = max(_stored(plan, url, episodes, complete) for _ in range(REPETITIONS))
                found.append(_per_second(f"{name}, rows: {what}", best, asked // part))
            for what, asked, complete in (
                ("with events and decisions", 20_000, True),
                ("tasks only", 100_000, False),
            ):
                best = max(_simulated(plan, url, complete) for _ in range(REPETITIONS))
                found.append(_per_second(f"{name}, simulated: {what}", best, asked // part))
        path = Path(folder) / "size.db"
        _stored(plan, str(path), episodes, complete=True)
        size = path.stat().st_size / sum(len(tasks) for _, tasks in episodes)
    met = size <= 1_024
    return [
        *found,
        {
            "benchmark": "SQLite: size of a task with its events and decisions",
            "value": size,
            "unit": "bytes",
            "at_most": 1_024,
            "met": met,
        },
    ]


def _stored(plan: Plan, url: str, episodes: list[_Episode], complete: bool) -> float:
    """Return the tasks a second that are stored; ``complete``: with their events and decisions."""
    info = RunInfo.of(plan, "simulator")
    with open_task_log(url) as log:
        log.begin_run(info)
        began = time.perf_counter()
        for start in range(0, len(episodes), TOGETHER):
            some = episodes[start : start + TOGETHER]
            if complete:
                records = [each for result, _ in some for each in result.records]
                decisions = [each for result, _ in some for each in result.decisions]
                log.append(info.id, records, decisions)
            log.write_tasks(info.id, [row for _, tasks in some for row in tasks])
        seconds = time.perf_counter() - began
    return sum(len(tasks) for _, tasks in episodes) / seconds


def _simulated(plan: Plan, url: str, complete: bool) -> float:
    with open_task_log(url) as log:
        began = time.perf_counter()
        run = record_run(plan, log, episodes=SIMULATED, tasks_only=not complete)
        seconds = time.perf_counter() - began
        return log.counts(run)["tasks"] / seconds


def _per_second(name: str, value: float, asked: int) -> Row:
    return {
        "benchmark": name,
        "value": value,
        "unit": "tasks/s",
        "at_least": asked,
        "met": value >= asked,
    }
