"""Callers that go away in the middle of what they have asked for: all of it happens, or nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from testbed.errors import UsageError
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import RunState
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench
from tests.controller.test_deploy import put

BringUp = Callable[[Plan], Bench]

LONG = 4000
"""Slots of 50 ms: longer than any test lets it run."""

_EXPECTED = {
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.FAILED_PRECONDITION,
}


@contextmanager
def vanishing(bench: Bench, seed: int) -> Iterator[Callable[[str, Any], None]]:
    """Makes calls to the operator whose caller goes away after 0 to 0.2 s."""
    draw = random.Random(seed)
    me = of_operator(bench.up.token)
    with connect_blocking(bench.up.address, me, CONTROLLER) as channel:
        stub: Any = pb_grpc.OperatorStub(channel)

        def call(method: str, request: Any) -> None:
            try:
                getattr(stub, method)(request, timeout=draw.uniform(0.0, 0.2))
            except grpc.RpcError as error:
                if error.code() not in _EXPECTED:
                    raise

        yield call


def test_changes_of_scheduler_are_everywhere_or_nowhere_and_logged(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(3, slots=LONG))
    put(bench, "first", 20.0)
    put(bench, "second", -20.0)
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot >= 1)
    names = ["random", "ratc", "two-choice", "local"]
    with vanishing(bench, 7) as call:
        for number in range(24):
            if number % 6 == 5:
                call("DeployPolicy", pb.DeployPolicyRequest(policy="first"))
            else:
                name = "drl" if number % 6 == 3 else names[number % 4]
                call("ChangeScheduler", pb.ChangeSchedulerRequest(scheduler=name))
            if number % 4 == 3:
                # The call waits for its turn, so what came before it is over now.
                bench.operator.change_scheduler(names[number % 3])
                status = bench.operator.status()
                assert status.run is not None
                deciding = {node.scheduler for node in status.nodes}
                assert deciding == {status.run.progress.scheduler}
                assert status.run.changes[-1].scheduler == names[number % 3]
                assert all(change.accepted for change in status.run.changes)
    bench.operator.stop_run()
    bench.end(run)
    # What has decided is what was told in the log of changes, in its order.
    told = ["local", *(change["scheduler"] for change in bench.log.run(run).changes)]
    for node in range(3):
        decided = [
            each.scheduler.partition(":")[0]
            for each in bench.log.decisions(run, node=node)
            if each.destination is not None
        ]
        order = [
            name for name, before in zip(decided, ["", *decided], strict=False) if name != before
        ]
        rest = iter(name.partition(":")[0] for name in told)
        assert all(name in rest for name in order), (order, told)


def test_a_run_is_begun_and_ends_although_nobody_waits_for_it(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=3))
    with vanishing(bench, 11) as call:
        for _ in range(6):
            call("StartRun", pb.StartRunRequest(scheduler="random"))
            _until_none_is_under_way(bench)
    # This one waits for its turn, and for a run that was begun late.
    last = ""
    while not last:
        _until_none_is_under_way(bench)
        with suppress(UsageError):
            last = bench.operator.start_run()
    bench.end(last)
    known = bench.operator.status().runs
    logged = {run.id: run.state for run in bench.log.runs()}
    assert set(known) == set(logged)
    assert RunState.RUNNING not in logged.values()
    assert not (bench.up.directory / "active-run.json").exists()


def _until_none_is_under_way(bench: Bench) -> None:
    run = bench.operator.status().run
    if run is not None:
        bench.end(run.progress.run)
