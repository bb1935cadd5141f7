"""``ratc``: Reliability-Aware Two Choices (paper section V-B).

Two distinct nodes are drawn from all nodes, the own one included: its state is known without a
probe, so then only one probe is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.task import Task
from testbed.schedulers.estimates import Estimator, more_reliable_or_faster, time_left
from testbed.schedulers.probing import chosen_and_known, task_of


class Ratc:
    """Probe two random nodes; if both are in time the more reliable one, else the faster."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "ratc"
        self._context = context
        self._node = context.node
        self._nodes = tuple(range(context.topology.size))
        self._estimator = Estimator(context)
        self._drawn: tuple[int, tuple[int, ...]] = (-1, ())

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask the drawn nodes, then choose between those that answered; local if none did."""
        task = task_of(observation)
        chosen = self._draw(task)
        if observation.round == 0:
            peers = tuple(peer for peer in chosen if peer != self._node)
            return Ask(peers) if peers else Decision(self._node)
        candidates = chosen_and_known(observation, task, self._estimator, chosen)
        if not candidates:
            return Decision(self._node)
        left = time_left(observation, task, self._context.rules.turn(self._node))
        choice = more_reliable_or_faster(candidates, left)
        return Decision(choice.destination)

    def _draw(self, task: Task) -> tuple[int, ...]:
        """The two nodes for ``task``; kept between the rounds only to save drawing them again."""
        if self._drawn[0] != task.id:
            self._drawn = (task.id, self._context.sample(task, self._nodes, 2))
        return self._drawn[1]
