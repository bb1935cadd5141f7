"""Requests over HTTP: how many the controller can send in time, and how many one node can serve.

The generator is measured against a front that answers at once, in a process of its own. The node is
a testbed of one node on this machine, with the controller as the client.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from controller.serving.client import FrontAddress
from controller.serving.episode import ServingEpisode, Watchers
from testbed.model.serving.users import ConstantRate, Users
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.rpc.loop import new_event_loop
from testbed.rpc.operator import NodeStatus, OperatorClient, Progress
from testbed.runtime.local import LocalRuntime
from testbed.scenario.plan import ServingPlan
from testbed.scenario.plan.serving import Horizon
from testbed.storage.tasklog import RequestRow, open_task_log
from tests.sim.serving_plans import federation

Row = dict[str, Any]

RATES: Final = (200, 400, 600, 800, 1000, 1200, 1500, 1800, 2200, 2600, 3000, 4000)
"""Requests per second that are tried, until one is not sent, or not served, in time."""

LATE: Final[Micros] = 10 * MILLISECOND
"""Largest p95 of the lateness of requests, as in a valid run."""

SECONDS: Final = 5
"""Length of a trial."""

NODE_RATE: Final = 400.0
"""Requests per second that one node is asked to serve."""


def rows(seconds: int = SECONDS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    sent, cost = _highest(seconds)
    served = _served(NODE_RATE, 4 * seconds)
    return [
        {"benchmark": "generator: highest rate, p95 at most 10 ms late", **_per_second(sent)},
        {"benchmark": "generator: processor time of a request", "value": cost, "unit": "us"},
        {
            "benchmark": f"one node at {NODE_RATE:g} requests/s: served",
            "value": 100 * served.share,
            "unit": "%",
            "at_least": 100.0,
            "met": served.share == 1.0,
        },
        {
            "benchmark": f"one node at {NODE_RATE:g} requests/s: p50 for its client",
            "value": served.p50 / MILLISECOND,
            "unit": "ms",
        },
        {
            "benchmark": f"one node at {NODE_RATE:g} requests/s: p99 for its client",
            "value": served.p99 / MILLISECOND,
            "unit": "ms",
            "at_most": 50.0,
            "met": served.p99 < 50 * MILLISECOND,
        },
        {
            "benchmark": f"one node at {NODE_RATE:g} requests/s: processor time",
            "value": 100 * served.busy,
            "unit": "% of one core",
            "at_most": 100.0,
            "met": served.busy <= 1.0,
        },
        {
            "benchmark": "memory of the node after that",
            "value": served.memory / 1e6,
            "unit": "MB",
            "at_most": 100.0,
            "met": served.memory <= 100e6,
        },
        {
            "benchmark": "one node: highest rate with p99 under 50 ms, all served",
            **_per_second(_highest_served(seconds)),
        },
    ]


def _per_second(rate: float) -> Row:
    return {"value": rate, "unit": "requests/s"}


def one_node(rate: float, seconds: int) -> ServingPlan:
    """Return the plan of one node that serves all that comes."""
    plan = federation((rate,), (1_000_000,), options=None)
    users = (Users(0, 0, ConstantRate(rate)),)
    return replace(plan, users=users, horizon=Horizon(seconds * SECOND))


def _highest(seconds: int) -> tuple[float, float]:
    """Return the highest rate at which requests are sent in time.

    And the microseconds of processor time that a request takes at that rate.
    """
    command = [sys.executable, "-m", "benchmarks.stub_front"]
    best = cost = 0.0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stub:
        assert stub.stdin is not None
        assert stub.stdout is not None
        address = stub.stdout.readline().strip()
        for rate in RATES:
            began = time.process_time()
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                late, unanswered = runner.run(_send(address, float(rate), seconds))
            used = time.process_time() - began
            if late > LATE or unanswered:
                break
            best, cost = float(rate), used / (rate * seconds) * SECOND
        stub.stdin.close()
    return best, cost


async def _send(address: str, rate: float, seconds: int) -> tuple[Micros, int]:
    """Send requests; return the p95 of their lateness and how many had no answer."""
    lateness: list[Micros] = []
    watchers = Watchers(lateness.append, lambda _: None, lambda: None)
    plan = one_node(rate, seconds)
    episode = ServingEpisode(plan, 0, [FrontAddress(address, "")], watchers)
    episode.begin()
    await episode.wait()
    missing = sum(
        joined.seen is None or joined.seen.status is None for joined in episode.ledger.close()
    )
    return sorted(lateness)[int(0.95 * len(lateness))], missing


@dataclass(frozen=True, slots=True)
class Served:
    """The work of one node: share that it served, latencies, cores used, bytes of memory."""

    share: float
    p50: Micros
    p99: Micros
    busy: float
    memory: int


def _served(rate: float, seconds: int) -> Served:
    with testbed(one_node(rate, seconds)) as up:
        before = up.nodes()[0]
        began = time.monotonic()
        up.run()
        after = up.nodes()[0]
        times = latencies(up.requests())
        return Served(
            len(times) / (rate * seconds),
            percentile(times, 0.5),
            percentile(times, 0.99),
            ((after.cpu or 0) - (before.cpu or 0)) / SECOND / (time.monotonic() - began),
            after.resident_bytes or 0,
        )


def _highest_served(seconds: int) -> float:
    best = 0.0
    for rate in RATES:
        served = _served(float(rate), seconds)
        if served.share < 1.0 or served.p99 >= 50 * MILLISECOND:
            break
        best = float(rate)
    return best


# --- also for benchmarks.bench_serving ----------------------------------------------------------


def latencies(rows: Sequence[RequestRow]) -> list[Micros]:
    """Return the times until those that were served were answered, as their client saw them."""
    return sorted(row.answered for row in rows if row.answered is not None and row.status == 200)


def percentile(times: Sequence[Micros], share: float) -> Micros:
    """Return a percentile (nearest rank below) of ordered times; 0 of none."""
    return times[min(len(times) - 1, int(share * len(times)))] if times else 0


class Up:
    """A testbed that is up."""

    def __init__(self, operator: OperatorClient, store: str) -> None:
        self._operator = operator
        self._store = store
        self.last: Progress | None = None

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Return what the controller says of the nodes."""
        return self._operator.status().nodes

    def run(self, episode: int = 0) -> Progress:
        """Run an episode to its end."""
        *_, last = self._operator.watch_run(self._operator.start_run(first_episode=episode))
        self.last = last
        return last

    def requests(self) -> list[RequestRow]:
        """Return the requests of the last run."""
        assert self.last is not None
        with open_task_log(self._store, create=False) as log:
            return list(log.requests(self.last.run))


@contextmanager
def testbed(plan: ServingPlan) -> Iterator[Up]:
    """Bring a plan up on this machine."""
    with tempfile.TemporaryDirectory(prefix="bf-") as folder:
        runtime = LocalRuntime(Path(folder))
        try:
            up = runtime.up(plan, "bench")
            with OperatorClient(up.address, up.token) as operator:
                yield Up(operator, up.store)
        finally:
            runtime.down("bench")
