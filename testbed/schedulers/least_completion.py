"""``least-completion``: greedy on the latest state of every node."""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.estimates import faster
from testbed.schedulers.probing import Prober, answered, task_of


class LeastCompletion(Prober):
    """Ask everyone and take the smallest completion estimate, the own node's included."""

    name: str = "least-completion"

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
