"""Real nodes in this process, connected by the carrier that a test chooses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from edgenode.driver import EpisodeDriver
from edgenode.host import Host, Transport
from edgenode.node import EdgeNode
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.distributions import Constant
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import Micros
from testbed.model.workload import Workload
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.channels import connect
from testbed.rpc.codec import decode_decision, decode_record
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, Identity, node_identity
from testbed.rpc.messages import task_to_message
from testbed.scenario.plan import ApplicationSpec, Payload, Plan, SchedulerSpec, Seeds
from tests.edgenode.controlled import Controlled

SECRET = "a secret of all"

carrier = "grpc"
"""What carries messages between nodes; the fixture ``carrier`` sets it to grpc, local or trunk."""

PATIENCE = 10.0
"""Seconds after which something that should have happened has not."""


class SendTo:
    """A scheduler for tests: everything goes to the node named in its options."""

    def __init__(self, context: SchedulerContext) -> None:
        self._destination = int(str(context.options["destination"]))
        self.name = f"send-to-{self._destination}"

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(self._destination)


class AskFirst:
    """A scheduler for tests: asks all peers once, then executes where the task arrived."""

    name = "ask-first"

    def __init__(self, context: SchedulerContext) -> None:
        self._bits_only = bool(context.options.get("bits_only", False))
        given: Any = context.options.get("states_of", ())
        self._states_of = tuple(given)
        self._peers = tuple(p for p in range(context.topology.size) if p != context.node)

    def decide(self, observation: Observation) -> Decision | Ask:
        if observation.round == 0:
            return Ask(self._peers, bits_only=self._bits_only, states_of=self._states_of)
        return Decision(observation.node)


class Broken:
    """A scheduler for tests that cannot decide."""

    name = "broken"

    def __init__(self, context: SchedulerContext) -> None:
        pass

    def decide(self, observation: Observation) -> Decision | Ask:
        raise RuntimeError("no idea")


async def eventually(happened: Callable[[], bool]) -> None:
    """Wait until something has happened that no controller hears of."""
    for _ in range(int(PATIENCE / 0.005)):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def plan(
    *,
    nodes: int = 2,
    rate: int = 20_000_000,
    alpha: float = 0.0,
    beta: float = 0.0,
    payload: Payload = "bytes",
    application: ApplicationSpec | None = None,
    control_delay: Micros = 0,
    probe_timeout: Micros = 5_000_000,
    time_scale: float = 1.0,
    log_idle_slots: bool = True,
    stagger: Micros = 0,
    link_delays: tuple[tuple[Micros, ...], ...] | None = None,
) -> Plan:
    """Nodes of 1 GHz with equal links."""
    diagonal = [[0 if i == j else 1 for j in range(nodes)] for i in range(nodes)]
    return Plan(
        name="test",
        scenario_hash="0",
        topology=Topology(
            cores=(1,) * nodes,
            capacity_hz=(1_000_000_000,) * nodes,
            arrival_probability=(1.0,) * nodes,
            execution_failure_rate=(alpha,) * nodes,
            link_rate=tuple(tuple(rate * one for one in row) for row in diagonal),
            link_failure_rate=tuple(tuple(beta * one for one in row) for row in diagonal),
        ),
        workload=Workload(
            slots=10,
            slot=100_000,
            size_bytes=Constant(1_000_000),
            complexity=Constant(5),
            deadline=Constant(1_000_000),
        ),
        rules=Rules(
            Overload(OverloadMeasure.QUEUE_LENGTH, 2),
            control_delay=control_delay,
            probe_timeout=probe_timeout,
            stagger=stagger,
            link_delays=link_delays,
        ),
        seeds=Seeds(topology=1, workload=1, faults=1, schedulers=1),
        scheduler=SchedulerSpec("local"),
        episodes=1,
        time_scale=time_scale,
        payload=payload,
        application=application or ApplicationSpec(),
        log_idle_slots=log_idle_slots,
    )


def task(
    task_id: int,
    *,
    source: int = 0,
    size_bytes: int = 1_000_000,
    execution: Micros = 20_000,
    deadline: Micros = 1_000_000,
    episode: int = 0,
) -> Task:
    """A task that takes ``execution`` on a node of ``plan``."""
    return Task(task_id, episode, task_id, source, size_bytes, execution * 1000, deadline)


@dataclass
class Member:
    """One node and the controller's side of its connection."""

    node: EdgeNode
    channel: grpc.aio.Channel
    control: Any
    tasks: Any
    stamps: CommandStamps
    records: list[Record] = field(default_factory=list)
    decisions: list[DecisionRecord] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def of(self, task_id: int) -> list[Record]:
        return [record for record in self.records if record.task.id == task_id]


