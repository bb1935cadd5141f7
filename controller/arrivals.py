"""The arrivals of an episode: drawn ahead, told to their nodes, entered when their time has come.

Pure bookkeeping: no clock, no I/O. Slots are drawn in order, each once; ``redraw`` draws those
again that have not begun. Nodes are told some slots ahead, one message after another, each when the
one before it was answered. What replaces something a node was told is certain only with its answer:
the node may have begun some of those slots. Until then these slots of this node are not entered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from testbed.model.faults import Timeline
from testbed.model.task import Task
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import task_to_message
from testbed.scenario.plan import Plan

BEHIND: Final = 3
"""Windows that a node may be told without having begun them; one that is further behind waits."""


@dataclass(slots=True)
class _Message:
    """A message to a node that it has not answered yet."""

    number: int
    first: int
    until: int
    tasks: dict[int, Task]


@dataclass(slots=True)
class _Feed:
    """The knowledge of one node.

    ``told`` are the tasks of the slots before ``handed`` that have not been entered. Of slots from
    ``stale`` on it was told something else than what is to arrive there.
    """

    node: int
    told: dict[int, Task] = field(default_factory=dict)
    handed: int = 0
    entered: int = 0
    stale: int | None = None
    message: _Message | None = None
    number: int = 0
    begun: int = 0

    @property
    def certain(self) -> int | None:
        """The first slot of which the node may know something else; None if there is none."""
        slots = [] if self.stale is None else [self.stale]
        if self.message is not None and self.message.first < self.handed:
            slots.append(self.message.first)
        return min(slots, default=None)


class Supply:
    """The arrivals of episode ``number`` of ``plan`` at all its nodes; ``nodes`` are told theirs.

    ``window`` is the number of slots that nodes are told ahead. ``enter`` is called with each task
    whose slot has begun, in the order of its node's slots.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        timeline: Timeline | None,
        nodes: Iterable[int],
        *,
        run: str,
        window: int,
        enter: Callable[[Task], None],
    ) -> None:
        self._plan = plan
        self._number = number
        self._run = run
        self._window = window
        self._enter = enter
        self._to_come: Iterator[list[Task]] = plan.tasks_by_slot(number, timeline)
        self._slots: dict[int, dict[int, Task]] = {}
        self._kept = 0
        self._feeds = {node: _Feed(node) for node in nodes}
        self._stopped = False
        self.begun = 0
        """Slots whose time has come."""
        self.drawn = 0
        """Slots that are drawn."""
        self.last = plan.workload.slots
        """Slots in which tasks arrive: all of the episode, or those before it was stopped."""

    @property
    def settled(self) -> bool:
        """Whether all that has arrived is entered, and no node may go on with what it was told."""
        return self.begun >= self.last and all(
            feed.certain is None and feed.entered >= self.last for feed in self._feeds.values()
        )

    def draw(self, until: int) -> None:
        """Draw the slots before ``until`` that are not drawn."""
        for slot in range(self.drawn, min(until, self.last)):
            self._slots[slot] = {task.source: task for task in next(self._to_come, ())}
            self.drawn = slot + 1

    def begin(self, until: int) -> None:
        """Enter the slots before ``until``, whose time has come and which are drawn."""
        for slot in range(self.begun, min(until, self.drawn, self.last)):
            self.begun = slot + 1
            for node, task in self._slots[slot].items():
                if node not in self._feeds:
                    self._enter(task)
        for feed in self._feeds.values():
            self._enter_of(feed)
        self._forget()

    def redraw(self, timeline: Timeline) -> None:
        """Draw the slots that have not begun under other faults."""
        if self._stopped:
            return
        drawn, self.drawn = self.drawn, self.begun
        self._to_come = self._plan.tasks_by_slot(self._number, timeline, self.begun)
        self.draw(drawn)
        for feed in self._feeds.values():
            self._outdate(feed)

    def stop(self) -> None:
        """Drop all arrivals in the slots that have not begun."""
        self._stopped = True
        self.last = self.drawn = self.begun
        for slot in [slot for slot in self._slots if slot >= self.begun]:
            del self._slots[slot]
        for feed in self._feeds.values():
            self._outdate(feed)

    def leave(self, node: int) -> None:
        """Stop telling a node; what arrives at it is entered all the same."""
        feed = self._feeds.pop(node, None)
        if feed is not None:
            self._enter_all(feed, self.begun)

    def close(self, complete: Collection[int] = ()) -> None:
        """Enter everything that has arrived, at the end of the episode. Idempotent.

        Of nodes in ``complete`` all is logged. Another one that has not answered may have begun any
        slot that it was told of: all its tasks count.
        """
        for feed in self._feeds.values():
            until = self.begun
            if feed.certain is not None and feed.node not in complete:
                told = 0 if feed.message is None else feed.message.until
                until = max(until, feed.handed, told)
            self._enter_all(feed, until)
        self._feeds.clear()

    # --- what nodes are told ----------------------------------------------------------------

    def message(self, node: int) -> pb.Arrivals | None:
        """Return what the node is to be told now; None if nothing, or if it has left."""
        feed = self._feeds.get(node)
        if feed is None:
            return None
        if feed.message is None:
            feed.message = self._following(feed)
        if feed.message is None:
            return None
        given = feed.message
        return pb.Arrivals(
            run=self._run,
            episode=self._number,
            number=given.number,
            first=given.first,
            until=given.until,
            tasks=[task_to_message(task) for task in given.tasks.values()],
        )

    def is_behind(self, node: int) -> bool:
        """Return whether the node has much to begin, so that it is told more only later."""
        feed = self._feeds.get(node)
        return feed is not None and feed.handed - feed.begun > BEHIND * self._window

    def answered(self, node: int, answer: pb.ArrivalsTaken) -> None:
        """Take the node's answer to the last message; no-op for another one."""
        feed = self._feeds.get(node)
        if feed is None or feed.message is None or feed.message.number != answer.number:
            return
        given, feed.message = feed.message, None
        first = max(given.first, answer.first)
        feed.told = {slot: task for slot, task in feed.told.items() if slot < first}
        feed.told |= {slot: task for slot, task in given.tasks.items() if slot >= first}
        feed.handed = max(given.until, min(first, feed.handed))
        feed.begun = answer.next
        self._enter_of(feed)

    def _following(self, feed: _Feed) -> _Message | None:
        until = self.drawn
        if feed.stale is not None:
            first, feed.stale = feed.stale, None
        elif self.is_behind(feed.node):
            # Nothing new: its answer says how far it is.
            first = until = feed.handed
        elif until - feed.handed > self._window // 2 or self.drawn == self.last > feed.handed:
            first = feed.handed
        else:
            return None
        until = max(first, min(until, first + 2 * self._window))
        feed.number += 1
        tasks = {
            slot: self._slots[slot][feed.node]
            for slot in range(first, until)
            if feed.node in self._slots[slot]
        }
        return _Message(feed.number, first, until, tasks)

    def _outdate(self, feed: _Feed) -> None:
        """Note that slots from ``begun`` on are other ones than the node was told."""
        told = feed.handed if feed.message is None else max(feed.handed, feed.message.until)
        if self.begun < told:
            feed.stale = self.begun if feed.stale is None else min(feed.stale, self.begun)

    # --- what has arrived -------------------------------------------------------------------

    def _enter_of(self, feed: _Feed) -> None:
        """Enter what is certain of a node's slots that have begun."""
        certain = feed.certain
        # A node that was told to stop may have begun some slots more.
        begun = max(self.begun, feed.handed) if self._stopped else self.begun
        for slot in range(feed.entered, begun if certain is None else min(begun, certain)):
            self._enter_slot(feed, slot)

    def _enter_slot(self, feed: _Feed, slot: int) -> None:
        feed.entered = slot + 1
        task = feed.told.pop(slot, None)
        if task is None and slot >= feed.handed:
            task = self._slots.get(slot, {}).get(feed.node)
        if task is not None:
            self._enter(task)

    def _enter_all(self, feed: _Feed, until: int) -> None:
        """Enter what may have arrived before slot ``until`` at a node that says nothing more."""
        unanswered = {} if feed.message is None else feed.message.tasks
        for slot in range(feed.entered, until):
            drawn = self._slots.get(slot, {}).get(feed.node)
            task = feed.told.pop(slot, None) or drawn or unanswered.get(slot)
            if task is not None:
                self._enter(task)
        feed.entered = max(feed.entered, until)

    def _forget(self) -> None:
        """Drop the slots that are entered and that all nodes have been told."""
        needed = [self.begun, *(min(feed.entered, feed.handed) for feed in self._feeds.values())]
        for slot in range(self._kept, min(needed)):
            self._slots.pop(slot, None)
        self._kept = max(self._kept, min(needed))
