"""Far more tasks than a controller can hand out, and than a node can execute."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from testbed.rpc.operator import OperatorClient
from testbed.runtime.local import LocalRuntime
from testbed.storage.tasklog import open_task_log
from testbed.testing.runtime import small_plan
from tests.overload.drowning import drown, faster, peak_bytes

PEAK_BYTES: Final = 600 << 20
"""Most resident memory of any process of a testbed that is asked for too much."""

pytestmark = pytest.mark.timeout(600)


def test_a_controller_that_cannot_keep_up_says_so(tmp_path: Path) -> None:
    # 30,000 tasks in one second; nodes and a controller in Python take a few thousand of them.
    plan = faster(small_plan(3, slots=10_000), 100)
    runtime = LocalRuntime(tmp_path / "home")
    up = runtime.up(plan, "over")
    try:
        with OperatorClient(up.address, up.token, timeout=60) as operator:
            pids = [operator.status().pid, *(node.pid for node in operator.status().nodes)]
            run = operator.start_run(scheduler="local")
            *_, last = operator.watch_run(run)
            assert last.state == "invalid", last
            # Nodes know their tasks ahead: they come late, or on a slow machine not in time at all.
            told = " ".join(last.invalid_because)
            assert "could not keep up" in told or "late at p95" in told, last
            assert last.generated == last.ended == 30_000
            for pid in pids:
                assert pid is not None
                assert peak_bytes(pid) < PEAK_BYTES
            # It is as good as new.
            assert operator.status().healthy
        with open_task_log(up.store, create=False) as log:
            assert sum(log.outcomes(run).values()) == 30_000
    finally:
        runtime.down("over")


def test_a_network_that_is_given_fifty_times_its_work_drops_the_rest(tmp_path: Path) -> None:
    # A task of 20 ms every 0.4 ms at each node, for a second.
    plan = faster(small_plan(2, slots=2500), 400)
    runtime = LocalRuntime(tmp_path / "home")
    up = runtime.up(plan, "over")
    try:
        with OperatorClient(up.address, up.token, timeout=60) as operator:
            pids = [operator.status().pid, *(node.pid for node in operator.status().nodes)]
            run = operator.start_run(scheduler="random")
            *_, last = operator.watch_run(run)
            assert last.state in {"completed", "invalid"}, last
            assert last.generated == last.ended == 5000
            assert last.outcomes["dropped"] + last.lost > 4000
            for pid in pids:
                assert pid is not None
                assert peak_bytes(pid) < PEAK_BYTES
    finally:
        runtime.down("over")


async def test_a_node_answers_probes_while_it_drowns(tmp_path: Path) -> None:
    waits, peak = await drown(tmp_path)
    assert peak < PEAK_BYTES
    # A hang bound; what a quiet machine measures stands in docs/reliability.md.
    assert max(waits) < 30.0
