"""Episodes against nodes that do not answer, answer late, or refuse: all in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from controller import episode as module
from controller.episode import Episode, Seen
from testbed.errors import TemporaryError
from testbed.model.events import Record, RecordKind
from testbed.model.faults import Fault, Timeline
from testbed.model.task import Task
from testbed.model.units import SECOND
from testbed.model.workload import tasks_of_episode
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import Plan
from testbed.testing.runtime import small_plan

PATIENCE_S = 30.0


class Silent:
    """Takes what it is told, and never says what became of a task.

    ``begun`` is the first slot that it has not begun, whatever its clock would say; it does not
    answer at all while ``mute``.
    """

    def __init__(self, *, begun: int = 0, mute: bool = False) -> None:
        self.begun = begun
        self.mute = mute
        self.told: list[pb.Arrivals] = []
        self.tasks: dict[int, int] = {}
        self.until = 0
        self._news = asyncio.Condition()

    async def arrive(self, arrivals: pb.Arrivals) -> pb.ArrivalsTaken:
        if self.mute:
            await asyncio.sleep(0.01)
            raise TemporaryError("it says nothing")
        return await self.take(arrivals)

    async def take(self, arrivals: pb.Arrivals) -> pb.ArrivalsTaken:
        assert arrivals.first <= self.until
        first = max(arrivals.first, self.begun)
        self.tasks = {slot: task for slot, task in self.tasks.items() if slot < first}
        self.tasks |= {task.slot: task.id for task in arrivals.tasks if task.slot >= first}
        self.until = max(arrivals.until, first)
        async with self._news:
            self.told.append(arrivals)
            self._news.notify_all()
        return pb.ArrivalsTaken(number=arrivals.number, first=first, next=self.begun)

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.told) >= count)


async def start(
    plan: Plan,
    nodes: Sequence[Silent | None],
    number: int = 0,
    *,
    changed: Callable[[], None] = lambda: None,
    late: Callable[[int], None] = lambda lateness: None,
    awake: Callable[[], float] | None = None,
) -> Episode:
    """An episode that has begun at all its nodes."""
    made = Episode(plan, number, nodes, Seen(set(), late, changed, awake))
    for index, node in enumerate(nodes):
        if node is not None:
            first = made.first_arrivals(index)
            assert first is not None
            await node.take(first)
            made.prepared(index)
    made.begin()
    return made


async def begun(plan: Plan, nodes: Sequence[Silent | None], slots: int) -> Episode:
    """An episode of which ``slots`` slots have begun."""
    news = asyncio.Event()
    tried = await start(plan, nodes, changed=news.set)
    while tried.slot + 1 < slots:
        news.clear()
        await news.wait()
    return tried


def generated(task: Task, clock: int) -> Record:
    """What a node says of an arrival."""
    return Record(RecordKind.GENERATED, task, 0, task.source, 0, clock, {})


def tasks_of(plan: Plan, number: int = 0) -> list[Task]:
    """All tasks of an episode, in order."""
    slots = tasks_of_episode(
        plan.workload, plan.topology.arrival_probability, plan.seeds.workload, number
    )
    return [task for tasks in slots for task in tasks]


@pytest.fixture
def far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are told all slots of an episode at its start."""
    monkeypatch.setattr(module, "AHEAD_S", 1e9)


def slow(plan: Plan) -> Plan:
    """The same with slots of an hour, of which only the first begins in a test."""
    return replace(plan, workload=replace(plan.workload, slot=3600 * SECOND))


def quick(slots: int, nodes: int = 1) -> Plan:
    """Slots that are all due within ``slots`` microseconds."""
    plan = small_plan(nodes)
    return replace(plan, workload=replace(plan.workload, slots=slots, slot=1))


async def test_the_hard_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    late: list[int] = []
    node = Silent()
    # Node 1 takes no part.
    plan = small_plan(2)
    began = asyncio.get_running_loop().time()
    tried = await start(plan, [node, None], late=late.append)
    await tried.wait()
    lasted = asyncio.get_running_loop().time() - began
    assert tried.timed_out
    # 10 slots of 50 ms, the deadline of 400 ms, and the grace.
    assert lasted >= 1.0 - 0.01
    own = [task for task in tasks_of(plan) if task.source == 0]
    assert list(node.tasks.values()) == [task.id for task in own]
    assert len(late) == 10, "of the node that took part"
    # Nobody logged them, so each is said to have been generated and to have ended.
    assert len(tried.close()) == 2 * 20
    assert tried.ledger.outcomes["lost"] == tried.ledger.generated == 20


async def test_how_late_a_task_is_its_node_says() -> None:
    late: list[int] = []
    plan = small_plan(1)
    tried = await start(plan, [Silent()], late=late.append)
    first, second = tasks_of(plan)[:2]
    assert tried.take(generated(first, 700))
    assert tried.take(generated(second, plan.workload.slot + 300))
    assert late == [700, 300]
    tried.stop(wait=False)
    await tried.wait()


async def test_a_stop_is_bounded_however_long_deadlines_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.1)
    # A deadline lasts 400 s.
    tried = await begun(replace(quick(10), time_scale=1000.0), [Silent()], 10)
    tried.stop(wait=True)
    async with asyncio.timeout(PATIENCE_S):
        await tried.wait()
    assert not tried.timed_out
    assert len(tried.close([0])) == 2 * 10


async def test_an_episode_of_many_slots_begins_at_once() -> None:
    plan = quick(1_000_000, nodes=5)
    began = time.process_time()
    tried = await start(plan, [None] * 5)
    assert time.process_time() - began < 1.0
    tried.stop(wait=False)
    await tried.wait()


