"""All faults of one episode: what holds at which instant, and when it changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from testbed.model.faults.registry import KINDS
from testbed.model.faults.scene import NORMAL, Conditions, Scene
from testbed.model.faults.seam import Fault
from testbed.model.units import Micros


class Change(NamedTuple):
    """The conditions of a node from an instant on."""

    at: Micros
    node: int
    conditions: Conditions


class Timeline:
    """The faults of an episode in a network of ``size`` nodes; immutable."""

    def __init__(self, faults: Iterable[Fault], size: int) -> None:
        self.size = size
        self.faults = tuple(sorted(faults, key=lambda f: (f.begin, f.entry, f.number)))
        instants = {fault.begin for fault in self.faults} | {fault.end for fault in self.faults}
        self._instants = sorted(instants)
        self._scenes: dict[int, Scene] = {}

    def __bool__(self) -> bool:
        return bool(self.faults)

    def scene(self, at: Micros) -> Scene:
        """Return what holds at an instant; one at which a fault begins is the first it holds at."""
        place = bisect_right(self._instants, at)
        scene = self._scenes.get(place)
        if scene is None:
            scene = self._scenes[place] = Scene(self.size)
            # Nothing changes between two instants, so the first of them speaks for all.
            start = self._instants[place - 1] if place else -1
            for fault in self.faults:
                if fault.begin > start:
                    break
                if fault.holds(start):
                    KINDS[fault.kind].apply(fault, scene)
        return scene

    def active(self, at: Micros) -> tuple[Fault, ...]:
        """Return the faults that hold at an instant."""
        return tuple(fault for fault in self.faults if fault.holds(at))

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Every change of a node's conditions, by instant and node."""
        known = [NORMAL] * self.size
        changes = []
        for instant in self._instants:
            for node, conditions in enumerate(self.scene(instant).conditions()):
                if conditions != known[node]:
                    known[node] = conditions
                    changes.append(Change(instant, node, conditions))
        return tuple(changes)

    def next_change(self, after: Micros) -> Micros | None:
        """Return the first instant after ``after`` at which anything changes."""
        place = bisect_right(self._instants, after)
        return self._instants[place] if place < len(self._instants) else None
