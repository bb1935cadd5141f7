"""A home with runs of tasks and of requests, which is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cli import main
from testbed.storage.tasklog import TaskLog, open_task_log

EPISODES = 5


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home: ratc, local and rda on the same tasks, the latter labelled, and requests."""
    home = tmp_path_factory.mktemp("past") / "home"
    tasks = ["sim", "quickstart", "-e", str(EPISODES), "--set", "slots.count=12", "--quiet"]
    serving = [
        *("--set", "horizon.length=10s"),
        *("--set", "routing.offset=5s"),
        *("--set", "routing.period=5s"),
    ]
    for line in (
        [*tasks, "-s", "ratc", "-s", "local"],
        [*tasks, "-s", "rda", "--label", "second try"],
        ["sim", "dfaas", "--quiet", *serving],
    ):
        assert main.run(["--home", str(home), *line]) == 0
    return home


@pytest.fixture(scope="session")
def log(past: Path) -> Iterator[TaskLog]:
    """Its task log, to be read only."""
    with open_task_log(past / "tasklog.sqlite", create=False) as opened:
        yield opened
