"""The controller at full speed: ten nodes that send a log as fast as it is taken.

The controller is a process of its own and treats the run as any other: registry, arrivals, ledger,
certificate, task log, rows of tasks. The nodes are played by one process that has all batches
of a simulated run ready. Rates are those of whole runs, from their start to their end in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs

from benchmarks.servers import mariadb
from testbed.errors import TemporaryError
from testbed.rpc.channels import connect, listen, new_server
from testbed.rpc.codec import encode_decision, encode_record
from testbed.rpc.credentials import issue
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, OPERATOR, node_identity
from testbed.rpc.operator import OperatorClient, Progress
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.simulator import simulate
from testbed.version import __version__
from tests.overload.drowning import peak_bytes

NODES: Final = 10
SLOTS: Final = 2_000
EPISODES: Final = 2
SECRET: Final = "of all"
DOCUMENTS: Final = 200
"""Records and decisions of one batch."""

Row = dict[str, Any]
Log = list[tuple[bytes, bytes]]
"""Documents of one node and episode, with their kinds, in order."""


def rows(slots: int = SLOTS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    plan = _plan(slots)
    logs = _logs(plan)
    with tempfile.TemporaryDirectory() as folder:
        found = _figures("SQLite", 2000, plan, logs, f"{folder}/tasks.db")
    with mariadb() as url:
        found += _figures("MariaDB", 1000, plan, logs, url)
    return found


def _figures(
    name: str, asked: float, plan: Plan, logs: Sequence[Sequence[Log]], url: str
) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bc-") as folder, _controller(folder, plan, url) as it:
        measured = asyncio.run(_run(Path(folder), it.pid, plan, logs))
    rate = measured.tasks / measured.seconds
    return [
        {
            "benchmark": f"{name}: {measured.tasks:,} tasks, sustained",
            "value": rate,
            "unit": "tasks/s",
            "at_least": asked,
            "met": rate >= asked,
        },
        {
            "benchmark": f"{name}: processor time of the controller",
            "value": 1e3 * measured.cpu / measured.tasks,
            "unit": "ms/task",
        },
        {
            "benchmark": f"{name}: most memory of the controller",
            "value": measured.peak / 1e6,
            "unit": "MB",
        },
    ]


def _plan(slots: int) -> Plan:
    """``paper-testbed`` with long episodes, a hundred times as fast."""
    plan = plan_of(load("paper-testbed", [f"nodes.count={NODES}", f"slots.count={slots}"]))
    return replace(plan, time_scale=0.01, episodes=EPISODES)


def _logs(plan: Plan) -> list[list[Log]]:
    """Return the events that each node logs, by episode."""
    found = []
    for result in simulate(plan, "ratc"):
        events = [
            (record.clock, record.node, b"r", encode_record(record)) for record in result.records
        ]
        events += [
            (each.observation.now, each.node, b"d", encode_decision(each))
            for each in result.decisions
        ]
        events.sort(key=lambda event: event[0])
        nodes: list[Log] = [[] for _ in range(NODES)]
        for _, node, kind, document in events:
            nodes[node].append((kind, document))
        found.append(nodes)
    return found


# --- the controller's side ----------------------------------------------------------------------


@contextmanager
def _controller(folder: str, plan: Plan, url: str) -> Iterator[subprocess.Popen[bytes]]:
    place = Path(folder)
    (place / "plan.json").write_text(plan.to_json())
    own = issue(SECRET, CONTROLLER, [OPERATOR, *map(node_identity, range(NODES))])
    credentials = place / "controller.json"
    credentials.write_text(own.to_json())
    credentials.chmod(0o600)
    command = {
        "--plan": place / "plan.json",
        "--run-dir": place / "run",
        "--bind": f"unix:{place}/c",
        "--credentials": credentials,
    }
    with (place / "log").open("wb") as output:
        started = subprocess.Popen(
            [
                *(sys.executable, "-m", "controller"),
                *map(str, itertools.chain.from_iterable(command.items())),
            ],
            stderr=output,
            env={**os.environ, "TESTBED_PROCESS_STORAGE": url},
        )
    try:
        yield started
        started.terminate()
        started.wait(60)
    finally:
        started.kill()
        started.wait()


@dataclass(frozen=True)
class Measured:
    """A run: its tasks, seconds, the controller's processor seconds and peak memory in bytes."""

    tasks: int
    seconds: float
    cpu: float
    peak: int


