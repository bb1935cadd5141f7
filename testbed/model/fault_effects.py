"""Configured and measured effects of faults on the work of nodes and links.

``expect`` says how long a piece of work should take under a timeline; the fidelity certificate
judges by it. ``Effects`` collects, fault by fault, what the nodes noted and what they measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from testbed.model.events import Record, RecordKind
from testbed.model.faults.registry import KINDS
from testbed.model.faults.seam import Fault
from testbed.model.faults.timeline import Timeline
from testbed.model.units import MILLISECOND, SECOND, Micros

FULL: Final = 1_000_000
_NOTICEABLE: Final = 20 * MILLISECOND
"""A change of a duration that is larger than what a busy machine adds."""

Unit: TypeAlias = tuple[int, int | None]
"""A node, or the link from it to a peer."""


class Expected(NamedTuple):
    """Configured duration of work, and the failure rate summed over the time worked.

    ``duration`` None: it never ends, or is unknown because its receiver lost part of it.
    """

    duration: Micros | None
    hazard: float | None


def expect(
    timeline: Timeline, unit: Unit, begin: Micros, work: Micros, rate: float, left: Micros
) -> Expected:
    """Return what should become of work of nominal length ``work`` that a unit begins at ``begin``.

    ``rate`` is the configured failure rate, 1/s; the hazard ends with the work or after ``left``.
    """
    rest, at, hazard = work * FULL, begin, 0.0
    node, peer = unit
    while True:
        scene = timeline.scene(at)
        if peer is None:
            speed, more = scene.execution(node)
        else:
            link = scene.link(node, peer)
            if link.restart:
                return Expected(None, None)
            speed, more = link.rate, link.failures
        until = timeline.next_change(at)
        done = until is None or rest <= (until - at) * speed
        if done:
            if not speed:
                return Expected(None, hazard)
            until = at + (2 * rest + speed) // (2 * speed)
        assert until is not None
        if speed:
            worked = max(0, min(until, begin + left) - at)
            hazard += (rate + more) * worked / SECOND
        if done:
            return Expected(until - begin, hazard)
        rest -= (until - at) * speed
        at = until


@dataclass(frozen=True, slots=True)
class FaultNote:
    """A node applied or released a fault.

    ``at`` is the instant it was due, ``clock`` what the node's clock said then. ``what`` is
    ``applied``, ``released``, or ``ended`` for one that the end of the episode released.
    """

    node: int
    episode: int
    fault: str
    what: str
    at: Micros
    clock: Micros


@dataclass(slots=True)
class _Effect:
    fault: Fault
    applied: dict[int, Micros] = field(default_factory=dict)
    released: dict[int, Micros] = field(default_factory=dict)
    samples: int = 0
    nominal: Micros = 0
    expected: Micros = 0
    measured: Micros = 0
    arrivals: int = 0
    lost: int = 0
    failed: int = 0


class Effects:
    """Effects of the faults of one episode, from the records and notes of its nodes."""

    def __init__(self, episode: int, timeline: Timeline) -> None:
        self.episode = episode
        self.timeline = timeline
        self._effects = {fault.id: _Effect(fault) for fault in timeline.faults}
        self._started: dict[tuple[int, int], Record] = {}

    def set_timeline(self, timeline: Timeline) -> None:
        """Faults were injected or cleared by hand."""
        self.timeline = timeline
        for fault in timeline.faults:
            effect = self._effects.setdefault(fault.id, _Effect(fault))
            effect.fault = fault

    def forget(self, fault: str) -> None:
        """A fault was never brought to the nodes."""
        self._effects.pop(fault, None)

    def note(self, node: int, fault: str, what: str, lateness: Micros) -> None:
        """A node applied or released a fault, ``lateness`` after it was due on its clock."""
        effect = self._effects.get(fault)
        if effect is not None:
            (effect.applied if what == "applied" else effect.released)[node] = lateness

    def add(self, record: Record) -> None:
        """Take a record of a node."""
        if not self._effects:
            return
        kind, place = record.kind, (record.task.id, record.node)
        if kind is RecordKind.GENERATED:
            for effect in self._touched(record.node, None, record.at, record.at + 1):
                effect.arrivals += 1
        elif kind in (RecordKind.TRANSMISSION_STARTED, RecordKind.EXECUTION_STARTED):
            self._started[place] = record
        elif kind in (RecordKind.SENT, RecordKind.ENDED):
            start = self._started.pop(place, None)
            if kind is RecordKind.ENDED and record.data.get("fault"):
                for effect in self._touched(record.node, None, record.at, record.at + 1):
                    effect.lost += 1
            elif start is not None:
                self._measure(start, record)

    def _measure(self, start: Record, end: Record) -> None:
        peer = int(start.data["peer"]) if start.kind is RecordKind.TRANSMISSION_STARTED else None
        work = int(start.data["nominal"])
        outcome = end.data.get("outcome", "succeeded")
        touched = self._touched(start.node, peer, start.at, end.at)
        for effect in touched:
            effect.failed += outcome in ("execution_failed", "transmission_failed")
        if not touched or outcome != "succeeded":
            return
        expected = expect(self.timeline, (start.node, peer), start.at, work, 0.0, 0).duration
        if expected is None or abs(expected - work) < _NOTICEABLE:
            return
        for effect in touched:
            effect.samples += 1
            effect.nominal += work
            effect.expected += expected
            effect.measured += end.clock - start.clock

    def _touched(self, node: int, peer: int | None, begin: Micros, end: Micros) -> list[_Effect]:
        """Effects of the faults on a unit that hold at some instant of an interval."""
        found = []
        for effect in self._effects.values():
            fault = effect.fault
            if fault.begin < end and begin < fault.end:
                if KINDS[fault.kind].target == "links":
                    mine = peer is not None and (node, peer) in fault.links
                else:
                    mine = node in fault.nodes or (peer is not None and peer in fault.nodes)
                if mine:
                    found.append(effect)
        return found

    def documents(self, ended_at: Micros, missing: frozenset[int] = frozenset()) -> list[Any]:
        """One document per fault that had begun when the episode ended, by instant.

        ``missing`` are nodes that cannot have told. ``took`` is False if a node did not apply it,
        or if what was measured is nearer to what it would have been without the fault; None if
        there was nothing to see it by.
        """
        return [
            self._document(effect, missing)
            for effect in sorted(self._effects.values(), key=lambda e: (e.fault.begin, e.fault.id))
            if effect.fault.begin < ended_at
        ]

    def _document(self, effect: _Effect, missing: frozenset[int]) -> Mapping[str, Any]:
        fault = effect.fault
        kind = KINDS[fault.kind]
        concerned = fault.nodes or tuple(dict.fromkeys(source for source, _ in fault.links))
        told = all(node in effect.applied for node in concerned if node not in missing)
        took: bool | None = None if told else False
        if told and effect.samples:
            took = abs(effect.measured - effect.expected) < abs(effect.measured - effect.nominal)
        elif told and (kind.name == "arrivals" or effect.lost):
            took = True
        return {
            "episode": self.episode,
            "id": fault.id,
            "what": kind.describe(fault),
            **fault.to_document(),
            "applied": {str(node): late for node, late in sorted(effect.applied.items())},
            "released": {str(node): late for node, late in sorted(effect.released.items())},
            "took": took,
            "measured": {
                "samples": effect.samples,
                "nominal": effect.nominal,
                "expected": effect.expected,
                "measured": effect.measured,
                "arrivals": effect.arrivals,
                "lost": effect.lost,
                "failed": effect.failed,
            },
        }


def fault_lines(faults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return each fault of a run once, with how often it came and how often it did not take.

    ``faults`` are documents as ``Effects.documents`` gives them, or the beginning of such.
    """
    by_entry: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for fault in faults:
        named = fault["what"] if fault["entry"] < 0 else fault["kind"]
        by_entry.setdefault((fault["entry"], named), []).append(fault)
    lines = []
    for (entry, what), found in by_entry.items():
        times = "once" if len(found) == 1 else f"{len(found)} times"
        episodes = len({fault["episode"] for fault in found})
        missed = sum(fault.get("took") is False for fault in found)
        lines.append(
            f"{'by hand' if entry < 0 else f'faults[{entry}]'}: {what}, {times} in "
            f"{episodes} episode{'' if episodes == 1 else 's'}"
            + (f"; {missed} did not take" if missed else "")
        )
    return lines
