"""A scheduler that only some nodes can make."""

from __future__ import annotations

from testbed.model.decision import Decision, Observation, SchedulerContext


class Choosy:
    """Made at every node but node 1."""

    name = "choosy"

    def __init__(self, context: SchedulerContext) -> None:
        if context.node == 1:
            raise ValueError("not at node 1")

    def decide(self, observation: Observation) -> Decision:
        return Decision(observation.node)
