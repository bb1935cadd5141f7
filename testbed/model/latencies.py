"""Percentiles of times while they come in, in little memory."""

from __future__ import annotations

from collections import Counter
from typing import Final

from testbed.model.units import Micros

_BITS: Final = 5
"""Binary digits of a time that are kept: it is rounded up by less than one part in 16."""


class Latencies:
    """Counts times by their leading binary digits; a percentile is at most 7 % too high."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.total = 0

    def add(self, time: Micros) -> None:
        """Count one more time."""
        shift = max(0, time.bit_length() - _BITS)
        self._counts[(-(-time >> shift)) << shift if time > 0 else 0] += 1
        self.total += 1

    def percentiles(self) -> tuple[Micros, Micros, Micros] | None:
        """Return the median, the 95th and the 99th percentile; None of none."""
        p50, p95, p99 = (self.percentile(share) for share in (0.50, 0.95, 0.99))
        return None if p50 is None or p95 is None or p99 is None else (p50, p95, p99)

    def percentile(self, share: float) -> Micros | None:
        """Return the time that this share of all does not exceed (nearest rank); None of none."""
        if not self.total:
            return None
        rank = max(1, -(-self.total * round(share * 10_000) // 10_000))
        for time in sorted(self._counts):
            rank -= self._counts[time]
            if rank <= 0:
                return time
        raise AssertionError("the counts are less than their total")
