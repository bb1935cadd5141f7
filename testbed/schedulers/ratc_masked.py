"""``ratc-masked``: RATC among nodes that are not overloaded.

It has the information that the learned policy has (one bit from every peer), and two probes.
"""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.estimates import more_reliable_or_faster, time_left
from testbed.schedulers.probing import (
    Prober,
    allowed,
    chosen_and_known,
    mask_from_bits,
    task_of,
)


class RatcMasked(Prober):
    """RATC restricted to the own node and peers that are not overloaded."""

    name: str = "ratc-masked"

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask all for their bit, then two of the unmasked nodes for their state, then choose."""
        task = task_of(observation)
        if observation.round == 0 and self._peers:
            return Ask(self._peers, bits_only=True)
        mask = mask_from_bits(observation, self._size)
        chosen = self._context.sample(task, allowed(mask), 2)
        peers = tuple(peer for peer in chosen if peer != self._node)
        if observation.round == 1 and peers:
            return Ask(peers)
        candidates = chosen_and_known(observation, task, self._estimator, chosen)
        if not candidates:
            return Decision(self._node, mask=mask)
        left = time_left(observation, task, self._context.rules.turn(self._node))
        choice = more_reliable_or_faster(candidates, left)
        return Decision(choice.destination, mask=mask)
