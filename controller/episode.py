"""One episode: arrivals at their absolute times, until every task has ended or is out of reach.

The episode waits on one event, ``over``, set by whatever settles it: the last record of the last
task, the loss of the node that held it, a stop, or the hard bound. Nothing polls, and nothing is
waited for beyond the bound: the last slot plus the longest deadline plus ``GRACE_S``, in time
during which this process ran.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.ledger import Ledger
from controller.link import Delivery, Submission
from testbed.model.events import Record
from testbed.model.faults import Timeline
from testbed.model.task import Task
from testbed.model.units import SECOND, Micros
from testbed.scenario.plan import Plan

GRACE_S: Final = 3.0
"""Real seconds a task may take longer than its deadline allows before it counts as lost."""

STOP_S: Final = 20.0
"""Real seconds that tasks under way get to end once the run is stopped; then they are lost."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Work that an episode had not done at its hard bound.

    Of ``arrivals`` tasks ``not_sent`` were still to be sent to their nodes; ``open`` tasks, these
    included, had not ended. ``lateness`` is the worst one of a slot in emulated microseconds, sent
    or not.
    """

    arrivals: int
    not_sent: int
    open: int
    lateness: Micros


class Episode:
    """Episode ``number`` of a run of ``plan``; made when all nodes have started it.

    ``submissions`` has the stream of each node that takes part, None for the others. ``late`` is
    told how late each slot was handed over, in emulated microseconds. ``lost`` are the tasks that
    earlier episodes of the run closed as lost. ``awake`` counts the seconds in which this process
    ran; without it all seconds count. ``timeline`` are its faults, None for those of the plan.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        submissions: list[Submission | None],
        *,
        lost: set[int],
        late: Callable[[Micros], None],
        changed: Callable[[], None],
        awake: Callable[[], float] | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.number = number
        self.slot = 0
        self.ledger = Ledger(lost)
        self.over = asyncio.Event()
        self.overdue: Overdue | None = None
        workload = plan.workload
        self._plan = plan
        self._submissions = submissions
        self._on_late = late
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._awake = awake or self._loop.time
        self._begun = 0
        # Drawn slot by slot: all of a long episode would take seconds, and much memory.
        self._to_come = plan.tasks_by_slot(number, timeline)
        self._draw()
        self._arriving: dict[int, dict[int, Task]] = {}
        self._worst: Micros = 0
        for node, submission in enumerate(submissions):
            if submission is None:
                self.ledger.node_died(node)
            else:
                arriving = self._arriving[node] = {}
                submission.begin(Delivery(number, arriving, plan.log_idle_slots, self._late))
        self._start = self._loop.time()
        longest = workload.slots * workload.slot + workload.deadline.maximum
        self._bound = self._awake() + longest / SECOND * plan.time_scale + GRACE_S
        self._generating = self._loop.create_task(self._generate())
        self._generating.add_done_callback(self._generated)

    @property
    def timed_out(self) -> bool:
        """Whether the hard bound ended it."""
        return self.overdue is not None

    @property
    def now(self) -> Micros:
        """The present instant on the controller's clock of this episode, emulated."""
        return int((self._loop.time() - self._start) / self._plan.time_scale * SECOND)

    def redraw(self, timeline: Timeline) -> None:
        """Draw the arrivals of the slots to come under other faults."""
        self._to_come = self._plan.tasks_by_slot(self.number, timeline, self._begun)
        self._draw()

    def take(self, record: Record) -> bool:
        """Take a record of this episode; False if it must not be stored."""
        return self.ledger.add(record)

    def node_died(self, node: int) -> None:
        """Count a node's tasks as lost, and all that arrive at it from now on."""
        submission = self._submissions[node]
        if submission is not None:
            submission.end()
        self._submissions[node] = None
        self.ledger.node_died(node)
        self.settle()

    def settle(self) -> None:
        """See whether the episode is over; to be called after everything that may end it."""
        if self._generating.done() and self.ledger.settled:
            self.over.set()

    def stop(self, *, wait: bool) -> None:
        """Generate no more tasks; without ``wait`` the episode is over at once.

        Tasks whose slot has begun are still sent: they have arrived. They may end within
        ``STOP_S``, however long their deadlines last in real time.
        """
        self._generating.cancel()
        if wait:
            self._loop.call_later(STOP_S, self.over.set)
        else:
            self.over.set()

    async def wait(self) -> None:
        """Return when the episode is over, at its hard bound at the latest.

        Everything that should have arrived by then has, and is in the ledger. Raises what went
        wrong in generating, which is a defect.
        """
        # A process that was paused finds its timers rung; what came meanwhile is taken first.
        while (left := self._bound - self._awake()) > 0 and not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.over.wait()
        if self._generating.done() and not self._generating.cancelled():
            self._generating.result()
        stopped = self._generating.cancelled() or self._generating.cancelling()
        if not self.over.is_set():
            self._give_up(arrivals=not stopped)
        self._generating.cancel()
        await asyncio.gather(self._generating, return_exceptions=True)
        for submission in self._submissions:
            if submission is not None:
                submission.end()

    def _give_up(self, *, arrivals: bool) -> None:
        """Enter all that should have arrived, and say what is missing."""
        if arrivals:
            for slot in range(self._begun, self._plan.workload.slots):
                self._enter(slot)
                self._draw()
        not_sent = 0
        for node, submission in enumerate(self._submissions):
            if submission is None:
                continue
            for slot in range(submission.next_slot, self._begun):
                sent_here = slot in self._arriving[node]
                not_sent += sent_here
                if sent_here or self._plan.log_idle_slots:
                    self._late(slot)
        self.overdue = Overdue(self.ledger.generated, not_sent, self.ledger.unfinished, self._worst)

    def _generated(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.over.set()
        self.settle()

    async def _generate(self) -> None:
        """Begin the slots, each at its time however late the ones before were."""
        for slot in range(self._plan.workload.slots):
            # Also when it is late already: whatever else happens here must have its turn.
            await asyncio.sleep(max(0.0, self._due(slot) - self._loop.time()))
            self._enter(slot)
            for submission in self._submissions:
                if submission is not None:
                    submission.due(slot)
            self.slot = slot
            self._draw()
            self._changed()

    def _enter(self, slot: int) -> None:
        tasks, self._begun = self._next, slot + 1
        for task in tasks:
            self.ledger.generate(task, slot * self._plan.workload.slot)
            if task.source in self._arriving:
                self._arriving[task.source][slot] = task

    def _draw(self) -> None:
        """Draw the next slot, before its time comes."""
        self._next = next(self._to_come, [])

    def _due(self, slot: int) -> float:
        """Return the instant at which a slot begins, on the event loop's clock."""
        return self._start + slot * self._plan.workload.slot / SECOND * self._plan.time_scale

    def _late(self, slot: int) -> None:
        seconds = self._loop.time() - self._due(slot)
        lateness = int(seconds * SECOND / self._plan.time_scale)
        self._worst = max(self._worst, lateness)
        self._on_late(lateness)
