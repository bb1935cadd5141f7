"""A node that gets fifty times what it can execute, and is asked how it is meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.model.workload import tasks_of_episode
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.channels import connect
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.rpc.messages import task_to_message
from testbed.scenario.plan import Plan
from testbed.testing.runtime import small_plan
from tests.edgenode.standing import SECRET, a_node

SLOT = 400
"""Microseconds between two tasks; each takes 20 ms."""


def faster(plan: Plan, slot: int) -> Plan:
    """The same with slots of ``slot`` microseconds."""
    return replace(plan, workload=replace(plan.workload, slot=slot))


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


async def drown(folder: Path, *, slots: int = 2500) -> tuple[list[float], int]:
    """Give a node fifty times its work: seconds that each probe took, and its peak memory."""
    plan = faster(small_plan(2, slots=slots), SLOT)
    async with a_node(folder) as (request, process, _):
        me, peer = shared(SECRET, CONTROLLER), shared(SECRET, node_identity(1))
        stamps = CommandStamps(request.session)
        server = node_identity(0)
        async with (
            connect(request.address, me, server, stamps=stamps) as channel,
            connect(request.address, peer, server) as beside,
        ):
            control: Any = pb_grpc.ControlStub(channel)
            configure = pb.ConfigureRequest(run="r", plan_json=plan.to_json(), scheduler="local")
            await control.Configure(configure, timeout=60)
            await control.PrepareEpisode(pb.PrepareEpisodeRequest(run="r"), timeout=60)
            await control.StartEpisode(pb.StartEpisodeRequest(run="r", episode=0), timeout=60)
            flood = asyncio.create_task(_flood(channel, plan))
            waits = await _probe(beside, flood)
            await flood
            described = await control.Describe(pb.Empty(), timeout=60)
        assert described.episode == 0
        return waits, peak_bytes(process.pid)


async def _flood(channel: Any, plan: Plan) -> None:
    """Tell the node of all its tasks, and return when the last one has been due for a while."""
    slots = tasks_of_episode(plan.workload, (1.0, 0.0), plan.seeds.workload, 0)
    tasks: Any = pb_grpc.TasksStub(channel)
    began = time.monotonic()
    told = pb.Arrivals(run="r", number=1, until=len(slots))
    told.tasks.extend(task_to_message(task) for [task] in slots)
    await tasks.Arrive(told, timeout=60)
    await asyncio.sleep(max(0.0, began + len(slots) * SLOT / 1_000_000 - time.monotonic()))
    # Until it has begun them all: a node that is behind answers, but begins them later.
    asked, begun = 1, 0
    while begun < len(slots):
        asked += 1
        nothing = pb.Arrivals(run="r", number=asked, first=len(slots), until=len(slots))
        begun = (await tasks.Arrive(nothing, timeout=60)).next
        await asyncio.sleep(0.01)


async def _probe(channel: Any, flood: asyncio.Task[None]) -> list[float]:
    """Ask until the flood is over; how long each answer took, in seconds."""
    call: Any = pb_grpc.PeersStub(channel).Exchange()
    waits: list[float] = []
    while not flood.done() or not waits:
        asked = time.monotonic()
        question = pb.ProbeRequest(task_id=len(waits), sender=1, episode=0)
        await call.write(pb.PeerFrames(probes=[question]))
        await call.read()
        waits.append(time.monotonic() - asked)
        await asyncio.sleep(0.005)
    await call.done_writing()
    return waits
