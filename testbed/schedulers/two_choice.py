"""``two-choice``: the power of two choices (Mitzenmacher 2001), by backlog alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers.probing import task_of


class TwoChoice:
    """Probe two random nodes and take the one with the lower backlog."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "two-choice"
        self._context = context
        self._node = context.node
        self._nodes = tuple(range(context.topology.size))

    def decide(self, observation: Observation) -> Decision | Ask:
        """As ``ratc`` draws its two nodes; of equal backlogs the first drawn; local if unknown."""
        chosen = self._context.sample(task_of(observation), self._nodes, 2)
        if observation.round == 0:
            peers = tuple(peer for peer in chosen if peer != self._node)
            return Ask(peers) if peers else Decision(self._node)
        backlogs = {
            answer.peer: answer.state.backlog
            for answer in observation.answers
            if answer.state is not None
        }
        backlogs[self._node] = observation.backlog
        known = [node for node in chosen if node in backlogs]
        return Decision(min(known, key=backlogs.__getitem__, default=self._node))
