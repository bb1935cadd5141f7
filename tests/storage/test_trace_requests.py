"""A trace of a run of requests keeps the format and says what the log says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from testbed.model.serving.record import RequestOutcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.sim.record import record_run
from testbed.storage.export import export
from testbed.storage.tasklog import Run, TaskLog, open_task_log
from tests.sim.serving_plans import down, federation
from tests.storage.traces import check_arrows, check_format, check_tracks

SECONDS = 12
PLAN = federation(
    (50, 10),
    enforce=True,
    seconds=SECONDS,
    period=4,
    offset=2,
    options={"advertise": "split"},
    faults=(down(2, 8, 2),),
)


def traced(log: TaskLog, run: Run, folder: Path) -> dict[str, Any]:
    metadata = export(log, [run.id], folder, formats=["trace"])
    about = metadata["traces"][run.id]
    document: dict[str, Any] = json.loads((folder / about["file"]).read_text())
    assert about["events"] == len(document["traceEvents"])
    return document


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> TaskLog:
    """A log with a run of two episodes in which a node is killed."""
    opened = open_task_log(str(tmp_path_factory.mktemp("log") / "tasks.db"))
    record_run(PLAN, opened, episodes=2, run_id="killed")
    return opened


@pytest.fixture(scope="module")
def trace(log: TaskLog, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return traced(log, log.run("killed"), tmp_path_factory.mktemp("trace") / "out")


def slices(trace: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The slices on tracks whose name begins with ``kind``."""
    tracks = {
        (e["pid"], e["tid"])
        for e in trace["traceEvents"]
        if e["ph"] == "M"
        and e["name"] == "thread_name"
        and e["args"]["name"].rstrip("0123456789 ") == kind
    }
    return [e for e in trace["traceEvents"] if e["ph"] == "X" and (e["pid"], e["tid"]) in tracks]


def test_it_keeps_the_format(trace: dict[str, Any]) -> None:
    check_format(trace)
    check_tracks(trace)
    assert {event["ph"] for event in trace["traceEvents"]} == set("MXbesfiC")


def test_slices_last_as_long_as_requests_took(trace: dict[str, Any], log: TaskLog) -> None:
    rows = list(log.requests("killed"))
    took = Counter((r.source + 1, r.request, r.elapsed) for r in rows if r.elapsed)
    own = slices(trace, "requests of users")
    assert Counter((e["pid"], e["args"]["request"], e["dur"]) for e in own) == took
    by_request = {(e["args"]["request"], e["ts"]) for e in own}
    second = min(e["ts"] for e in trace["traceEvents"] if e["name"] == "episode 1")
    assert {(r.request, r.at + second * r.episode) for r in rows if r.elapsed} == by_request


def test_a_forwarded_request_is_served_at_its_neighbour(
    trace: dict[str, Any], log: TaskLog
) -> None:
    rows = [r for r in log.requests("killed") if r.server is not None and r.server != r.source]
    served = slices(trace, "requests of neighbours")
    assert rows
    found = Counter((e["pid"], e["args"]["request"]) for e in served)
    assert found == Counter((r.server + 1, r.request) for r in rows if r.server is not None)
    # In the simulator this is exactly the time of the service.
    assert {e["dur"] for e in served} == {5 * MILLISECOND}
    assert check_arrows(trace) == len(rows)
    starts = {e["id"]: e["ts"] for e in trace["traceEvents"] if e["ph"] == "s"}
    ends = {e["id"]: e["ts"] for e in trace["traceEvents"] if e["ph"] == "f"}
    assert {ends[number] - at for number, at in starts.items()} == {PLAN.bus.delay}


def test_what_was_not_served_is_marked_where_it_came(trace: dict[str, Any], log: TaskLog) -> None:
    marks = Counter(
        (e["pid"], e["args"]["outcome"])
        for e in trace["traceEvents"]
        if e["ph"] == "i" and e["cat"] == "failure"
    )
    rows = log.requests("killed")
    refused = Counter(
        (r.source + 1, r.outcome.value) for r in rows if r.outcome is not RequestOutcome.SERVED
    )
    assert marks == refused
    assert {outcome for _, outcome in marks} >= {"no_peer", "unreachable"}
    faults = [e for e in trace["traceEvents"] if e.get("cat") == "fault"]
    assert [e["ph"] for e in faults] == ["b", "e"] * 2


def test_counters_and_routings_are_those_of_the_log(trace: dict[str, Any], log: TaskLog) -> None:
    counted: defaultdict[int, Counter[str]] = defaultdict(Counter)
    last = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "C":
            counted[event["pid"] - 1].update(event["args"])
            last[event["pid"]] = event["args"]
    rows = list(log.requests("killed"))
    for node in range(PLAN.size):
        here = sum(r.source == node and r.server == node for r in rows)
        assert counted[node]["served here"] == here
        assert counted[node]["forwarded"] == sum(
            r.source == node and r.peer is not None for r in rows
        )
    assert all(not any(values.values()) for values in last.values())
    routings = Counter(r.node for r in log.routings("killed"))
    marks = Counter(
        e["pid"] - 1 for e in trace["traceEvents"] if e["ph"] == "i" and e["cat"] == "routing"
    )
    assert marks == routings


def test_a_run_without_its_requests_has_windows(log: TaskLog, tmp_path: Path) -> None:
    fewer = federation((50, 10), seconds=4, period=4, offset=2, log_requests="windows")
    record_run(fewer, log, run_id="windows")
    document = traced(log, log.run("windows"), tmp_path / "out")
    check_format(document)
    assert {event["ph"] for event in document["traceEvents"]} == set("MXiC")
    (episode,) = (e for e in document["traceEvents"] if e["ph"] == "X")
    assert episode["dur"] >= 4 * SECOND
