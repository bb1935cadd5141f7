"""``local``: every task is executed where it arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext


class Local:
    """Always the node itself."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "local"

    def decide(self, observation: Observation) -> Decision | Ask:
        """Return the own node."""
        return Decision(observation.node)
