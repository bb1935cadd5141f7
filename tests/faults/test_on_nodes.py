"""Faults on real nodes: the same history of every task as in the simulator."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edgenode.payload import Inbox
from testbed.model.distributions import Constant
from testbed.model.events import Record, RecordKind
from testbed.model.fault_effects import expect
from testbed.model.faults import Fault, FaultSpec, Timeline
from testbed.model.units import MILLISECOND, SECOND
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import Payload, Plan
from testbed.sim.simulator import simulate_episode
from tests.edgenode.network import AskFirst, SendTo, cluster, kinds, plan, task
from tests.edgenode.test_differential import TOLERANCE, busy_plan, history, play, steps
from tests.faults.plans import fault, with_faults

# Whatever carries the messages, they mean the same.
pytestmark = pytest.mark.usefixtures("carrier")

MS = MILLISECOND

HARMLESS: dict[str, FaultSpec] = {
    "slow-node": fault("slow-node", 150 * MS, 700 * MS, nodes=(0, 1), factor=0.3),
    "link-rate": fault(
        "link-rate", 100 * MS, 800 * MS, sources=(0, 1, 2), destinations=(0, 1, 2), factor=0.2
    ),
    "partition": fault(
        "partition", 210 * MS, 600 * MS, sources=(2,), destinations=(0, 1), both_ways=True
    ),
    "hung": fault("node-down", 210 * MS, 600 * MS, nodes=(1,), mode="hung"),
    "arrivals": fault("arrivals", 0, 500 * MS, nodes=(0,), factor=2.0),
    "failures": fault("node-failures", 0, 9 * SECOND, nodes=(0,), failure_rate=20.0),
}
"""Faults under which no outcome hangs on a millisecond."""


class Unit(NamedTuple):
    """A transmission (to ``peer``) or an execution that succeeded, in model time."""

    node: int
    peer: int | None
    begin: int
    nominal: int
    lasted: int


def units(records: list[Record]) -> Iterator[Unit]:
    """What was done for a task.

    A transmission lasts until its hand-over, whose instant the receiver is told as the task's age.
    """
    by_kind = {record.kind: record for record in records}
    generated, end = by_kind[RecordKind.GENERATED], by_kind[RecordKind.ENDED]
    sending, received = (
        by_kind.get(kind) for kind in (RecordKind.TRANSMISSION_STARTED, RecordKind.RECEIVED)
    )
    if sending is not None and received is not None:
        age = sending.at - generated.at
        lasted = int(received.data["elapsed"]) - age
        peer, nominal = int(sending.data["peer"]), int(sending.data["nominal"])
        yield Unit(sending.node, peer, sending.at, nominal, lasted)
    executing = by_kind.get(RecordKind.EXECUTION_STARTED)
    if executing is not None and end.data["outcome"] == "succeeded":
        nominal = int(executing.data["nominal"])
        yield Unit(executing.node, None, executing.at, nominal, end.at - executing.at)


def check_units(done: list[Unit], timeline: Timeline, payload: Payload) -> None:
    """Each unit lasts as long as the faults demand from the instant on at which it began.

    That says nothing of when it began, so a task that waits because one before it met the fault a
    moment earlier than in the simulator makes no difference. No unit is ever done too early, and
    executions last to the microsecond, however busy the machine is.
    """
    touched = at_an_edge = late = 0
    held: list[int] = []
    free = [1]
    for unit in done:
        expected = expect(timeline, (unit.node, unit.peer), unit.begin, unit.nominal, 0.0, 0)
        assert expected.duration is not None
        off = unit.lasted - expected.duration
        touched += abs(expected.duration - unit.nominal) > 1
        if unit.peer is None:
            # It begins and ends by timers, which ring for the instants they were set for.
            assert abs(off) <= 1, unit
            continue
        assert off >= -1, unit
        due = unit.begin + expected.duration
        if any(fault.begin - TOLERANCE <= due < fault.begin for fault in timeline.faults):
            # What the network did not take in time may meet the fault that it should just miss.
            at_an_edge += 1
        else:
            late += off > TOLERANCE
            (held if abs(expected.duration - unit.nominal) > 1 else free).append(off)
    assert at_an_edge < 0.25 * len(done)
    # A busy machine keeps bytes waiting, whatever they met; a fault that holds for too long keeps
    # all those that met it. What it held goes out at one instant, so bytes may all wait then.
    assert late < 0.1 * len(done)
    assert not held or min(held) <= max(*free, TOLERANCE if payload == "bytes" else 0)
    assert touched > 0 or {fault.kind for fault in timeline.faults} <= NO_SLOWER


NO_SLOWER = {"arrivals", "node-failures"}
"""Faults under which what succeeds takes as long as ever."""


@pytest.mark.parametrize("payload", ["bytes", "metadata"])
@pytest.mark.parametrize("name", HARMLESS)
async def test_real_nodes_tell_the_history_of_the_simulator(
    tmp_path: Path, name: str, payload: Payload
) -> None:
    given = with_faults(busy_plan(payload, deadline=30 * SECOND), HARMLESS[name])
    if name in ("slow-node", "link-rate"):
        # How much of it is slow, and so whether it fails, would hang on when it began.
        topology = dataclasses.replace(
            given.topology,
            execution_failure_rate=(0.0,) * 3,
            link_failure_rate=((0.0,) * 3,) * 3,
        )
        given = dataclasses.replace(given, topology=topology)
    simulated = simulate_episode(given, 0, "random")
    usual = simulate_episode(dataclasses.replace(given, faults=()), 0, "random")
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(given, "random")
        await network.start()
        tasks = await play(network, given)
        assert len(simulated.outcomes) == len(tasks) > 40
        done: list[Unit] = []
        for each in tasks:
            real, virtual = network.history(each.id), history(simulated.records, each.id)
            assert steps(real) == steps(virtual)
            done.extend(units(real))
        check_units(done, given.timeline(0), payload)
        notes = [note for member in network.members for note in member.faults]
        if name != "failures":
            assert {note["what"] for note in notes} == {"applied", "released"}
        assert {note["fault"] for note in notes} == {"0.0"}
    # The fault took, in the simulator and therefore on the nodes.
    assert usual.records != simulated.records


async def test_a_killed_node_loses_its_tasks_and_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task executed there, one on its way there, one that arrives meanwhile, one after."""
    thrown_away: list[int] = []
    discard = Inbox.discard

    def noting(inbox: Inbox, sender: int, task_id: int) -> None:
        thrown_away.append(task_id)
        discard(inbox, sender, task_id)

    monkeypatch.setattr(Inbox, "discard", noting)
    down = fault("node-down", 300 * MS, 800 * MS, nodes=(1,), mode="killed")
    given = with_faults(plan(), down)
    async with cluster(tmp_path) as network:
        await network.configure(given, SendTo, destination=1)
        await network.start()
        held = task(1, source=1, execution=5 * SECOND, deadline=60 * SECOND)
        sent = task(2, source=0, size_bytes=20_000_000, deadline=60 * SECOND)
        await network.give(held, sent)
        await network.until(lambda: network.ending(1) is not None)
        meanwhile = task(3, source=1, deadline=60 * SECOND)
        await network.give(meanwhile)
        for end, stage in zip(
            await network.ended(held, meanwhile), ("execution", "deciding"), strict=True
        ):
            assert (end.data["outcome"], end.data["stage"]) == ("lost", stage)
            assert end.data["fault"] == "node-down"
        (end,) = await network.ended(sent)
        assert end.data["outcome"] == "succeeded"
        # All of it was sent again, as a new attempt: a second from the end of the fault on.
        (received,) = [r for r in network.history(2) if r.kind is RecordKind.RECEIVED]
        assert received.at > 1700 * MS
        assert thrown_away.count(2) > 1
        after = task(4, source=1, deadline=60 * SECOND)
        await network.give(after)
        (end,) = await network.ended(after)
        assert end.data["outcome"] == "succeeded"


