"""Summaries of serving runs say what the requests of the log say, and so do those of windows."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.experiment import metrics
from testbed.experiment.comparison import compare_runs
from testbed.experiment.measured import NothingToReport
from testbed.experiment.metrics import SERVING_METRICS
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.summary import counted, summarise, summary_of
from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.sim.record import record_run
from testbed.storage.tasklog import RequestRow, RunInfo, TaskLog, open_task_log
from tests.experiment.serving.conftest import EPISODES, SECONDS
from tests.sim.serving_plans import federation
from tests.storage.logs import full_episode, log_run

BUILT_IN = tuple(SERVING_METRICS.built_in)
NODES = range(3)


def read(log: TaskLog, run: str) -> ServingSummary:
    found = summary_of(log, run)
    assert isinstance(found, ServingSummary)
    return found


def test_requests_are_counted_by_outcome_node_and_server(log: TaskLog) -> None:
    run = read(log, "killed")
    rows = list(log.requests("killed"))
    assert run.count == len(rows) == 2 * 60 * SECONDS
    assert run.episodes == (0, 1)
    assert run.outcomes == dict.fromkeys(RequestOutcome, 0) | Counter(r.outcome for r in rows)
    # All that can happen in the simulator does happen.
    assert {each for each, number in run.outcomes.items() if number} == {
        *("served", "no_peer", "over_limit", "unreachable")
    }
    for node in NODES:
        mine = [row for row in rows if row.source == node]
        assert sum(run.outcomes_at(node).values()) == len(mine)
        assert run.servers_of(node) == Counter(r.server for r in mine if r.server is not None)
        for outcome in RequestOutcome:
            assert run.outcomes_at(node)[outcome] == sum(r.outcome == outcome for r in mine)
    away = sum(row.server not in (None, row.source) for row in rows)
    assert run.forwarded == pytest.approx(away / run.outcomes["served"])
    assert run.seconds == 2 * SECONDS


def test_windows_alone_tell_the_same(log: TaskLog) -> None:
    of_requests, of_windows = read(log, "killed"), read(log, "windows")
    assert not list(log.requests("windows"))
    assert of_windows.traffic == of_requests.traffic
    assert of_windows.document["outcomes"] == of_requests.document["outcomes"]
    assert of_windows.messages == of_requests.messages
    assert of_windows.latency().served == 0
    assert of_windows.document["latency_ms"]["p99"] is None
    runs = [log.run("killed"), log.run("windows")]
    assert counted(log, runs)["windows"] == counted(log, runs)["killed"] == of_requests.outcomes


def test_windows_tell_who_does_not_know_a_sender(log: TaskLog) -> None:
    plan = federation((50,))
    network = dataclasses.replace(plan.network, neighbours=((1, 2), (), (0,)))
    counts: list[dict[str, int]] = [
        {"local": 1, "to:1": 4, "failed:1": 4, "to:2": 7, "failed:2": 5, "no_peer": 3},
        {"forbidden": 4},
        {"from:0": 2, "over_limit:0": 3},
    ]
    windows = tuple(
        WindowRecord(node, 0, 0, (each,), 0, 0, 0, 0) for node, each in enumerate(counts)
    )
    run = read(log, "slack")
    empty = dict.fromkeys(run.columns, ())
    plan = federation((50,), network=network)
    found = ServingSummary(run.run, plan, empty, windows).outcomes
    assert {what: number for what, number in found.items() if number} == {
        "served": 3,
        "no_peer": 3,
        "over_limit": 3,
        "forbidden": 4,
        "unreachable": 2,
    }


def test_times_are_those_of_the_client_where_there_was_one(log: TaskLog) -> None:
    run = read(log, "slack")
    times = [(row.elapsed or 0) / 1000 for row in log.requests("slack") if row.outcome == "served"]
    found = run.latency()
    assert not run.by_client
    assert found.served == len(times)
    assert found.mean == pytest.approx(fmean(times))
    assert found[2:] == pytest.approx([np.percentile(times, p) for p in (50, 95, 99)])
    at_node = [
        (row.elapsed or 0) / 1000
        for row in log.requests("slack")
        if row.outcome == "served" and row.source == 1
    ]
    assert run.latency(1).p99 == pytest.approx(np.percentile(at_node, 99))
    assert math.isnan(run.latency(2).p50)


def test_requests_of_others_are_not_those_of_users(log: TaskLog, own_log: TaskLog) -> None:
    plan = federation((1,), seconds=10)
    own_log.begin_run(RunInfo.of(plan, "network", id="own"))
    with pytest.raises(NothingToReport, match="no answered request"):
        summary_of(own_log, "own")
    row = RequestRow(0, 0, 0, "f", 0, 200, RequestOutcome.SERVED, None, 0, 5_000, 10, 8_000, 200)
    other = row._replace(request=2**40, sent=None, answered=None, client_status=None)
    lost = row._replace(request=1, status=None, outcome=RequestOutcome.LOST, answered=None)
    own_log.append_serving("own", [row, other, lost])
    run = read(own_log, "own")
    assert (run.count, run.external, run.by_client) == (2, 1, True)
    assert run.latency().mean == 8.0
    assert run.document["external_requests"] == 1
    assert json.loads(json.dumps(run.document))["outcomes"]["lost"] == 1


def by_hand(name: str, rows: list[RequestRow], windows: list[WindowRecord]) -> float:
    served = [row for row in rows if row.outcome == "served"]
    shares = {
        "served-rate": {"served"},
        "no-peer-rate": {"no_peer", "overload"},
        "over-limit-rate": {"over_limit"},
        "unreachable-rate": {"unreachable"},
    }
    if name in shares:
        return sum(row.outcome in shares[name] for row in rows) / len(rows)
    if name == "refused-rate":
        return 1 - len(served) / len(rows)
    if name == "forwarded":
        return sum(row.server != row.source for row in served) / len(served)
    if name.startswith("latency-p"):
        return float(np.percentile([(row.elapsed or 0) / 1000 for row in served], int(name[9:])))
    return {
        "messages": sum(window.said for window in windows),
        "message-bytes": sum(window.said_bytes for window in windows),
    }[name]


@pytest.mark.parametrize("name", BUILT_IN)
def test_values_of_a_logged_run(name: str, log: TaskLog) -> None:
    run = read(log, "killed")
    found = run.measured(metrics.find(name, "serving"))
    assert list(found.by_episode) == [0, 1]
    for episode, value in found.by_episode.items():
        rows = list(log.requests("killed", episode=episode))
        windows = list(log.windows("killed", episode=episode))
        assert value == pytest.approx(by_hand(name, rows, windows))
    assert found.interval.count == 2
    only = run.only([1]).measured(metrics.find(name, "serving"))
    assert only.by_episode == {1: found.by_episode[1]}


def test_the_score_of_a_serving_run_is_the_share_refused(log: TaskLog) -> None:
    run = read(log, "slack")
    assert run.objective.name == "refused-rate"
    assert run.score.by_episode == run.measured(metrics.find("refused-rate", "serving")).by_episode
    plain = metrics.find("refused-rate", "serving").by_episode(run.frame("traffic"))
    assert run.score.by_episode == pytest.approx(plain)
    assert run.scored["objective"] == "refused-rate"


def test_serving_runs_are_compared_episode_by_episode(log: TaskLog) -> None:
    compared = compare_runs(log, ["local", "slack"])
    assert compared.metric.name == "refused-rate"
    rates = [compared.measured[run.run.id].interval.mean for run in compared.runs]
    assert rates == sorted(rates)
    (pair,) = compared.pairs
    assert pair.comparison.episodes == tuple(range(EPISODES))
    assert pair.comparison.real
    best = compared.runs[0].run.info.scheduler
    assert pair.verdict.startswith(f"{best} is better than ")
    by_name = compare_runs(log, ["local", "slack"], "latency-p99")
    assert by_name.runs[0].run.id == "local"
    with pytest.raises(UsageError, match="unknown metric 'success-rate'; known: refused-rate"):
        compare_runs(log, ["local", "slack"], "success-rate")
    with pytest.raises(UsageError, match="these runs met different requests"):
        compare_runs(log, ["local", "killed"])


def test_families_do_not_mix(log: TaskLog, own_log: TaskLog) -> None:
    log_run(own_log, *full_episode(), id="tasks")
    own_log.begin_run(RunInfo.of(federation((1,), seconds=10), "simulator", id="serving"))
    own_log.append_serving("serving", list(log.requests("slack", episode=0)))
    with pytest.raises(UsageError, match="no metric in common") as mixed:
        compare_runs(own_log, ["serving", "tasks"])
    assert "tasks: a run of tasks; run serving has requests" in str(mixed.value)
    with pytest.raises(UsageError, match="run serving has no tasks, but requests"):
        summarise(own_log, "serving")
    with pytest.raises(UsageError, match="for runs with requests: refused-rate"):
        summary_of(own_log, "serving").measured(metrics.SUCCESS_RATE)


def test_a_fault_of_the_plan_is_one_of_its_run(log: TaskLog) -> None:
    (first, second) = log.run("killed").faults
    assert (first["kind"], first["nodes"], second["episode"]) == ("node-down", (2,), 1)


def test_the_table_shown_at_once_has_rates_after_the_first_weights(tmp_path: Path) -> None:
    with open_task_log(tmp_path / "log.sqlite") as log:
        found = read(log, record_run(federation((50, 0, 0), seconds=100), log))
        assert found.document["first_weights_s"] == 60
        [table] = found.in_short()
        assert list(table.heads) == [
            *("PER SECOND FROM 60 S", ">LOCAL", ">AT NODE 0", ">AT NODE 1", ">AT NODE 2"),
        ]
        assert table.rows == [["users of node 0", "10.0", "", "16.0", "24.0"]]
        silent = record_run(federation((50, 0, 0), seconds=50), log)
        assert read(log, silent).in_short() == []
