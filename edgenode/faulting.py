"""The faults of one episode at one node: applied and released at their instants, and logged.

Every node draws the same timeline from the plan, so both ends of a link change at the same instant
of their episode clocks. Faults injected by hand come from the controller with instants of the
same clock. Nothing has to be undone at the end: a fault is a state of the episode's model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final, Protocol

from edgenode.clock import EpisodeClock, Timers, Urgency
from testbed.model.fault_effects import FaultNote
from testbed.model.faults import KINDS, Fault, State, Timeline
from testbed.model.faults.scene import Conditions
from testbed.model.units import Micros

DOWN: Final = "down"
"""The reason for which a node that is down refuses a task."""


class Faulted(Protocol):
    """A driver whose node faults change."""

    @property
    def node(self) -> int: ...

    @property
    def episode(self) -> int: ...

    @property
    def clock(self) -> EpisodeClock: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def now(self) -> Micros:
        """The present instant, or the latest that the model has seen if that is later."""
        ...

    @property
    def conditions(self) -> Conditions:
        """What faults make of the node at present."""
        ...

    def change(self, conditions: Conditions, at: Micros) -> None:
        """Have other conditions from ``at`` on."""
        ...


class Faulting:
    """Changes the conditions of a driver's node as the faults of its episode say.

    ``log`` is handed a document for each fault that is applied or released.
    """

    def __init__(self, driver: Faulted, timeline: Timeline, log: Callable[[bytes], None]) -> None:
        self._driver = driver
        self._log = log
        self._planned = timeline.faults
        self._timeline = timeline
        self._applied: dict[str, Fault] = {}
        self._set_timers(timeline.faults, -1)

    @property
    def down(self) -> bool:
        """Whether a fault has taken this node down."""
        return self._driver.conditions.state is not State.UP

    def answers(self, asking: int) -> bool:
        """Return whether a probe of a peer gets here and its answer gets back, now."""
        if not self._timeline:
            return True
        driver = self._driver
        return self._timeline.scene(driver.now).answers(asking, driver.node)

    def reaches(self, peer: int) -> bool:
        """Return whether what this node says now gets to a peer."""
        if not self._timeline:
            return True
        driver = self._driver
        return self._timeline.scene(driver.now).passes(driver.node, peer)

    def set_by_hand(self, faults: Iterable[Fault]) -> None:
        """Set the faults beside the planned ones, in place of those set before."""
        now = self._driver.clock.now()
        given = tuple(faults)
        self._timeline = Timeline((*self._planned, *given), self._timeline.size)
        self._set_timers(given, now)
        self._change(now)

    def close(self) -> None:
        """Note that the end of the episode released what was active."""
        now = self._driver.clock.now()
        for fault in self._applied.values():
            self._note(fault, "ended", now)
        self._applied.clear()

    def _set_timers(self, faults: Iterable[Fault], after: Micros) -> None:
        instants = {i for fault in faults for i in (fault.begin, fault.end) if i > after}
        for instant in sorted(instants):
            self._driver.timers.at(instant, Urgency.FAULT, self._change)

    def _change(self, at: Micros) -> None:
        driver = self._driver
        found = self._timeline.scene(at).conditions()[driver.node]
        if found != driver.conditions:
            driver.change(found, at)
        active = {fault.id: fault for fault in self._timeline.active(at) if self._mine(fault)}
        for fault in [f for name, f in self._applied.items() if name not in active]:
            self._note(fault, "released", at)
        for fault in [f for name, f in active.items() if name not in self._applied]:
            self._note(fault, "applied", at)
        self._applied = active

    def _mine(self, fault: Fault) -> bool:
        node = self._driver.node
        if KINDS[fault.kind].target == "nodes":
            return node in fault.nodes
        return any(source == node for source, _ in fault.links)

    def _note(self, fault: Fault, what: str, at: Micros) -> None:
        driver = self._driver
        note = FaultNote(driver.node, driver.episode, fault.id, what, at, driver.clock.now())
        self._log(json.dumps(asdict(note), separators=(",", ":")).encode())