@pytest.mark.parametrize(
    "silence",
    [
        fault("node-down", 0, 600 * SECOND, nodes=(1,), mode="killed"),
        fault("node-down", 0, 600 * SECOND, nodes=(1,), mode="hung"),
        fault("partition", 0, 600 * SECOND, sources=(0,), destinations=(1,)),
        fault("partition", 0, 600 * SECOND, sources=(1,), destinations=(0,)),
    ],
)
async def test_probes_that_do_not_get_through_are_not_answered(
    tmp_path: Path, silence: FaultSpec
) -> None:
    async with cluster(tmp_path) as network:
        await network.configure(with_faults(plan(probe_timeout=100_000), silence), AskFirst)
        await network.start()
        await network.give(task(1))
        await network.ended(task(1))
        (decision,) = network.members[0].decisions
        assert decision.observation.answers == ()
        assert kinds(network.history(1))[-1] == "ended"


async def test_faults_by_hand_begin_at_once_and_end_when_they_are_cleared(tmp_path: Path) -> None:
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        cut = Fault("partition", 0, 3600 * SECOND, links=((0, 1),))
        document = json.dumps(cut.to_document()).encode()
        for member in network:
            await member.control.SetFaults(
                pb.SetFaultsRequest(run="run", episode=0, faults=[document])
            )
        held = task(1, deadline=600 * SECOND)
        await network.give(held)
        await network.until(lambda: bool(network.members[0].faults))
        assert network.ending(1) is None
        for member in network:
            await member.control.SetFaults(pb.SetFaultsRequest(run="run", episode=0))
        (end,) = await network.ended(held)
        assert end.data["outcome"] == "succeeded"
        assert [n["what"] for n in network.members[0].faults] == ["applied", "released"]


async def test_the_end_of_the_episode_releases_every_fault(tmp_path: Path) -> None:
    """A run that is aborted ends its episode, and the next one begins without the fault."""
    first = with_faults(
        plan(), FaultSpec("node-down", Constant(600 * SECOND), at=Constant(0), nodes=(0,))
    )
    async with cluster(tmp_path) as network:
        await network.configure(first)
        await network.start()
        await network.until(lambda: bool(network.members[0].faults))
        await network.end()
        await network.until(lambda: len(network.members[0].faults) == 2)
        assert [n["what"] for n in network.members[0].faults] == ["applied", "ended"]
        await network.configure(plan(), "local", run="next")
        await network.start(run="next", listen=False)
        await network.give(task(5))
        (end,) = await network.ended(task(5))
        assert end.data["outcome"] == "succeeded"


def test_the_plan_of_these_tests_has_no_faults_of_its_own() -> None:
    assert not Plan.from_json(plan().to_json()).faults
