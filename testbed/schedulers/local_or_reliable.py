"""``local-or-reliable``: stay if that is good enough, else go where failure is least likely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers.estimates import Estimator
from testbed.schedulers.probing import allowed, is_overloaded, mask_from_bits, peers_of, task_of

CHOICES = 3
"""Number of random peers that are compared (model section 5)."""


class LocalOrReliable:
    """Local if not overloaded and in time, else the most reliable of three unmasked peers."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "local-or-reliable"
        self._context = context
        self._node = context.node
        self._size = context.topology.size
        self._peers = peers_of(context.node, self._size)
        self._estimator = Estimator(context)

    def decide(self, observation: Observation) -> Decision | Ask:
        """Asks for the overload bits only; reliability is estimated from static facts."""
        task = task_of(observation)
        if observation.round == 0:
            overloaded = is_overloaded(self._context, observation)
            in_time = self._estimator.own(observation, task).completion <= task.deadline
            if (in_time and not overloaded) or not self._peers:
                return Decision(self._node)
            return Ask(self._peers, bits_only=True)
        mask = mask_from_bits(observation, self._size)
        free = tuple(peer for peer in allowed(mask) if peer != self._node)
        best = min(
            (
                self._estimator.candidate(observation, task, peer, 0)
                for peer in self._context.sample(task, free, CHOICES)
            ),
            key=lambda candidate: candidate.exposure,
            default=None,
        )
        return Decision(self._node if best is None else best.destination, mask=mask)
