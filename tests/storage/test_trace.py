"""A trace of a run keeps the Trace Event Format and says what the log says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.model.spans import EXECUTING, QUEUED, SENDING, WAITING, courses
from testbed.model.units import SECOND
from testbed.sim.record import record_run
from testbed.storage.export import export
from testbed.storage.tasklog import Run, TaskLog, open_task_log
from testbed.testing.tasklog import sample_run
from tests.faults.plans import fault, with_faults
from tests.sim.networks import paper_simulation
from tests.storage.traces import check_arrows, check_format, check_tracks

DOWN = fault("node-down", SECOND, 2 * SECOND, nodes=(1,), mode="killed")
SIZE = 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> TaskLog:
    """A log with a run of two episodes in which a node is killed."""
    opened = open_task_log(str(tmp_path_factory.mktemp("log") / "tasks.db"))
    record_run(
        with_faults(paper_simulation(SIZE, slots=20), DOWN), opened, scheduler="ratc", episodes=2
    )
    return opened


@pytest.fixture(scope="module")
def run(log: TaskLog) -> Run:
    return log.run("latest")


@pytest.fixture(scope="module")
def trace(log: TaskLog, run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trace") / "out"
    metadata = export(log, [run.id], folder, formats=["trace"])
    about = metadata["traces"][run.id]
    document: dict[str, Any] = json.loads((folder / about["file"]).read_text())
    assert about["events"] == len(document["traceEvents"])
    assert set(metadata["files"]) == {about["file"]}
    assert metadata["tables"] == {}
    return document


def test_it_keeps_the_format(trace: dict[str, Any]) -> None:
    check_format(trace)
    assert {event["ph"] for event in trace["traceEvents"]} == set("MXbesfiC")


def test_what_begins_on_a_track_ends_before_the_next(trace: dict[str, Any]) -> None:
    check_tracks(trace)


def test_arrows_lead_from_a_transmission_to_an_execution(trace: dict[str, Any]) -> None:
    assert check_arrows(trace)


def test_queues_are_empty_at_the_end_and_episodes_follow_each_other(trace: dict[str, Any]) -> None:
    last = {e["pid"]: e["args"] for e in trace["traceEvents"] if e["ph"] == "C"}
    assert last
    assert all(args == {"waiting": 0, "executing": 0} for args in last.values())
    longest = max(e["args"]["waiting"] for e in trace["traceEvents"] if e["ph"] == "C")
    assert longest > 0
    episodes = [e for e in trace["traceEvents"] if e["name"].startswith("episode ")]
    assert [e["name"] for e in episodes] == ["episode 0", "episode 1"]
    assert episodes[0]["ts"] + episodes[0]["dur"] < episodes[1]["ts"]


def test_faults_and_failures_are_shown(trace: dict[str, Any], log: TaskLog, run: Run) -> None:
    faults = [e for e in trace["traceEvents"] if e.get("cat") == "fault"]
    assert [e["ph"] for e in faults] == ["b", "e"] * 2
    failures = Counter(e["args"]["outcome"] for e in trace["traceEvents"] if e["ph"] == "i")
    outcomes = {key.value: count for key, count in log.outcomes(run.id).items() if count}
    assert failures == Counter({key: n for key, n in outcomes.items() if key != "succeeded"})


def test_spans_last_as_long_as_the_rows_of_tasks_say(log: TaskLog, run: Run) -> None:
    rows = {row.task_id: row for row in log.tasks(run.id)}
    found = list(courses(log.records(run.id)))
    assert len(found) == len(rows)
    for each in found:
        row = rows[each.task.id]
        lasted = {span.stage: span.end - span.begin for span in each.spans}
        assert each.outcome is row.outcome
        assert lasted.get(EXECUTING) == row.execution
        assert lasted.get(SENDING) == row.transmission
        assert lasted.get(QUEUED) == row.transmission_waiting
        assert lasted.get(WAITING) == row.execution_waiting


def test_no_trace_of_a_run_without_a_readable_plan(tmp_path: Path) -> None:
    with open_task_log(tmp_path / "tasks.db") as log:
        log.begin_run(sample_run("20260101-000000-aaaa"))
        with pytest.raises(UsageError, match="no trace can be made of run 20260101-000000-aaaa"):
            export(log, ["latest"], tmp_path / "out", formats=["trace"])
        assert not (tmp_path / "out").exists()
