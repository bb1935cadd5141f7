"""The context of a driver's parts: its model, its clock, and how to hand events in.

``edgenode.driver`` puts the parts together and has what is declared here.
"""

from __future__ import annotations

from typing import Protocol

from edgenode.clock import EpisodeClock, Timers
from edgenode.payload import Inbox
from testbed.model.events import Event
from testbed.model.faulted import FaultedNode
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.scenario.plan import Plan


class Driver(Protocol):
    """One episode at one node, for the parts that carry out the effects of its model."""

    @property
    def node(self) -> int: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def episode(self) -> int: ...

    @property
    def state(self) -> FaultedNode: ...

    @property
    def clock(self) -> EpisodeClock: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def inbox(self) -> Inbox: ...

    def reaches(self, peer: int) -> bool:
        """Return whether no fault keeps what is said now from getting to ``peer``."""
        ...

    def arrived(self, task: Task, at: Micros) -> None:
        """Hand in a task that arrives at ``at``, the beginning of its slot."""
        ...

    def happened(self, event: Event) -> None:
        """Hand in an event from outside, now; what was due before it happens first."""
        ...

    def handle(self, event: Event, at: Micros) -> None:
        """Hand in an event at ``at``, or at the latest instant the model has seen."""
        ...
