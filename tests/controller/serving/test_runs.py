"""Runs of serving networks on real processes, from their start to their end in the task log."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.api.faulting import fault_of
from testbed.errors import UsageError
from testbed.model.certificate import Certificate
from testbed.model.serving.record import RequestOutcome
from testbed.model.serving.users import EXTERNAL
from testbed.model.units import SECOND
from testbed.rpc.operator import OperatorClient, Progress
from testbed.runtime.local import LocalRuntime
from testbed.scenario.plan import ServingPlan
from testbed.scenario.plan.serving import Horizon
from testbed.storage.tasklog import RequestRow, RunState, open_task_log
from tests.controller.conftest import Bench
from tests.controller.processes import TOKEN, process, until_said
from tests.sim.serving_plans import down, federation

LONG = 600
"""Seconds that no run of a test lasts."""


def plan(rate: float = 50.0, seconds: float = 4.0, **changes: object) -> ServingPlan:
    """Return the paper's federation, with routers that are called often."""
    short = federation((rate,), period=2, offset=1, seconds=1)
    horizon = Horizon(int(seconds * SECOND), drain=SECOND)
    return replace(short, horizon=horizon, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A federation that serves long, with users at the first node."""
    yield from _benches(tmp_path_factory.mktemp("serving"), plan(seconds=LONG))


def rows(bench: Bench, run: str) -> list[RequestRow]:
    """Return the requests of a run's users, each of which is there once."""
    found = list(bench.log.requests(run))
    assert [row.request for row in found] == list(range(len(found)))
    return found


def get(address: str, path: str = "/f") -> tuple[int, object]:
    """Ask a front for something; return the status and the document of the answer."""
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _benches(folder: Path, drawn: ServingPlan) -> Iterator[Bench]:
    runtime = LocalRuntime(folder / "home", orphan_timeout_s=0.5)
    try:
        up = runtime.up(drawn, "bench")
        with (
            OperatorClient(up.address, up.token) as operator,
            open_task_log(up.store) as log,
        ):
            yield Bench(runtime, up, operator, log)
    finally:
        runtime.down("bench")


def has_sent(requests: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.generated >= requests


def test_a_run_is_in_the_log_request_by_request(bring_up: Callable[..., Bench]) -> None:
    drawn = plan(rate=40.0, seconds=5.0, episodes=2, time_scale=0.5)
    bench = bring_up(drawn)
    run = bench.operator.start_run()
    last = bench.end(run)
    assert last.state in (RunState.COMPLETED, RunState.INVALID), last.reason
    assert not last.degraded
    assert (last.generated, last.ended, last.lost) == (400, 400, 0)
    assert last.work == "requests"
    assert last.success_rate is not None
    assert last.latency_p50 is not None
    assert last.seconds_left == 0.0
    for episode in range(2):
        found = list(bench.log.requests(run, episode=episode))
        assert [row.request for row in found] == list(range(200))
        for row, arrival in zip(found, drawn.arrivals(episode), strict=True):
            assert row.request == arrival.request.id
            assert row.status == row.client_status
            assert row.sent is not None
            assert row.sent >= arrival.at
            assert row.answered is not None
            assert row.elapsed is not None
    counted = Counter(row.outcome.value for row in bench.log.requests(run))
    assert {name: count for name, count in last.outcomes.items() if count} == counted
    # The routers have agreed on weights, and others have served what the first could not.
    assert {row.server for row in bench.log.requests(run)} == {None, 0, 1, 2}
    document = bench.log.run(run).certificate
    assert document is not None
    terms = Certificate.from_document(document).terms
    for name in ("accounted", "weights"):
        assert terms[name].holds, document
    assert terms["ticks"].figures.count > 0  # type: ignore[union-attr]


def test_nodes_serve_anybody_between_runs_and_during_them(bench: Bench) -> None:
    fronts = [node.http for node in bench.operator.status().nodes]
    assert all(fronts)
    assert len(set(fronts)) == 3

    def ask(node: int) -> None:
        status, document = get(fronts[node] or "")
        assert (status, document["node"]) == (200, node)  # type: ignore[index]

    ask(1)
    run = bench.operator.start_run()
    bench.until(run, has_sent(1))
    ask(2)
    bench.operator.stop_run(run)
    ask(1)
    others = [row for row in bench.log.requests(run) if row.request >= EXTERNAL]
    assert [(row.source, row.outcome, row.sent) for row in others] == [
        (2, RequestOutcome.SERVED, None)
    ]


def test_a_run_that_is_stopped_ends_with_what_was_sent(bench: Bench) -> None:
    run = bench.operator.start_run()
    bench.until(run, has_sent(20))
    bench.operator.stop_run(run)
    last = bench.end(run)
    assert last.state == "stopped"
    assert last.generated == last.ended < 1_000
    assert len(rows(bench, run)) == last.generated
    # Another one can begin at once, and its requests begin anew.
    again = bench.operator.start_run()
    bench.until(again, has_sent(5))
    bench.operator.stop_run(again)
    assert rows(bench, again)


def test_routers_change_while_traffic_runs(bench: Bench) -> None:
    run = bench.operator.start_run()
    bench.until(run, has_sent(1))
    (answer,) = bench.operator.change_scheduler("all-local", nodes=[0])
    assert (answer.accepted, answer.scheduler) == (True, "all-local")
    refused = bench.operator.change_scheduler("slack", options={"advertise": "nothing"})
    assert not any(each.accepted for each in refused)
    sent = bench.operator.status().run
    assert sent is not None
    bench.until(run, has_sent(sent.progress.generated + 150))
    bench.operator.stop_run(run)
    names = {routing.scheduler for routing in bench.log.routings(run, node=0)}
    assert "all-local" in names
    assert {routing.scheduler for routing in bench.log.routings(run, node=1)} == {"slack"}
    document = bench.log.run(run).certificate
    assert document is not None
    changes = [(each["scheduler"], each["accepted"]) for each in document["scheduler_changes"]]
    assert changes == [("all-local", True), ("slack", False)]


def test_faults_by_hand_that_requests_do_not_have_are_refused(bench: Bench) -> None:
    run = bench.operator.start_run()
    slow = fault_of({"kind": "slow-node", "for": "5s", "nodes": [0], "factor": 0.5}, 3)
    with pytest.raises(UsageError, match="slow-node has no effect on serving; allowed: node-down"):
        bench.operator.inject_fault(slow)
    down = fault_of({"kind": "node-down", "for": "600s", "nodes": [1], "mode": "killed"}, 3)
    # The first weights are there after 2 s; from then on requests go to node 1.
    bench.until(run, has_sent(150))
    bench.operator.inject_fault(down)
    bench.until(run, has_sent(300))
    bench.operator.stop_run(run)
    unreachable = [row for row in rows(bench, run) if row.outcome is RequestOutcome.UNREACHABLE]
    assert unreachable
    assert {row.peer for row in unreachable} == {1}
    assert not bench.end(run).degraded


def test_a_scheduler_of_tasks_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(UsageError, match="rda"):
        bench.operator.start_run(scheduler="rda")


def test_nodes_that_take_no_requests_begin_no_run(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(federation((10.0,), (20,)).to_json(), encoding="utf-8")
    with process(
        *("controller", "--plan", str(tmp_path / "plan.json"), "--run-dir", str(tmp_path)),
    ) as controller:
        until_said(controller, "event='serving'")
        address = json.loads((tmp_path / "controller.json").read_text("utf-8"))["address"]
        with process(
            *("edgenode", "--node", "0", "--controller", address, "--bind", "127.0.0.1:0"),
            *("--spool", str(tmp_path / "spool")),
        ):
            until_said(controller, "condition='healthy'")
            with (
                OperatorClient(address, TOKEN, plaintext=True) as operator,
                pytest.raises(UsageError, match="node 0: takes no HTTP requests"),
            ):
                operator.start_run()


def test_a_fault_of_the_scenario_does_not_degrade_the_run(bring_up: Callable[..., Bench]) -> None:
    bench = bring_up(plan(seconds=6.0, time_scale=0.5, faults=(down(2, 3, 2),)))
    last = bench.end(bench.operator.start_run())
    assert last.state in (RunState.COMPLETED, RunState.INVALID), last.reason
    assert not last.degraded
    assert last.dead_nodes == ()
    assert last.outcomes["unreachable"] > 0
    run = bench.operator.status().run
    assert run is not None
    assert run.faults == ("faults[0]: node-down, once in 1 episode",)


def test_a_node_that_is_killed_degrades_the_run(bring_up: Callable[..., Bench]) -> None:
    """What its neighbours had for it ends as 502 until they forget it; the others go on."""
    network = replace(federation((50.0,)).network, expiry=3 * SECOND)
    bench = bring_up(plan(seconds=14.0, network=network, time_scale=0.5))
    run = bench.operator.start_run()
    bench.until(run, has_sent(5 * 50))
    bench.runtime.kill("bench", 2)
    last = bench.end(run)
    assert last.state == "degraded"
    assert last.dead_nodes == (2,)
    assert "node 2: out of the run" in last.reason
    found = rows(bench, run)
    assert len(found) == last.generated == 14 * 50
    unreachable = [row for row in found if row.outcome is RequestOutcome.UNREACHABLE]
    assert unreachable
    assert {row.peer for row in unreachable} == {2}
    assert {row.client_status for row in unreachable} == {502}
    # In the end its neighbour has all that the first node does not serve itself.
    late = [row for row in found if row.at >= 12 * SECOND]
    assert {row.server for row in late} == {0, 1}
