"""Executions: what an application does meanwhile, and the event that ends each of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from edgenode.applications.seam import Application
from edgenode.background import Background
from edgenode.clock import Urgency
from edgenode.payload import payload_of
from testbed.model.events import ExecutionBroken, ExecutionEnded, StartExecution, StopExecution
from testbed.model.task import Task
from testbed.model.units import SECOND

if TYPE_CHECKING:
    from edgenode.driver import EpisodeDriver

_logger: Final = logging.getLogger(__name__)


class Executing:
    """The server of one node during one episode."""

    def __init__(
        self, driver: EpisodeDriver, application: Application, background: Background
    ) -> None:
        self._driver = driver
        self._application = application
        self._background = background
        self._running: dict[int, asyncio.Task[None]] = {}

    def start(self, effect: StartExecution) -> None:
        """Begin an execution and see that it ends."""
        task, application = effect.task, self._application
        ends_after, failed = effect.duration, effect.fails_after is not None
        if effect.fails_after is not None:
            ends_after = effect.fails_after
        if failed or application.modelled:
            event = ExecutionEnded(task.id, failed)
            self._driver.timers.at(
                effect.started + ends_after,
                Urgency.EXECUTION,
                lambda at: self._driver.handle(event, at),
            )
        payload = self._payload(task) if application.needs_payload else None
        self._running[task.id] = self._background.start(
            self._execute(effect, payload), f"execution of task {task.id}"
        )

    def stop(self, effect: StopExecution) -> None:
        """Stop executing a task; its deadline passed."""
        self.ended(effect.task_id)

    def ended(self, task_id: int) -> None:
        """Let go of a task that ended, wherever it was."""
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
        except Exception:
            _logger.exception("node %d: the application failed on task %d", driver.node, task.id)
            driver.happened(ExecutionBroken(task.id))
            return
        if not self._application.modelled and effect.fails_after is None:
            driver.happened(ExecutionEnded(task.id))
