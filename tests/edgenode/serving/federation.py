"""Real serving nodes in this process, and a controller's worth of calls to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio

from edgenode.host import Host, Transport
from edgenode.node import EdgeNode
from testbed.model.serving.bus import Bus
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.record import RequestRecord, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.rpc import front
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.channels import connect
from testbed.rpc.codec import decode_decision
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.rpc.serving import decode_requests, decode_windows
from testbed.scenario.plan import SchedulerSpec, Seeds, ServingPlan
from testbed.scenario.plan.serving import Horizon
from tests.edgenode.controlled import Controlled

SECRET = "a secret of all"
PATIENCE = 20.0
"""Seconds after which something that should have happened has not."""


def plan(
    *max_rates: int,
    functions: Sequence[str] = ("f",),
    time: Micros = 5 * MILLISECOND,
    scheduler: str = "fixed-shares",
    options: dict[str, Any] | None = None,
    neighbours: Sequence[Sequence[int]] | None = None,
    enforce: bool = False,
    period: Micros = SECOND,
    window: Micros = SECOND,
    length: Micros = 60 * SECOND,
    bus: Bus | None = None,
    time_scale: float = 1.0,
) -> ServingPlan:
    """Return a plan for nodes with limits of ``max_rates``, in which all are neighbours."""
    nodes = range(len(max_rates))
    everybody = [[peer for peer in nodes if peer != node] for node in nodes]
    network = ServingNetwork(
        tuple(Function(name, time, max_rates) for name in functions),
        tuple(map(tuple, everybody if neighbours is None else neighbours)),
        enforce_limits=enforce,
        window=window,
    )
    return ServingPlan(
        name="federation",
        scenario_hash="0",
        seeds=Seeds(1, 2, 3, 4),
        scheduler=SchedulerSpec(scheduler, options or {}),
        episodes=1,
        network=network,
        bus=bus or Bus(delay=0, seed=2),
        timetable=Timetable(period),
        users=(),
        horizon=Horizon(length),
        time_scale=time_scale,
    )


@dataclass
class Member:
    """One node and the controller's side of its connection."""

    node: EdgeNode
    channel: grpc.aio.Channel
    control: Any
    requests: list[RequestRecord] = field(default_factory=list)
    windows: list[WindowRecord] = field(default_factory=list)
    routings: list[RoutingRecord] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def url(self, path: str = "/f") -> str:
        return f"http://{self.node.http}{path}"

    @property
    def token(self) -> str:
        """What the controller shows at this node's front."""
        return front.token_for(self.node.http_key, CONTROLLER)

    @property
    def counts(self) -> dict[str, int]:
        """What the windows have counted of the first function."""
        total: dict[str, int] = {}
        for window in self.windows:
            for name, count in window.counts[0].items():
                total[name] = total.get(name, 0) + count
        return total


@dataclass
class Answer:
    """What a client of a front gets."""

    status: int
    headers: dict[str, str]
    document: Any

    @property
    def outcome(self) -> str:
        return self.headers[front.OUTCOME]

    @property
    def server(self) -> str | None:
        return self.headers.get(front.SERVER)


class Federation(Controlled[Member]):
    """Nodes, clients of theirs, and a controller's worth of calls."""

    patience = PATIENCE

    def __init__(self, members: list[Member], client: aiohttp.ClientSession) -> None:
        super().__init__(members)
        self.client = client

    async def configure(
        self, plan: ServingPlan, *, run: str = "run", standby: bool = False, **changes: Any
    ) -> None:
        """Configure all nodes; ``changes`` are of each node's request."""
        spec = plan.scheduler
        for member in self.members:
            request = pb.ConfigureRequest(
                run=run,
                plan_json=plan.to_json(),
                peers=[
                    pb.PeerAddress(node=m.node.index, address=m.node.address, http=m.node.http)
                    for m in self.members
                ],
                http_tokens=[
                    front.token_for(m.node.http_key, node_identity(member.node.index))
                    for m in self.members
                ],
                scheduler=spec.name,
                options_json=spec.options_json,
                standby=standby,
            )
            for name, value in changes.items():
                setattr(request, name, value)
            await member.control.Configure(request)

    async def get(
        self,
        node: int = 0,
        path: str = "/f",
        *,
        method: str = "GET",
        data: Any = None,
        number: int | None = None,
        episode: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request to a node; with ``number`` as the controller does."""
        member = self.members[node]
        sent = dict(headers or {})
        if number is not None:
            sent |= {front.REQUEST: front.request_name(episode, number), front.TOKEN: member.token}
        async with self.client.request(
            method, member.url(path), data=data, headers=sent
        ) as response:
            text = await response.text()
            return Answer(
                response.status, dict(response.headers), json.loads(text) if text else None
            )

    def _take(self, member: Member, batch: pb.EventBatch) -> None:
        for request in decode_requests(batch.requests):
            self.members[request.source].requests.append(request)
        for window in decode_windows(batch.windows):
            self.members[window.node].windows.append(window)
        for routing in map(decode_decision, batch.decisions):
            self.members[routing.node].routings.append(routing)
        member.ticks.extend(batch.ticks)
        for failure in batch.failures:
            self.members[failure.node].failures.append(failure.reason)


@asynccontextmanager
async def federation(
    folder: Path, nodes: int = 2, *, together: bool = True
) -> AsyncIterator[Federation]:
    """``nodes`` started nodes that know nothing yet; ``together``: as if in one process."""
    host = Host(nodes)
    members = []
    for index in range(nodes):
        me = node_identity(index)
        node = EdgeNode(
            index,
            folder / f"node-{index}",
            shared(SECRET, me),
            host=host if together else Host(1, Transport.GRPC),
        )
        address = await node.start(f"unix:{folder}/node-{index}.sock", http="127.0.0.1:0")
        stamps = CommandStamps(node.commands.session)
        channel = connect(address, shared(SECRET, CONTROLLER), me, stamps=stamps)
        members.append(Member(node, channel, pb_grpc.ControlStub(channel)))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        running = Federation(members, client)
        try:
            yield running
        finally:
            await running.close()
