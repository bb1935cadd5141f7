"""A log with simulated serving runs, made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from tests.cli.conftest import home as home
from tests.cli.conftest import testbed as testbed
from tests.sim.serving_plans import down, federation

SECONDS = 40
EPISODES = 4


@pytest.fixture(scope="session")
def serving_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a log with the runs ``slack`` and ``local`` of one scenario, the run ``killed``
    with limits and a node that dies, and ``windows``, the same without its requests.
    """
    path = tmp_path_factory.mktemp("serving") / "tasks.db"
    plan = federation((50, 10), seconds=SECONDS, period=10, offset=5)
    split = federation(
        (50, 10),
        enforce=True,
        seconds=SECONDS,
        period=10,
        offset=5,
        options={"advertise": "split"},
        faults=(down(2, 20, 30),),
    )
    with open_task_log(path) as log:
        record_run(plan, log, scheduler="slack", episodes=EPISODES, run_id="slack")
        record_run(plan, log, scheduler="all-local", episodes=EPISODES, run_id="local")
        record_run(split, log, run_id="killed", episodes=2)
        fewer = dataclasses.replace(split, log_requests="windows")
        record_run(fewer, log, run_id="windows", episodes=2)
    return path


@pytest.fixture
def log(serving_log: Path) -> Iterator[TaskLog]:
    with open_task_log(serving_log, create=False) as opened:
        yield opened


@pytest.fixture
def own_log(tmp_path: Path) -> Iterator[TaskLog]:
    """An empty log."""
    with open_task_log(tmp_path / "own.db") as opened:
        yield opened
