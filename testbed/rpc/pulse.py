"""Time in which this process ran, and the pauses in between.

A process that is stopped (SIGSTOP), whose machine is suspended or whose event loop is starved finds
all its timers rung when it goes on, although what it waited for may lie in its sockets. So the
silence of others is counted in time in which this process was able to hear them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

INTERVAL_S: Final = 0.1
"""Seconds between two rings of a pulse that drives itself."""

TOLERANCE_S: Final = 0.25
"""Seconds by which a timer may be late before that counts as a pause."""

KEPT: Final = 1000
"""Pauses that are remembered one by one; all count in ``paused``."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of this process: when it began, on the pulse's clock, and how long it was."""

    at: float
    seconds: float


def _clock() -> float:
    """Seconds that go on while the machine is suspended, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Pulse:
    """Counts the time in which this process ran.

    Call ``ring`` about every ``interval`` seconds, or ``start`` it to have that done on the event
    loop. ``clock`` gives seconds.
    """

    def __init__(
        self, interval: float = INTERVAL_S, *, clock: Callable[[], float] = _clock
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._last = clock()
        self._counted = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._on_ring: Callable[[], None] | None = None
        self.paused = 0.0
        self.pauses: deque[Pause] = deque(maxlen=KEPT)

    @property
    def time(self) -> float:
        """The present instant on the clock of ``Pause.at``."""
        return self._clock()

    def awake(self) -> float:
        """Seconds since this was made in which the process ran; never runs back."""
        longest = self._interval + TOLERANCE_S
        return self._counted + min(max(0.0, self._clock() - self._last), longest)

    def pauses_until_now(self) -> float:
        """Seconds of all pauses; a pause that has just ended counts before its ring does."""
        late = self._clock() - self._last - self._interval
        return self.paused + (late if late > TOLERANCE_S else 0.0)

    def ring(self) -> None:
        """Count the time since the last ring."""
        now, counted = self._clock(), self.awake()
        elapsed = now - self._last
        late = elapsed - self._interval
        if late > TOLERANCE_S:
            self.paused += late
            self.pauses.append(Pause(self._last, late))
        self._counted, self._last = counted, now

    def start(self, on_ring: Callable[[], None]) -> None:
        """Ring by itself from now on, and call ``on_ring`` each time."""
        self._on_ring = on_ring
        self._last = self._clock()
        self._arm()

    def stop(self) -> None:
        """Ring no more. No-op if it does not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._rung)

    def _rung(self) -> None:
        self._arm()
        self.ring()
        if self._on_ring is not None:
            self._on_ring()
