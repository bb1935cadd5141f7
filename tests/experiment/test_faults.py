"""What reports, comparisons and exports say of the faults of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from testbed.errors import UsageError
from testbed.experiment.comparison import compare_runs
from testbed.experiment.report import write_report
from testbed.model.faults import Fault
from testbed.model.units import SECOND
from testbed.scenario.plan import Plan
from testbed.sim.record import record_run
from testbed.storage.export import export
from testbed.storage.tasklog import RunState, TaskLog, open_task_log
from tests.faults.plans import fault, with_faults
from tests.sim.networks import paper_simulation

SLOW = fault("slow-node", SECOND, 3 * SECOND, nodes=(0,), factor=0.2)
PLAN = with_faults(paper_simulation(4, slots=12), SLOW)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path / "tasks.db")) as opened:
        yield opened


def recorded(log: TaskLog, scheduler: str, plan: Plan = PLAN) -> str:
    return record_run(plan, log, scheduler=scheduler, episodes=2)


def by_hand(log: TaskLog, run: str) -> None:
    """Have a run that somebody injected a fault into."""
    down = Fault("node-down", SECOND, 2 * SECOND, nodes=(1,), mode="killed", number=1)
    noted: dict[str, Any] = {
        "episode": 0,
        "id": down.id,
        "what": "node 1 killed",
        **down.to_document(),
        "took": True,
    }
    log.end_run(run, RunState.COMPLETED, {"faults": [noted]})


def test_a_run_of_the_simulator_had_the_faults_of_its_plan(log: TaskLog) -> None:
    run = log.run(recorded(log, "local"))
    assert [(f["episode"], f["id"], f["begin"]) for f in run.faults] == [
        (0, "0.0", SECOND),
        (1, "0.0", SECOND),
    ]
    assert run.faults_by_hand == ()


def test_a_report_marks_faults(log: TaskLog, tmp_path: Path) -> None:
    runs = [recorded(log, "local"), recorded(log, "random")]
    report = write_report(log, runs, tmp_path / "report")
    table = pd.read_csv(report.tables["faults"])
    assert list(table["run"]) == [runs[0]] * 2 + [runs[1]] * 2
    page = report.path.read_text()
    assert ">Faults</h2>" in page
    assert "node 0 executes at 0.2 times its rate" in page
    queues = report.figures["queues"].with_suffix(".svg").read_text()
    assert "#c0392b" in queues


def test_a_report_without_faults_says_nothing_of_them(log: TaskLog, tmp_path: Path) -> None:
    report = write_report(log, [recorded(log, "local", paper_simulation(4))], tmp_path / "report")
    assert "faults" not in report.tables
    assert "Faults" not in report.path.read_text()


def test_runs_with_the_same_faults_are_compared(log: TaskLog) -> None:
    assert compare_runs(log, [recorded(log, "local"), recorded(log, "random")]).warnings == ()


def test_runs_with_other_faults_are_not_compared(log: TaskLog) -> None:
    other = recorded(log, "random", paper_simulation(4, slots=12))
    with pytest.raises(UsageError) as caught:
        compare_runs(log, [recorded(log, "local"), other])
    (problem,) = caught.value.problems
    assert (problem.path, problem.seen) == (other, "another list of faults: none")
    assert "slow-node" in problem.allowed


def test_faults_by_hand_are_warned_of(log: TaskLog, tmp_path: Path) -> None:
    runs = [recorded(log, "local"), recorded(log, "random")]
    by_hand(log, runs[1])
    (warning,) = compare_runs(log, runs).warnings
    assert runs[1] in warning
    assert "node 1 killed" in warning
    assert "injected by hand" in write_report(log, runs, tmp_path / "report").path.read_text()


def test_an_export_has_them(log: TaskLog, tmp_path: Path) -> None:
    run = recorded(log, "local")
    export(log, [run], tmp_path / "out", formats=["csv"])
    document = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert [each["kind"] for each in document["runs"][0]["faults"]] == ["slow-node"] * 2
    assert document["runs"][0]["plan"]["faults"][0]["kind"] == "slow-node"
