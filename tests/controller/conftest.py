"""Runs on real testbeds of real processes on loopback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.model.events import RecordKind
from testbed.model.task import Outcome
from testbed.rpc.operator import OperatorClient, Progress
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import TaskLog, open_task_log


@dataclass(frozen=True)
class Bench:
    """A testbed that is up, its operator and its task log."""

    runtime: LocalRuntime
    up: Testbed
    operator: OperatorClient
    log: TaskLog

    def until(self, run: str, reached: Callable[[Progress], bool]) -> Progress:
        """Watch until ``reached``; the progress then. Fails if the run ends before."""
        for progress in self.operator.watch_run(run):
            if reached(progress):
                return progress
        raise AssertionError(f"run {run} ended without it: {progress}")

    def end(self, run: str) -> Progress:
        """Watch to the end; the last progress."""
        *_, last = self.operator.watch_run(run)
        return last


def each_ends_once(bench: Bench, run: str) -> dict[Outcome, int]:
    """Check that each task of a run has one end and a row that says the same; number by outcome."""
    log = bench.log
    ends = Counter(
        (record.task.id, Outcome(str(record.data["outcome"])))
        for record in log.records(run)
        if record.kind is RecordKind.ENDED
    )
    assert set(ends.values()) <= {1}
    assert set(ends) == {(row.task_id, row.outcome) for row in log.tasks(run)}
    assert {record.task.id for record in log.records(run)} == {task for task, _ in ends}
    return log.outcomes(run)


@pytest.fixture
def bring_up(tmp_path: Path) -> Iterator[Callable[[Plan], Bench]]:
    """Brings a plan up as testbed ``bench``, again if asked again; takes all down at the end."""
    runtime = LocalRuntime(tmp_path / "home", orphan_timeout_s=0.5)
    opened: list[Bench] = []

    def bring(plan: Plan) -> Bench:
        up = runtime.up(plan, "bench")
        bench = Bench(runtime, up, OperatorClient(up.address, up.token), open_task_log(up.store))
        opened.append(bench)
        return bench

    yield bring
    for bench in opened:
        bench.operator.close()
        bench.log.close()
    runtime.down("bench")
