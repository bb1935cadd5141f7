"""The same seeded workload in virtual time and on real nodes: the same history of every task.

The schedulers here decide from the task alone, and no deadline is close to an ending, so a
millisecond more or less on the real network changes nothing but times. This is what says that a
policy trained on simulations or on their logs meets the same system on real nodes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from testbed.model.distributions import Uniform
from testbed.model.events import Record, RecordKind
from testbed.model.task import Task
from testbed.model.topology import LinkDelays
from testbed.model.units import SECOND
from testbed.model.workload import Workload
from testbed.scenario.plan import Payload, Plan
from testbed.sim.simulator import simulate_episode
from tests.edgenode.network import Cluster, cluster, plan

# Whatever carries the messages, they mean the same.
pytestmark = pytest.mark.usefixtures("carrier")

TOLERANCE = 200_000
"""Microseconds by which a task's end may differ: what the network adds to each transmission of a
queue, on a machine that is busy with other tests."""


def busy_plan(payload: Payload, deadline: float) -> Plan:
    """Three nodes, some fifty tasks, failures on links and in execution."""
    base = plan(nodes=3, rate=30_000_000, alpha=2.0, beta=2.0, payload=payload)
    workload = Workload(
        slots=25,
        slot=40_000,
        size_bytes=Uniform(200_000, 1_000_000),
        complexity=Uniform(3.0, 9.0),
        deadline=Uniform(deadline, deadline),
    )
    topology = dataclasses.replace(base.topology, arrival_probability=(0.5, 0.7, 0.9))
    return dataclasses.replace(base, workload=workload, topology=topology)


async def play(network: Cluster, plan: Plan) -> list[Task]:
    """One episode, whose arrivals the nodes are told ahead; all its tasks, when they have ended."""
    everything = [task for tasks in plan.tasks(0) for task in tasks]
    for node in range(plan.topology.size):
        own = [task for task in everything if task.source == node]
        await network.tell(*own, until=plan.workload.slots, node=node)
    await network.ended(*everything)
    return everything


SLOW_LINKS = ((0, 5_000, 90_000), (20_000, 0, 1), (0, 150_000, 0))
"""Control delays of three nodes; some are longer than a transmission."""


@pytest.mark.parametrize(
    ("scheduler", "payload", "link_delays"),
    [
        ("local", "bytes", None),
        ("local", "metadata", None),
        ("random", "bytes", None),
        ("random", "metadata", None),
        ("random", "metadata", SLOW_LINKS),
    ],
)
async def test_real_nodes_tell_the_history_of_the_simulator(
    tmp_path: Path, scheduler: str, payload: Payload, link_delays: LinkDelays | None
) -> None:
    given = busy_plan(payload, deadline=30 * SECOND)
    rules = dataclasses.replace(given.rules, link_delays=link_delays)
    given = dataclasses.replace(given, rules=rules)
    simulated = simulate_episode(given, 0, scheduler)
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(given, scheduler)
        await network.start()
        tasks = await play(network, given)
        assert len(simulated.outcomes) == len(tasks) > 40
        assert len(set(simulated.outcomes.values())) >= 2, "choose rates with failures"

        for task in tasks:
            real, virtual = network.history(task.id), history(simulated.records, task.id)
            assert steps(real) == steps(virtual)
            assert abs(elapsed(real) - elapsed(virtual)) < TOLERANCE

        # What one node generates is sent and executed in the same order on both.
        for source in range(3):
            order = [r for m in network.members for r in started(m.records, source)]
            assert order == [r for n in range(3) for r in started(simulated.records, source, n)]


def history(records: list[Record], task_id: int) -> list[Record]:
    found = [record for record in records if record.task.id == task_id]
    return sorted(found, key=lambda record: record.seq)


def elapsed(records: list[Record]) -> int:
    assert records[-1].kind is RecordKind.ENDED
    return int(records[-1].data["elapsed"])


def steps(records: list[Record]) -> list[tuple[object, ...]]:
    """What happened to a task and where, without the times."""
    return [
        (
            record.kind,
            record.seq,
            record.node,
            *(record.data.get(key) for key in ("destination", "peer", "sender", "nominal")),
            *(record.data.get(key) for key in ("outcome", "stage")),
        )
        for record in records
    ]


def started(records: list[Record], source: int, node: int | None = None) -> list[int]:
    """Tasks of one source in the order in which a node (None: any) began to execute them."""
    return [
        record.task.id
        for record in records
        if record.kind is RecordKind.EXECUTION_STARTED
        and record.task.source == source
        and (node is None or record.node == node)
    ]
