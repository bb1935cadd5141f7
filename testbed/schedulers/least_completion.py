"""``least-completion``: greedy on the latest state of every node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers.estimates import Estimator, faster
from testbed.schedulers.probing import answered, peers_of, task_of


class LeastCompletion:
    """Ask everyone and take the smallest completion estimate, the own node's included."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "least-completion"
        self._node = context.node
        self._peers = peers_of(context.node, context.topology.size)
        self._estimator = Estimator(context)

    def decide(self, observation: Observation) -> Decision | Ask:
        """Of equals the own node, then the first that answered; the silent are left out.

        All nodes decide on the same state in a slot, so they tend to choose the same target.
        """
        task = task_of(observation)
        if observation.round == 0 and self._peers:
            return Ask(self._peers)
        own = self._estimator.own(observation, task)
        others = answered(observation, task, self._estimator)
        return Decision(faster([own, *others]).destination)
