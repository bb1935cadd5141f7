"""``rda``: the Reactive Distributed Algorithm (paper section V-B)."""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.estimates import faster
from testbed.schedulers.probing import AtOnce, answered, is_overloaded, task_of

RESPONSES = 2
"""Number of answers that are waited for (paper section V-B)."""


class Rda(AtOnce):
    """Local while the own node is not overloaded, else the faster of the first two that answer."""

    name: str = "rda"

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask all peers when overloaded; local if none answers.

        The peers are asked in random order, so that at equal delay the first two to answer are
        two random ones.
        """
        task = task_of(observation)
        if observation.round == self._looks_after:
            overloaded = is_overloaded(self._context, observation)
            if not overloaded or not self._peers:
                return Decision(self._node)
        if observation.round == 0:
            order = self._context.sample(task, self._peers, len(self._peers))
            return Ask(order, enough=RESPONSES)
        candidates = answered(observation, task, self._estimator, RESPONSES)
        return Decision(faster(candidates).destination if candidates else self._node)