async def _run(folder: Path, pid: int, plan: Plan, logs: Sequence[Sequence[Log]]) -> Measured:
    address = f"unix:{folder}/c"
    nodes = [_Node(index, [episode[index] for episode in logs]) for index in range(NODES)]
    beating = [asyncio.create_task(await node.start(folder, address)) for node in nodes]
    try:
        process = psutil.Process(pid)
        last, seconds, cpu = await asyncio.to_thread(_operate, address, process)
        assert last.state in {"completed", "invalid"}, last
        assert last.ended == last.generated, last
        assert last.lost == 0, last
        return Measured(last.ended, seconds, cpu, peak_bytes(pid))
    finally:
        for each in beating:
            each.cancel()
        await asyncio.gather(*beating, return_exceptions=True)
        for node in nodes:
            await node.server.stop(None)


def _operate(address: str, process: psutil.Process) -> tuple[Progress, float, float]:
    """Start the run and wait for its end: its last progress, its seconds, CPU seconds."""
    token = issue(SECRET, OPERATOR, [CONTROLLER]).tokens[str(CONTROLLER)]
    with OperatorClient(address, token, timeout=60) as operator:
        while True:
            with contextlib.suppress(TemporaryError):
                if operator.status().healthy:
                    break
            time.sleep(0.05)
        before, began = _cpu(process), time.perf_counter()
        run = operator.start_run(scheduler="ratc", episodes=EPISODES)
        *_, last = operator.watch_run(run)
        return last, time.perf_counter() - began, _cpu(process) - before


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# --- the nodes' side ----------------------------------------------------------------------------


class _Node(pb_grpc.ControlServicer, pb_grpc.TasksServicer):
    """Answers a controller as a node does, and has its log of each episode ready."""

    def __init__(self, index: int, logs: Sequence[Log]) -> None:
        self.index = index
        self._logs = logs
        self._run = ""
        self._cut = 0
        self._ready: asyncio.Queue[pb.EventBatch] = asyncio.Queue()
        self.server = new_server(issue(SECRET, node_identity(index), [CONTROLLER]), calls=64)
        serving: Any = health.HealthServicer()
        self._health = serving
        pb_grpc.add_ControlServicer_to_server(self, self.server)
        pb_grpc.add_TasksServicer_to_server(self, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(serving, self.server)

    async def start(self, folder: Path, controller: str) -> Any:
        """Serve and return what keeps it registered."""
        me = issue(SECRET, node_identity(self.index), [CONTROLLER])
        address = str(listen(self.server, f"unix:{folder}/n{self.index}", me))
        await self.server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return self._stay(address, controller)

    async def _stay(self, address: str, controller: str) -> None:
        me = issue(SECRET, node_identity(self.index), [CONTROLLER])
        async with connect(controller, me, CONTROLLER) as channel:
            stub: Any = pb_grpc.RegistryStub(channel)
            session = f"session-{self.index}"
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.Register(
                        pb.RegisterRequest(
                            node=self.index,
                            address=address,
                            pid=os.getpid(),
                            version=__version__,
                            session=session,
                            process=session,
                        )
                    )
                    break
                await asyncio.sleep(0.1)

            async def beats() -> AsyncIterator[pb.Heartbeat]:
                while True:
                    yield pb.Heartbeat(node=self.index, session=session)
                    await asyncio.sleep(0.5)

            await stub.Beat(beats())

    async def Configure(self, request: pb.ConfigureRequest, context: Any) -> pb.ConfigureReply:
        self._run = request.run
        return pb.ConfigureReply(scheduler=request.scheduler)

    async def PrepareEpisode(self, request: pb.PrepareEpisodeRequest, context: Any) -> pb.Empty:
        return pb.Empty()

    async def StartEpisode(self, request: pb.StartEpisodeRequest, context: Any) -> pb.Empty:
        log = self._logs[request.episode]
        for first in range(0, len(log), DOCUMENTS):
            part = log[first : first + DOCUMENTS]
            self._cut += 1
            self._ready.put_nowait(
                pb.EventBatch(
                    run=self._run,
                    number=self._cut,
                    records=[document for kind, document in part if kind == b"r"],
                    decisions=[document for kind, document in part if kind == b"d"],
                )
            )
        return pb.Empty()

    async def EndEpisode(self, request: pb.EndEpisodeRequest, context: Any) -> pb.EndEpisodeReply:
        return pb.EndEpisodeReply(last_batch=self._cut)

    async def Arrive(self, request: pb.Arrivals, context: Any) -> pb.ArrivalsTaken:
        return pb.ArrivalsTaken(number=request.number, first=request.first, next=request.until)

    async def Events(
        self, requests: AsyncIterator[pb.BatchAck], context: Any
    ) -> AsyncIterator[pb.EventBatch]:
        async def acknowledged() -> None:
            async for _ in requests:
                pass

        taking = asyncio.create_task(acknowledged())
        try:
            while True:
                yield await self._ready.get()
        finally:
            taking.cancel()

    async def Shutdown(self, request: pb.Empty, context: Any) -> pb.Empty:
        return pb.Empty()


if __name__ == "__main__":
    print(json.dumps(rows(*map(int, sys.argv[1:])), indent=1))