async def test_nodes_are_told_a_bounded_number_of_slots_ahead() -> None:
    plan = quick(1_000_000, nodes=2)
    first, second = Silent(), Silent()
    tried = await start(plan, [first, second])
    assert first.until == second.until == module.MOST_AHEAD // 2
    await first.until_told(4)
    # It never begins a slot, so it is told no more than some windows, however late it is.
    assert first.until <= 5 * module.MOST_AHEAD
    assert [each.first for each in first.told] == sorted(each.first for each in first.told)
    tried.stop(wait=False)
    await tried.wait()


async def test_faults_by_hand_change_the_slots_to_come_only() -> None:
    plan = small_plan(2)
    plan = replace(plan, topology=replace(plan.topology, arrival_probability=(0.5, 0.5)))
    none = Timeline([Fault("arrivals", 0, 3600 * SECOND, nodes=(0, 1), factor=0.0)], 2)
    tried = await begun(plan, [None, None], 5)
    tried.redraw(none)
    await tried.wait()
    expected = [task.id for tasks in plan.tasks(0)[:5] for task in tasks]
    ended = {record.task.id for record in tried.close()}
    assert ended == set(expected)


@pytest.mark.parametrize("begun_there", [1, 3])
@pytest.mark.usefixtures("far_ahead")
async def test_slots_that_a_node_had_begun_stay_as_it_was_told(begun_there: int) -> None:
    plan = slow(small_plan(1, slots=6))
    none = Timeline([Fault("arrivals", 0, 10**15, nodes=(0,), factor=0.0)], 1)
    node = Silent()
    tried = await start(plan, [node])
    # Its clock may be ahead of the controller's.
    node.begun = begun_there
    tried.redraw(none)
    await node.until_told(2)
    assert list(node.tasks) == list(range(begun_there))
    tried.stop(wait=True)
    await node.until_told(3)
    for _ in range(3):
        await asyncio.sleep(0)
    assert tried.ledger.generated == begun_there
    tried.stop(wait=False)
    await tried.wait()
    assert {record.task.slot for record in tried.close([0])} == set(range(begun_there))


@pytest.mark.usefixtures("far_ahead")
async def test_a_stop_takes_back_what_has_not_begun() -> None:
    node = Silent()
    tried = await start(slow(small_plan(1, slots=6)), [node])
    assert len(node.tasks) == 6
    node.begun = 1
    tried.stop(wait=True)
    await node.until_told(2)
    assert (node.until, list(node.tasks)) == (1, [0])
    assert not tried.over.is_set(), "a task that has arrived may end"
    tried.stop(wait=False)
    await tried.wait()
    assert tried.ledger.generated == 1


@pytest.mark.usefixtures("far_ahead")
async def test_what_a_silent_node_may_have_begun_counts_as_arrived_and_lost() -> None:
    node = Silent(mute=True)
    tried = await start(slow(small_plan(1, slots=6)), [node])
    tried.stop(wait=True)
    await asyncio.sleep(0.05)
    assert not tried.over.is_set()
    tried.stop(wait=False)
    await tried.wait()
    assert len(tried.close()) == 2 * 6
    assert tried.ledger.outcomes["lost"] == tried.ledger.generated == 6


async def test_what_is_told_again_is_the_same_message() -> None:
    node = Silent(mute=True)
    plan = small_plan(1, slots=200)
    plan = replace(plan, workload=replace(plan.workload, slot=200_000))
    none = Timeline([Fault("arrivals", 0, 10**15, nodes=(0,), factor=0.0)], 1)
    tried = await start(plan, [node])
    tried.redraw(none)
    await asyncio.sleep(0.05)
    node.mute = False
    await node.until_told(2)
    assert [each.number for each in node.told] == [1, 2]
    tried.stop(wait=False)
    await tried.wait()


async def test_all_that_should_have_arrived_before_the_bound_is_lost_and_not_forgotten() -> None:
    plan = small_plan(2, slots=200)
    late: list[int] = []
    clock = iter([0.0, 1e9])
    tried = await start(plan, [Silent(), None], 4, late=late.append, awake=lambda: next(clock))
    await tried.wait()
    arrivals = {task.id for task in tasks_of(plan, 4)}
    records = tried.close()
    assert {record.task.id for record in records} == arrivals
    assert tried.ledger.generated == tried.ledger.outcomes["lost"] == len(arrivals) == 400
    assert tried.overdue is not None
    assert (tried.overdue.not_begun, tried.overdue.open) == (200, 400)
    assert len(late) == 200, "the tasks of the node that took part"


async def test_a_node_that_dies_loses_what_it_was_told_and_what_is_to_come() -> None:
    plan = small_plan(2)
    node = Silent()
    tried = await begun(plan, [node, None], 3)
    tried.node_died(0)
    await tried.wait()
    assert not tried.timed_out
    records = tried.close()
    assert {record.task.id for record in records} == {task.id for task in tasks_of(plan)}
    assert tried.ledger.outcomes["lost"] == tried.ledger.generated == 20


async def test_a_run_that_is_stopped_generates_nothing_more() -> None:
    tried = Episode(
        small_plan(1, slots=1000),
        0,
        [Silent()],
        Seen(set(), lambda lateness: None, lambda: None),
    )
    tried.begin(asyncio.get_running_loop().time() + 3600)
    tried.stop(wait=True)
    await tried.wait()
    assert not tried.timed_out
    assert tried.ledger.generated == 0
