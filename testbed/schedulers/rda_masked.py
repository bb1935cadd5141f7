"""``rda-masked``: RDA among peers that are not overloaded.

It has the information that the learned policy has (one bit from every peer), and two answers.
"""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.estimates import faster
from testbed.schedulers.probing import (
    AtOnce,
    allowed,
    answered,
    is_overloaded,
    mask_from_bits,
    task_of,
)
from testbed.schedulers.rda import RESPONSES


class RdaMasked(AtOnce):
    """RDA restricted to peers that are not overloaded; local if there is none."""

    name: str = "rda-masked"

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask, when overloaded, all for their bit, then the unmasked for their state, in random
        order, and take the faster of the first two that answer."""
        task = task_of(observation)
        mask = mask_from_bits(observation, self._size) if observation.round else None
        if observation.round == self._looks_after:
            overloaded = is_overloaded(self._context, observation)
            if not overloaded or not self._peers:
                return Decision(self._node, mask=mask)
        if mask is None:
            return Ask(self._peers, bits_only=True)
        if observation.round == 1:
            free = tuple(peer for peer in allowed(mask) if peer != self._node)
            if not free:
                return Decision(self._node, mask=mask)
            return Ask(self._context.sample(task, free, len(free)), enough=RESPONSES)
        candidates = answered(observation, task, self._estimator, RESPONSES)
        destination = faster(candidates).destination if candidates else self._node
        return Decision(destination, mask=mask)
