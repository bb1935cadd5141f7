"""``random``: uniform over all nodes, the own one included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers.probing import task_of


class Random:
    """Uniformly one of all nodes, the own one included."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "random"
        self._context = context
        self._size = context.topology.size
        self._probabilities = (1.0 / self._size,) * self._size

    def decide(self, observation: Observation) -> Decision | Ask:
        """Draw one node; ask no peer."""
        u = self._context.uniform(task_of(observation), 0)
        return Decision(int(u * self._size), self._probabilities)
