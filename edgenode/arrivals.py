"""The arrivals at one node in one episode: told ahead by the controller, released by its own clock.

The controller alone draws tasks. It tells a node some seconds ahead which ones arrive in the slots
to come, and the node hands each to its model at the instant at which its slot begins. Slots without
a task are made here, if the plan logs them. What was told can be replaced for slots that have not
begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from edgenode.clock import Urgency
from edgenode.driving import Driver
from testbed.model.events import SlotIdle
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import task_from_message
from testbed.scenario.plan import Plan

AT_ONCE_S: Final = 0.002
"""Seconds for which a node that is behind begins slots before the event loop has its turn."""


def refusal(plan: Plan, node: int, episode: int, told: pb.Arrivals) -> str:
    """Return why these cannot be arrivals at ``node`` in ``episode``; empty if they can."""
    slots = plan.workload.slots
    if told.episode != episode or told.number < 1:
        return f"arrivals {told.number} of episode {told.episode} are none of episode {episode}"
    if not 0 <= told.first <= told.until <= slots:
        return f"slots {told.first} to {told.until} are not in an episode of {slots} slots"
    earlier = told.first - 1
    for task in told.tasks:
        own = (task.source, task.episode) == (node, episode)
        least = min(task.size_bytes, task.cycles, task.deadline)
        if not own or least < 0 or not earlier < task.slot < told.until:
            return (
                f"task {task.id} of node {task.source} cannot arrive at node {node} in slot "
                f"{task.slot} of episode {task.episode}"
            )
        earlier = task.slot
    return ""


class Arrivals:
    """Releases the arrivals of a driver's episode.

    ``next`` is the first slot that has not begun. Without the plan's ``log_idle_slots`` only slots
    with a task are begun.
    """

    def __init__(self, driver: Driver) -> None:
        self.next = 0
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._until = 0
        self._tasks: deque[Task] = deque()
        self._last = -1
        self._answer = pb.ArrivalsTaken()
        self._armed: Micros | None = None
        self._turn_ends: float | None = None
        self._waits = False
        self._closed = False

    @property
    def finished(self) -> bool:
        """Whether no task is to arrive any more in this episode."""
        return self._until >= self._driver.plan.workload.slots and not self._tasks

    def take(self, told: pb.Arrivals) -> pb.ArrivalsTaken:
        """Take what the controller tells of the slots to come, and return the answer to it.

        Raises: ValueError: these cannot be arrivals here; then nothing has changed.
        """
        if told.number == self._answer.number:
            # The answer was lost; what it said holds.
            return self._answer
        driver = self._driver
        wrong = refusal(driver.plan, driver.node, driver.episode, told)
        if not wrong and told.first > self._until:
            wrong = f"slots {self._until} to {told.first} of episode {told.episode} were left out"
        first = max(told.first, self.next)
        coming = [task_from_message(task) for task in told.tasks if task.slot >= first]
        if not wrong:
            wrong = self._out_of_order(first, coming)
        if wrong:
            raise ValueError(wrong)
        while self._tasks and self._tasks[-1].slot >= first:
            self._tasks.pop()
        self._tasks += coming
        self._until = max(first, told.until)
        following = self._following()
        self._answer = pb.ArrivalsTaken(
            number=told.number,
            first=first,
            next=self._until if following is None else following,
        )
        self._arm()
        return self._answer

    def close(self) -> None:
        """Release nothing more."""
        self._closed = True
        self._tasks.clear()

    def _out_of_order(self, first: int, coming: Sequence[Task]) -> str:
        """Return which task has not a higher number than those before it; empty if all have.

        So no task arrives twice.
        """
        kept = (task.id for task in reversed(self._tasks) if task.slot < first)
        last = next(kept, self._last)
        for task in coming:
            if task.id <= last:
                return f"task {task.id} cannot arrive at node {task.source} after task {last}"
            last = task.id
        return ""

    def _following(self) -> int | None:
        """Return the next slot to begin; None if none is known."""
        if self._driver.plan.log_idle_slots:
            return self.next if self.next < self._until else None
        return self._tasks[0].slot if self._tasks else None

    def _arm(self) -> None:
        slot = self._following()
        if slot is None or self._closed:
            return
        timers, at = self._driver.timers, slot * self._driver.plan.workload.slot
        if self._armed == at:
            return
        self._armed = at
        timers.at(at, Urgency.ARRIVAL, self._ring)

    def _ring(self, at: Micros) -> None:
        if at != self._armed:
            # It was set for a slot that was replaced.
            return
        self._armed = None
        slot = self._following()
        if slot is None or slot * self._driver.plan.workload.slot > at:
            self._arm()
            return
        self.next = slot + 1
        if self._tasks and self._tasks[0].slot == slot:
            task = self._tasks.popleft()
            self._last = task.id
            self._driver.arrived(task, at)
        else:
            # After the tasks of all who share this event loop: nobody waits for an idle slot.
            self._loop.call_soon(self._driver.handle, SlotIdle(self._driver.episode, slot), at)
        self._go_on()

    def _go_on(self) -> None:
        """Set the timer of the next slot; what else is due has its turn before many more."""
        now = self._loop.time()
        if self._turn_ends is None:
            self._turn_ends = now + AT_ONCE_S
            self._loop.call_soon(self._next_turn)
        if now < self._turn_ends:
            self._arm()
        else:
            self._waits = True

    def _next_turn(self) -> None:
        self._turn_ends = None
        if self._waits:
            self._waits = False
            self._arm()
