"""Schedulers that do not work at all nodes."""

from __future__ import annotations

import threading

from testbed.model.decision import Decision, Observation, SchedulerContext


class Choosy:
    """Made at every node but node 1."""

    name = "choosy"

    def __init__(self, context: SchedulerContext) -> None:
        if context.node == 1:
            raise ValueError("not at node 1")

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
