"""Schedulers and applications that do not work, or not at all nodes."""

from __future__ import annotations

import os
import threading
import time

from testbed.model.decision import Decision, Observation, SchedulerContext
from testbed.model.task import Task


class Choosy:
    """Made at every node but node 1."""

    name = "choosy"

    def __init__(self, context: SchedulerContext) -> None:
        if context.node == 1:
            raise ValueError("not at node 1")

    def decide(self, observation: Observation) -> Decision:
        return Decision(observation.node)


class Leaving:
    """Ends its process when it is made at node 1."""

    name = "leaving"

    def __init__(self, context: SchedulerContext) -> None:
        if context.node == 1:
            os._exit(3)

    def decide(self, observation: Observation) -> Decision:
        return Decision(observation.node)


class Silent:
    """Never answers at node 1."""

    name = "silent"

    def __init__(self, context: SchedulerContext) -> None:
        self._silent = context.node == 1

    def decide(self, observation: Observation) -> Decision:
        if self._silent:
            threading.Event().wait()
        return Decision(observation.node)


class Blocking:
    """An application whose coroutine blocks the event loop at every task."""

    modelled = False
    needs_payload = False

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        time.sleep(600)  # noqa: ASYNC251 - as careless code does

    def close(self) -> None:
        time.sleep(600)
