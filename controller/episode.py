"""One episode: arrivals at their absolute times, until every task has ended or is out of reach.

The episode waits on one event, ``over``, set by whatever settles it: the last record of the last
task, the death of the node that held it, a stop, or the hard bound. Nothing polls, and nothing is
waited for beyond the bound: the last slot plus the longest deadline plus ``GRACE_S``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from controller.ledger import Ledger
from controller.link import Submission
from testbed.model.events import Record
from testbed.model.task import Task
from testbed.model.units import SECOND, Micros
from testbed.model.workload import tasks_of_episode
from testbed.scenario.plan import Plan

GRACE_S: Final = 3.0
"""Real seconds a task may take longer than its deadline allows before it counts as lost."""


class Episode:
    """Episode ``number`` of a run of ``plan``; made when all nodes have started it.

    ``submissions`` has the stream of each living node, None for a dead one. ``late`` is told how
    late each arrival was handed over, in emulated microseconds. ``lost`` are the tasks that
    earlier episodes of the run closed as lost.
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
    ) -> None:
        self.number = number
        self.slot = 0
        self.ledger = Ledger(lost)
        self.over = asyncio.Event()
        self.timed_out = False
        workload = plan.workload
        self._plan = plan
        self._submissions = submissions
        self._late = late
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._tasks: list[dict[int, Task]] = [
            {task.source: task for task in tasks}
            for tasks in tasks_of_episode(
                workload, plan.topology.arrival_probability, plan.seeds.workload, number
            )
        ]
        for node, submission in enumerate(submissions):
            if submission is None:
                self.ledger.node_died(node)
        self._start = self._loop.time()
        longest = workload.slots * workload.slot + workload.deadline.maximum
        self._bound = self._start + longest / SECOND * plan.time_scale + GRACE_S
        self._stopped = False
        self._asleep: set[asyncio.Task[None]] = set()
        self._generating = self._loop.create_task(self._generate_all(len(submissions)))
        self._generating.add_done_callback(self._generated)

    @property
    def now(self) -> Micros:
        """The present instant on the controller's clock of this episode, emulated."""
        return int((self._loop.time() - self._start) / self._plan.time_scale * SECOND)

    def take(self, record: Record) -> bool:
        """Take a record of this episode; False if it must not be stored."""
        return self.ledger.add(record)

    def node_died(self, node: int) -> None:
        """A node is gone: what it held is lost, and so is what arrives at it from now on."""
        self._submissions[node] = None
        self.ledger.node_died(node)
        self.settle()

    def settle(self) -> None:
        """See whether the episode is over; to be called after everything that may end it."""
        if self._generating.done() and self.ledger.settled:
            self.over.set()

    def stop(self, *, wait: bool) -> None:
        """Generate no more tasks; without ``wait`` the episode is over at once."""
        self._stopped = True
        # Not those in the middle of handing over a task: it has to arrive, or nobody ends it.
        for generator in list(self._asleep):
            generator.cancel()
        if not wait:
            self.over.set()

    async def wait(self) -> None:
        """Return when the episode is over, at its hard bound at the latest.

        Raises what went wrong in generating, which is a defect.
        """
        try:
            async with asyncio.timeout_at(self._bound):
                await self.over.wait()
        except TimeoutError:
            self.timed_out = True
        if self._generating.done() and not self._generating.cancelled():
            self._generating.result()
        self._generating.cancel()
        await asyncio.gather(self._generating, return_exceptions=True)

    def _generated(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.over.set()
        self.settle()

    async def _generate_all(self, size: int) -> None:
        generators = [self._loop.create_task(self._generate(node)) for node in range(size)]
        try:
            await asyncio.wait(generators)
        finally:
            for generator in generators:
                generator.cancel()
        for generator in generators:
            if not generator.cancelled():
                generator.result()

    async def _generate(self, node: int) -> None:
        """The slots of one node, each at its time however late the ones before it were."""
        slot_s = self._plan.workload.slot / SECOND * self._plan.time_scale
        to_emulated = SECOND / self._plan.time_scale
        for slot, tasks in enumerate(self._tasks):
            due = self._start + slot * slot_s
            await self._sleep_until(due)
            if self._stopped:
                return
            task = tasks.get(node)
            if task is not None:
                self.ledger.generate(task, self.now)
            submission = self._submissions[node]
            if submission is not None:
                await submission.send(self.number, slot, task)
                self._late(int((self._loop.time() - due) * to_emulated))
            if slot > self.slot:
                self.slot = slot
                self._changed()

    async def _sleep_until(self, due: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._asleep.add(task)
        try:
            await asyncio.sleep(max(0.0, due - self._loop.time()))
        finally:
            self._asleep.discard(task)
