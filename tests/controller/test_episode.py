"""Episodes against nodes that do not answer, do not read, or come back: all in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from controller import episode as module
from controller.episode import Episode
from controller.link import Delivery, NodeLink, Submission
from testbed.model.faults import Fault, Timeline
from testbed.model.units import SECOND
from testbed.model.workload import tasks_of_episode
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER
from testbed.scenario.plan import Plan
from testbed.testing.runtime import small_plan

PATIENCE_S = 30.0


class Silent(pb_grpc.TasksServicer):
    """Takes every slot, once it reads at all, and never says what became of a task."""

    def __init__(self, *, answers: bool = True) -> None:
        self.taken: list[tuple[int, bool]] = []
        self.episodes: list[int] = []
        self.streams = 0
        self.reads = asyncio.Event()
        self._answers = answers
        self._news = asyncio.Condition()

    async def Submit(
        self, request_iterator: AsyncIterator[pb.SlotTask], context: Any
    ) -> AsyncIterator[pb.SlotTaskTaken]:
        self.streams += 1
        await self.reads.wait()
        async for slot in request_iterator:
            self.taken.append((slot.slot, slot.HasField("task")))
            self.episodes.append(slot.episode)
            async with self._news:
                self._news.notify_all()
            if self._answers:
                yield pb.SlotTaskTaken(slot=slot.slot, episode=slot.episode)

    async def until_taken(self, episode: int, slot: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(
                lambda: self.taken and (self.episodes[-1], self.taken[-1][0]) == (episode, slot)
            )


async def ignore_events(link: NodeLink, batch: pb.EventBatch) -> None:
    raise AssertionError("nobody sends any")


@asynccontextmanager
async def serving(node: Silent, bind: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = grpc.aio.server()
    pb_grpc.add_TasksServicer_to_server(node, server)
    address = f"127.0.0.1:{server.add_insecure_port(bind)}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


@asynccontextmanager
async def linked(node: Silent) -> AsyncIterator[NodeLink]:
    async with serving(node) as address:
        link = NodeLink(0, address, ignore_events, shared("secret", CONTROLLER))
        try:
            yield link
        finally:
            await link.close()


def episode(
    plan: Plan,
    submissions: list[Submission | None],
    number: int = 0,
    changed: Callable[[], None] = lambda: None,
) -> Episode:
    return Episode(
        plan,
        number,
        submissions,
        lost=set(),
        late=lambda lateness: None,
        changed=changed,
    )


async def begun(plan: Plan, submissions: list[Submission | None], slots: int) -> Episode:
    """An episode of which ``slots`` slots have begun."""
    news = asyncio.Event()
    tried = episode(plan, submissions, changed=news.set)
    while tried.slot + 1 < slots:
        news.clear()
        await news.wait()
    return tried


def quick(slots: int, nodes: int = 1) -> Plan:
    """Slots that are all due within ``slots`` microseconds."""
    plan = small_plan(nodes)
    return replace(plan, workload=replace(plan.workload, slots=slots, slot=1))


async def test_the_hard_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    node = Silent()
    node.reads.set()
    late: list[int] = []
    async with linked(node) as link:
        # Node 1 takes no part.
        tried = Episode(
            small_plan(2),
            0,
            [link.submission(), None],
            lost=set(),
            late=late.append,
            changed=lambda: None,
        )
        began = asyncio.get_running_loop().time()
        await tried.wait()
        lasted = asyncio.get_running_loop().time() - began
    assert tried.timed_out
    # 10 slots of 50 ms, the deadline of 400 ms, and the grace.
    assert lasted >= 1.0 - 0.01
    assert node.taken == [(slot, True) for slot in range(10)]
    assert len(late) == 10
    # Nobody logged them, so each is said to have been generated and to have ended.
    assert len(tried.ledger.close(tried.now)) == 2 * 20
    assert tried.ledger.outcomes["lost"] == tried.ledger.generated == 20


async def test_a_stop_is_bounded_however_long_deadlines_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.1)
    node = Silent()
    node.reads.set()
    async with linked(node) as link:
        # A deadline lasts 400 s.
        tried = await begun(replace(quick(10), time_scale=1000.0), [link.submission()], 10)
        tried.stop(wait=True)
        async with asyncio.timeout(PATIENCE_S):
            await tried.wait()
    assert not tried.timed_out
    assert len(tried.ledger.close(tried.now)) == 2 * 10


async def test_an_episode_of_many_slots_begins_at_once() -> None:
    plan = quick(1_000_000, nodes=5)
    began = time.process_time()
    tried = episode(plan, [None] * 5)
    assert time.process_time() - began < 1.0
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
    ended = {record.task.id for record in tried.ledger.close(tried.now)}
    assert ended == set(expected)


async def test_the_bound_costs_no_stream_although_a_write_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    node = Silent()
    async with linked(node) as link:
        submission = link.submission()
        # More than the window of an unread stream holds.
        first = episode(quick(20_000), [submission])
        await first.wait()
        assert first.overdue is not None
        assert 0 < first.overdue.not_sent < 20_000
        assert first.overdue.arrivals == first.overdue.open == 20_000
        node.reads.set()
        second = episode(quick(3), [submission], number=1)
        await node.until_taken(1, 2)
        second.stop(wait=False)
        await second.wait()
    assert node.streams == 1
    of_second = [slot for at, slot in zip(node.episodes, node.taken, strict=True) if at == 1]
    assert of_second == [(slot, True) for slot in range(3)]
    assert len(first.ledger.close(first.now)) == 2 * 20_000


async def test_all_that_should_have_arrived_before_the_bound_is_lost_and_not_forgotten() -> None:
    plan = small_plan(2, slots=200)
    late: list[int] = []
    clock = iter([0.0, 1e9])
    async with linked(Silent()) as link:
        tried = Episode(
            plan,
            4,
            [link.submission(), None],
            lost=set(),
            late=late.append,
            changed=lambda: None,
            awake=lambda: next(clock),
        )
        await tried.wait()
    arrivals = {
        task.id
        for tasks in tasks_of_episode(
            plan.workload, plan.topology.arrival_probability, plan.seeds.workload, 4
        )
        for task in tasks
    }
    records = tried.ledger.close(tried.now)
    assert {record.task.id for record in records} == arrivals
    assert tried.ledger.generated == tried.ledger.outcomes["lost"] == len(arrivals) == 400
    assert tried.overdue is not None
    assert (tried.overdue.not_sent, tried.overdue.open) == (200, 400)
    assert len(late) == 200, "the slots of the node that took part, sent or not"


async def test_a_run_that_is_stopped_generates_nothing_more() -> None:
    async with linked(Silent()) as link:
        tried = episode(small_plan(1, slots=1000), [link.submission()])
        tried.stop(wait=True)
        await tried.wait()
    assert not tried.timed_out
    assert tried.ledger.generated == 0


async def test_slots_not_answered_are_sent_again_when_the_stream_was_cut() -> None:
    forgetful, again = Silent(answers=False), Silent()
    forgetful.reads.set()
    again.reads.set()
    plan = quick(5)
    tasks = {
        task.slot: task
        for slot in tasks_of_episode(plan.workload, (1.0,), plan.seeds.workload, 0)
        for task in slot
    }
    written: list[int] = []
    async with serving(forgetful) as address:
        link = NodeLink(0, address, ignore_events, shared("secret", CONTROLLER))
        submission = link.submission()
        submission.begin(Delivery(0, tasks, True, written.append))
        submission.due(3)
        await forgetful.until_taken(0, 3)
    async with serving(again, address):
        await again.until_taken(0, 3)
        submission.due(4)
        await again.until_taken(0, 4)
        await link.close()
    assert again.taken == [(slot, True) for slot in range(5)]
    assert written == list(range(5)), "each is told once"


async def test_slots_without_a_task_are_sent_only_if_they_are_logged() -> None:
    node = Silent()
    node.reads.set()
    plan = quick(6)
    [task, *_] = tasks_of_episode(plan.workload, (1.0,), plan.seeds.workload, 0)[0]
    async with linked(node) as link:
        submission = link.submission()
        submission.begin(Delivery(0, {2: task, 5: task}, False, lambda slot: None))
        submission.due(5)
        await node.until_taken(0, 5)
        submission.begin(Delivery(1, {2: task}, True, lambda slot: None))
        submission.due(2)
        await node.until_taken(1, 2)
    assert node.taken == [(2, True), (5, True), (0, False), (1, False), (2, True)]
