"""``rda-masked``: RDA among peers that are not overloaded.

It has the information that the learned policy has (one bit from every peer), and two answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers.estimates import Estimator, faster
from testbed.schedulers.probing import (
    allowed,
    answered,
    is_overloaded,
    mask_from_bits,
    peers_of,
    task_of,
)
from testbed.schedulers.rda import RESPONSES


class RdaMasked:
    """RDA restricted to peers that are not overloaded; local if there is none."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "rda-masked"
        self._context = context
        self._node = context.node
        self._size = context.topology.size
        self._peers = peers_of(context.node, self._size)
        self._estimator = Estimator(context)

    def decide(self, observation: Observation) -> Decision | Ask:
        """Ask, when overloaded, all for their bit, then the unmasked for their state, in random
        order, and take the faster of the first two that answer."""
        task = task_of(observation)
        if observation.round == 0:
            overloaded = is_overloaded(self._context, observation)
            if not overloaded or not self._peers:
                return Decision(self._node)
            return Ask(self._peers, bits_only=True)
        mask = mask_from_bits(observation, self._size)
        if observation.round == 1:
            free = tuple(peer for peer in allowed(mask) if peer != self._node)
            if not free:
                return Decision(self._node, mask=mask)
            return Ask(self._context.sample(task, free, len(free)), enough=RESPONSES)
        candidates = answered(observation, task, self._estimator, RESPONSES)
        destination = faster(candidates).destination if candidates else self._node
        return Decision(destination, mask=mask)
