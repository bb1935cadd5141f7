"""The episode clock of one node, and timers on it that do not add up lateness.

The clock counts integer microseconds of emulated time since the episode began;
``scale`` real seconds pass per emulated second. It is never compared with another host's clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final, TypeAlias

from edgenode.turns import later
from testbed.model.units import SECOND, Micros

Callback: TypeAlias = Callable[[Micros], None]
"""Called with the instant it was set for, however late it is."""


FAR_S: Final = 1e9
"""Seconds until the beginning of an episode of which it is not known when it begins."""


class EpisodeClock:
    """Emulated microseconds since ``start``, an instant on ``time.monotonic`` in seconds.

    Without ``start`` they count from now on. They are negative before it.
    """

    __slots__ = ("_start", "scale")

    def __init__(self, scale: float = 1.0, start: float | None = None) -> None:
        self.scale = scale
        self.begin(start)

    @classmethod
    def waiting(cls, scale: float) -> EpisodeClock:
        """Return one that is at some negative instant until it is told when it begins."""
        return cls(scale, time.monotonic() + FAR_S)

    def begin(self, start: float | None) -> None:
        """Be at 0 at the instant ``start``; None: now. Timers on it have to be armed anew."""
        self._start = time.monotonic() if start is None else start

    def now(self) -> Micros:
        """Return the present instant."""
        return math.floor((time.monotonic() - self._start) / self.scale * SECOND)

    def loop_time(self, at: Micros) -> float:
        """Return the instant ``at`` on the event loop's clock, in seconds."""
        return self._start + at / SECOND * self.scale

    def emulated(self, real: Micros) -> Micros:
        """Return the emulated time that passes in ``real`` microseconds."""
        return int(real / self.scale)


class Urgency(IntEnum):
    """Order of timers set for the same instant; the same as in the simulator.

    What ends comes before deadlines: a task that ends exactly at its deadline is in time.
    """

    EXECUTION = 0
    TRANSMISSION = 1
    FAULT = 2
    DEADLINE = 3
    MESSAGE = 4
    ARRIVAL = 5
    GOSSIP = 6


class Timers:
    """Calls back at instants of an ``EpisodeClock``, in order of instant, urgency and setting.

    One event-loop timer serves all. Timers are never cancelled one by one: whoever set one ignores
    a ring that no longer matters. ``worst_lateness`` is in real microseconds.

    What is due and not more urgent than an arrival waits until the loop has done what is
    (``edgenode.turns``), or until ``ring_due``.
    """

    def __init__(self, clock: EpisodeClock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._heap: list[tuple[Micros, int, int, Callback]] = []
        self._count = itertools.count()
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at: Micros = 0
        self._ringing = False
        self._later = later(loop)
        self._waits = False
        self.worst_lateness: Micros = 0

    def at(self, instant: Micros, urgency: Urgency, callback: Callback) -> None:
        """Call ``callback(instant)`` at ``instant``; as soon as possible if that has passed."""
        heapq.heappush(self._heap, (instant, urgency, next(self._count), callback))
        if not self._ringing:
            self._arm()

    def ring_due(self) -> None:
        """Call back everything that is due, so that what comes next finds it done.

        To be called before an event from outside is handled: what was set for an earlier instant
        happened before it, even if the event loop has not come round to it yet.
        """
        if self._ringing:
            return
        self._ringing = True
        try:
            while self._heap:
                late = self._clock.now() - self._heap[0][0]
                if late < 0:
                    break
                instant, _, _, callback = heapq.heappop(self._heap)
                real = int(late * self._clock.scale)
                if real > self.worst_lateness:
                    self.worst_lateness = real
                callback(instant)
        finally:
            self._ringing = False
            self._arm()

    def close(self) -> None:
        """Forget all timers."""
        self._heap.clear()
        self._arm()

    def rearm(self) -> None:
        """Set the event loop's timer anew, after the clock was changed."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._arm()

    def _arm(self) -> None:
        at = self._next()
        if self._armed is not None:
            if at == self._armed_at:
                return
            self._armed.cancel()
            self._armed = None
        if at is not None:
            self._armed_at = at
            self._armed = self._loop.call_at(self._clock.loop_time(at), self._ring)

    def _next(self) -> Micros | None:
        """Return the instant of the next ring; arrivals that have their place in the queue and what
        comes with them need none."""
        if not self._heap:
            return None
        if not self._waits:
            return self._heap[0][0]
        urgent = (entry[0] for entry in self._heap if entry[1] < Urgency.ARRIVAL)
        return min(urgent, default=None)

    def _ring(self) -> None:
        self._armed = None
        if self._waits or not self._heap or self._heap[0][1] < Urgency.ARRIVAL:
            self.ring_due()
            return
        self._waits = True
        self._later.add(self._turn_has_come)
        self._arm()

    def _turn_has_come(self) -> None:
        self._waits = False
        self.ring_due()
