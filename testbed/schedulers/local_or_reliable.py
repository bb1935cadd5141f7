"""``local-or-reliable``: stay if that is good enough, else go where failure is least likely."""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.estimates import time_left
from testbed.schedulers.probing import AtOnce, allowed, is_overloaded, mask_from_bits, task_of

CHOICES = 3
"""Number of random peers that are compared (model section 5)."""


class LocalOrReliable(AtOnce):
    """Local if not overloaded and in time, else the most reliable of three unmasked peers."""

    name: str = "local-or-reliable"

    def decide(self, observation: Observation) -> Decision | Ask:
        """Asks for the overload bits only; reliability is estimated from static facts."""
        task = task_of(observation)
        mask = mask_from_bits(observation, self._size) if observation.round else None
        if observation.round == self._looks_after:
            overloaded = is_overloaded(self._context, observation)
            own = self._estimator.own(observation, task)
            turn = self._context.rules.turn(self._node)
            in_time = own.completion <= time_left(observation, task, turn)
            if (in_time and not overloaded) or not self._peers:
                return Decision(self._node, mask=mask)
        if mask is None:
            return Ask(self._peers, bits_only=True)
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
