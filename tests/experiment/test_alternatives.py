"""The chosen destination, simulated with all decisions of the log, gives what was logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.experiment.alternatives import alternatives
from testbed.experiment.history import task_history
from testbed.scenario.load import load
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.record import record_run
from testbed.storage.tasklog import open_task_log


@pytest.mark.parametrize("scheduler", ["local", "ratc", "rda", "least-completion", "drl", "oracle"])
def test_the_logged_decisions_give_the_logged_ends(tmp_path: Path, scheduler: str) -> None:
    plan = plan_of(load("quickstart", ["slots.count=15"]), episodes=1)
    with open_task_log(tmp_path / "log.sqlite") as log:
        run = record_run(plan, log, scheduler=scheduler, first_episode=2)
        rows = list(log.tasks(run))[5:45:4]
        for row in rows:
            (taken,) = (
                each
                for each in alternatives(log, task_history(log, run, row.task_id))
                if each.taken
            )

            assert taken.others == 0
            assert taken.row._replace(scheduler=row.scheduler) == row
