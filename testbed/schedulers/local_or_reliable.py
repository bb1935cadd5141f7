"""``local-or-reliable``: stay if that is good enough, else go where failure is least likely."""

from __future__ import annotations

from testbed.model.decision import Ask, Decision, Observation
from testbed.schedulers.probing import Prober, allowed, is_overloaded, mask_from_bits, task_of

CHOICES = 3
"""Number of random peers that are compared (model section 5)."""


class LocalOrReliable(Prober):
    """Local if not overloaded and in time, else the most reliable of three unmasked peers."""

    name: str = "local-or-reliable"

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
