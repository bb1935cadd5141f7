"""The parts of a driver for all families of work: an episode's clock, its timers, its faults."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from edgenode.clock import EpisodeClock, Timers
from edgenode.faulting import Faulting
from testbed.model.faults import Fault
from testbed.model.units import Micros

_Event = TypeVar("_Event")
"""An event of the family's model."""


class Timed(Protocol):
    """The model of a node."""

    now: Micros
    """The latest instant it has seen."""


class RealTimeEpisode(ABC, Generic[_Event]):
    """One episode at one node whose model is driven by the real clock.

    Nothing happens before the clock has begun, and nothing after ``_closed`` is set. A subclass
    makes ``state`` and ``faulting``.
    """

    state: Timed
    faulting: Faulting

    def __init__(self, time_scale: float) -> None:
        self.begun = False
        self.clock = EpisodeClock.waiting(time_scale)
        self.timers = Timers(self.clock, asyncio.get_running_loop())
        self._closed = False

    @property
    def now(self) -> Micros:
        """See ``Faulted``."""
        return max(self.clock.now(), self.state.now)

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """See ``NodeDriver``."""
        self.faulting.set_by_hand(faults)

    def happened(self, event: _Event) -> None:
        """Handle an event from outside, now, after all that was due before it."""
        if self._closed:
            return
        # The instant first: what falls due while this goes on comes after it, not before.
        now = self.clock.now()
        self.timers.ring_due()
        self.handle(event, now)

    @abstractmethod
    def handle(self, event: _Event, at: Micros) -> None:
        """Handle an event at ``at``, or at the model's latest instant if that is later."""