class Cluster(Controlled[Member]):
    """Nodes, and a controller's worth of calls to them."""

    patience = PATIENCE

    def __init__(self, members: list[Member], folder: Path) -> None:
        super().__init__(members)
        self.folder = folder

    async def configure(
        self,
        plan: Plan,
        scheduler: str | type = "",
        *,
        run: str = "run",
        **options: object,
    ) -> None:
        name = scheduler if isinstance(scheduler, str) else _path(scheduler)
        for member in self.members:
            await member.control.Configure(
                pb.ConfigureRequest(
                    run=run,
                    plan_json=plan.to_json(),
                    peers=[
                        pb.PeerAddress(
                            node=m.node.index, address=m.node.address, trunk=m.node.host.trunk
                        )
                        for m in self
                    ],
                    scheduler=name,
                    options_json=json.dumps(options),
                )
            )

    async def give(self, *tasks: Task) -> None:
        """Let tasks arrive now, whatever their slots are."""
        for given in tasks:
            driver = self.members[given.source].node.driver
            assert isinstance(driver, EpisodeDriver)
            driver.timers.ring_due()
            driver.arrived(given, driver.clock.now())
            # Others have their turn, as between two arrivals.
            await asyncio.sleep(0)

    async def tell(
        self,
        *tasks: Task,
        number: int = 1,
        first: int = 0,
        until: int = 10,
        node: int = 0,
        episode: int = 0,
    ) -> pb.ArrivalsTaken:
        """Tell a node of arrivals in its slots, as a controller does."""
        told = pb.Arrivals(
            run="run",
            episode=episode,
            number=number,
            first=first,
            until=until,
            tasks=map(task_to_message, tasks),
        )
        taken: pb.ArrivalsTaken = await self.members[node].tasks.Arrive(told)
        return taken

    async def ended(self, *tasks: Task) -> list[Record]:
        """The last record of each task, when all records before it are here too.

        The node that ends a task may be heard before the one that sent it.
        """
        await self.until(lambda: all(self.told(task.id) for task in tasks))
        return [ending for task in tasks if (ending := self.ending(task.id)) is not None]

    def told(self, task_id: int) -> bool:
        """Whether the history of a task is complete."""
        ending = self.ending(task_id)
        return ending is not None and len(self.history(task_id)) > ending.seq

    def ending(self, task_id: int) -> Record | None:
        return next((r for r in self.history(task_id) if r.kind is RecordKind.ENDED), None)

    def history(self, task_id: int) -> list[Record]:
        """All records of a task, in order of ``seq``."""
        records = [r for member in self.members for r in member.of(task_id)]
        return sorted(records, key=lambda record: record.seq)

    def __iter__(self) -> Any:
        return iter(self.members)

    def _take(self, member: Member, batch: pb.EventBatch) -> None:
        for record in map(decode_record, batch.records):
            self.members[record.node].records.append(record)
        for decision in map(decode_decision, batch.decisions):
            self.members[decision.node].decisions.append(decision)
        for note in map(json.loads, batch.faults):
            self.members[note["node"]].faults.append(note)
        member.batches.append(batch.number)


@asynccontextmanager
async def cluster(folder: Path, nodes: int = 2) -> AsyncIterator[Cluster]:
    """``nodes`` started nodes that know nothing yet."""
    all_of_them = Host(nodes)
    members = [
        await start_member(folder, index, all_of_them if carrier == "local" else None)
        for index in range(nodes)
    ]
    running = Cluster(members, folder)
    try:
        yield running
    finally:
        await running.close()


async def start_member(folder: Path, index: int, host: Host | None = None) -> Member:
    """One started node with its spool under ``folder``; in a process of its own without ``host``.

    As far as its messages are concerned: all nodes are in the process of the test.
    """
    me = node_identity(index)
    if host is None:
        host = Host(1, Transport.GRPC if carrier == "grpc" else Transport.TRUNK)
        if carrier == "trunk":
            host.listen(f"unix:{folder}/trunk-{index}.sock")
    node = EdgeNode(index, folder / f"node-{index}", shared(SECRET, me), host=host)
    address = await node.start(f"unix:{folder}/node-{index}.sock")
    stamps = CommandStamps(node.commands.session)
    channel = as_controller(address, me, stamps)
    control: Any = pb_grpc.ControlStub(channel)
    tasks: Any = pb_grpc.TasksStub(channel)
    return Member(node, channel, control, tasks, stamps)


def as_controller(address: str, node: Identity, stamps: CommandStamps) -> grpc.aio.Channel:
    """A channel over which a controller commands a node."""
    return connect(address, shared(SECRET, CONTROLLER), node, stamps=stamps)


def kinds(records: Sequence[Record]) -> list[str]:
    """What happened to a task, as one list of words."""
    return [record.kind.value for record in records]


def _path(scheduler: type) -> str:
    return f"{scheduler.__module__}:{scheduler.__name__}"


def defects(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged with a traceback, but for what gRPC says of the loop of an earlier test."""
    return [
        f"{record.getMessage()}: {record.exc_info[1]!r}"
        for record in caplog.records
        if record.exc_info and "Event loop is closed" not in str(record.exc_info[1])
    ]
