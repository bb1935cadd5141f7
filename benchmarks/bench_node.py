"""One node at full speed: tasks that arrive faster than it can begin them, executed where they are.

The node is a process of its own; its tasks are told ahead, each takes 50 us of model time, and its
log is taken and acknowledged as a controller does. Rates count from the beginning of the episode to
the record of the last end.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil

from testbed.model.distributions import Constant
from testbed.model.units import SECOND
from testbed.model.workload import tasks_by_slot
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
from tests.overload.drowning import peak_bytes

TASKS: Final = 40_000
TOLD: Final = 4_000
"""Tasks of one message."""

LONGEST_S: Final = 120.0

Row = dict[str, Any]


def rows(tasks: int = TASKS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, cpu, peak = asyncio.run(_full_speed(Path(folder), tasks))
    rate = tasks / seconds
    return [
        {
            "benchmark": f"{tasks:,} tasks, sustained",
            "value": rate,
            "unit": "tasks/s",
            "at_least": 3000,
            "met": rate >= 3000,
        },
        {"benchmark": "processor time of the node", "value": 1e3 * cpu / tasks, "unit": "ms/task"},
        {"benchmark": "most memory of the node", "value": peak / 1e6, "unit": "MB"},
    ]


def plan(tasks: int) -> Plan:
    """One node, at which a task arrives every 50 us."""
    made = small_plan(1, slots=tasks)
    workload = replace(
        made.workload,
        slot=50,
        size_bytes=Constant(1000),
        complexity=Constant(6.25),
        deadline=Constant(600 * SECOND),
    )
    return replace(made, workload=workload)


async def _full_speed(folder: Path, tasks: int) -> tuple[float, float, int]:
    """Give a node its tasks: seconds until the last has ended, its CPU seconds, its peak memory."""
    given = plan(tasks)
    async with a_node(folder) as (request, process, _):
        stamps = CommandStamps(request.session)
        me, server = shared(SECRET, CONTROLLER), node_identity(0)
        async with connect(request.address, me, server, stamps=stamps) as channel:
            control: Any = pb_grpc.ControlStub(channel)
            configure = pb.ConfigureRequest(run="r", plan_json=given.to_json(), scheduler="local")
            await control.Configure(configure, timeout=60)
            messages = _messages(given)
            before = _cpu(process)
            began = time.perf_counter()
            ending = asyncio.create_task(_take_log(control, tasks))
            prepare = pb.PrepareEpisodeRequest(run="r", arrivals=messages[0])
            await control.PrepareEpisode(prepare, timeout=60)
            await control.StartEpisode(pb.StartEpisodeRequest(run="r"), timeout=60)
            stub: Any = pb_grpc.TasksStub(channel)
            for message in messages[1:]:
                await stub.Arrive(message, timeout=60)
            async with asyncio.timeout(LONGEST_S):
                await ending
            seconds = time.perf_counter() - began
        return seconds, _cpu(process) - before, peak_bytes(process.pid)


def _messages(given: Plan) -> list[pb.Arrivals]:
    slots = tasks_by_slot(given.workload, (1.0,), given.seeds.workload, 0)
    messages: list[pb.Arrivals] = []
    for first in range(0, given.workload.slots, TOLD):
        until = min(first + TOLD, given.workload.slots)
        message = pb.Arrivals(run="r", number=len(messages) + 1, first=first, until=until)
        message.tasks.extend(task_to_message(next(slots)[0]) for _ in range(first, until))
        messages.append(message)
    return messages


async def _take_log(control: Any, tasks: int) -> None:
    """Take and acknowledge the node's log until all tasks have ended."""
    call = control.Events()
    ended = 0
    async for batch in call:
        ended += sum(record.startswith(b'["ended"') for record in batch.records)
        await call.write(pb.BatchAck(run=batch.run, number=batch.number))
        if ended >= tasks:
            break
    call.cancel()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    print(os.linesep.join(map(str, rows())))
