"""Progress of a unit with a task while its rates change.

Work is counted in millionths of a microsecond at the configured rate and hazard as the sum of the
failure rate over time. What was done counts; what is left goes on at the new rate, and a unit that
stands still meets no failure. Both are exact functions of the instants handed in.
"""

from __future__ import annotations

import math

from testbed.model.draws import hazard_after
from testbed.model.faults.scene import FULL
from testbed.model.units import NEVER, SECOND, Micros


class WorkProgress:
    """A piece of work of nominal length ``work``, begun at ``now``.

    It fails when the failure rate, summed over the time worked, reaches ``-log(u)``. ``revision``
    counts the changes of plan: an end that was planned before the last one is void.
    """

    __slots__ = ("_hazard", "_left", "_rate", "_since", "failure_rate", "revision", "work")

    def __init__(self, work: Micros, u: float, now: Micros, rate: int, failure_rate: float) -> None:
        self.work = work
        self.revision = 0
        self.failure_rate = failure_rate
        self._left = work * FULL
        self._hazard = -math.log(u)
        self._since = now
        self._rate = rate

    def change(self, now: Micros, rate: int, failure_rate: float) -> bool:
        """Go on at these rates; whether the end moves.

        ``rate`` is in millionths of the configured rate, ``failure_rate`` in 1/s.
        """
        if rate == self._rate and failure_rate == self.failure_rate:
            return False
        self._advance(now)
        self._rate, self.failure_rate = rate, failure_rate
        self.revision += 1
        return True

    def restart(self, now: Micros) -> None:
        """All of the work is left again; the hazard met so far counts."""
        self._advance(now)
        self._left = self.work * FULL
        self.revision += 1

    def plan(self) -> tuple[Micros, Micros | None]:
        """Time left from the last change on, and the time to the failure if that comes before."""
        if not self._rate:
            return NEVER, None
        left = (2 * self._left + self._rate) // (2 * self._rate)
        fails_after = hazard_after(self.failure_rate, self._hazard)
        return left, fails_after if fails_after < left else None

    def left(self, now: Micros) -> Micros:
        """Return the time the rest would take at the configured rate."""
        worked = (now - self._since) * self._rate
        return -(-max(0, self._left - worked) // FULL)

    def done(self, amount: int) -> int:
        """Return how much of ``amount`` was done up to the last change, rounded down."""
        whole = self.work * FULL
        return amount * (whole - self._left) // whole if whole else amount

    def _advance(self, now: Micros) -> None:
        passed, self._since = now - self._since, now
        if self._rate:
            self._left = max(0, self._left - passed * self._rate)
            self._hazard = max(0.0, self._hazard - self.failure_rate * passed / SECOND)
