"""Executions: what an application does meanwhile, and the event that ends each of them."""

from __future__ import annotations

import asyncio

from edgenode.applications.seam import Application
from edgenode.background import Background
from edgenode.clock import Urgency
from edgenode.complaints import Complaints
from edgenode.driving import Driver
from edgenode.payload import payload_of
from edgenode.watch import NotInTime
from testbed.model.events import (
    ChangeExecution,
    ExecutionBroken,
    ExecutionEnded,
    StartExecution,
    StopExecution,
)
from testbed.model.own_code import described, interrupted, shortened
from testbed.model.task import Task
from testbed.model.units import NEVER, SECOND, Micros


class Executing:
    """The server of one node during one episode."""

    def __init__(
        self,
        driver: Driver,
        application: Application,
        background: Background,
        complaints: Complaints,
    ) -> None:
        self._driver = driver
        self._complaints = complaints
        self._application = application
        self._idle: bool = getattr(application, "idle", False)
        self._background = background
        self._running: dict[int, asyncio.Task[None]] = {}
        self._revision = 0

    def start(self, effect: StartExecution) -> None:
        """Begin an execution and see that it ends."""
        task, application = effect.task, self._application
        self._revision = 0
        self._end_at(effect.started, effect, 0)
        if self._idle:
            return
        payload = self._payload(task) if application.needs_payload else None
        self._running[task.id] = self._background.start(
            self._execute(effect, payload), f"execution of task {task.id}"
        )

    def change(self, effect: ChangeExecution) -> None:
        """Move the end of an execution; an application that takes its own time goes on."""
        self._revision = effect.revision
        self._end_at(effect.at, effect, effect.revision)

    def _end_at(self, at: Micros, effect: StartExecution | ChangeExecution, revision: int) -> None:
        failed = effect.fails_after is not None
        after = effect.duration if effect.fails_after is None else effect.fails_after
        if after < NEVER and (failed or self._application.modelled):
            event = ExecutionEnded(effect.task.id, failed, revision)
            self._driver.timers.at(
                at + after, Urgency.EXECUTION, lambda at: self._driver.handle(event, at)
            )

    def stop(self, effect: StopExecution) -> None:
        """Stop executing a task; its deadline passed, or the node was killed by a fault."""
        self.ended(effect.task_id)

    def ended(self, task_id: int) -> None:
        """Stop the execution of a task that ended, if there is one."""
        running = self._running.pop(task_id, None)
        if running is not None:
            running.cancel()

    def close(self) -> None:
        """Stop everything."""
        for task_id in list(self._running):
            self.ended(task_id)

    def _payload(self, task: Task) -> bytes | None:
        if self._driver.plan.payload != "bytes":
            return None
        received = self._driver.inbox.take(task.id)
        return payload_of(task) if received is None else received

    async def _execute(self, effect: StartExecution, payload: bytes | None) -> None:
        task, driver = effect.task, self._driver
        duration = effect.duration / SECOND * driver.clock.scale
        try:
            await self._application.execute(task, payload, duration)
        except BaseException as error:
            # Code of other people may raise anything, SystemExit included.
            current = asyncio.current_task()
            stopped = isinstance(error, asyncio.CancelledError) and current and current.cancelling()
            if stopped or interrupted(error) or isinstance(error, GeneratorExit):
                raise
            name = driver.plan.application.name
            reason = shortened(f"application '{name}' raised {described(error)}")
            self._complaints.add(f"node {driver.node}, task {task.id}: {reason}", reason, error)
            broken = ExecutionBroken(task.id, reason)
            if isinstance(error, NotInTime):
                # It comes before what was due meanwhile: the node saw none of that because of it.
                driver.handle(broken, driver.state.now)
            else:
                driver.happened(broken)
            return
        if not self._application.modelled and effect.fails_after is None:
            driver.happened(ExecutionEnded(task.id, revision=self._revision))
