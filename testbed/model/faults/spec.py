"""A fault as a scenario has it, and the occurrences drawn from it for one episode.

Everything random about a fault is drawn with the faults seed under the key of the episode, the
fault's place in the scenario and the occurrence: the same seed gives the same faults under every
scheduler, and another fault at the end of the list changes none of those before it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from testbed.model.distributions import Distribution
from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.faults.registry import KINDS
from testbed.model.faults.seam import Fault
from testbed.model.units import Micros

ANY: Final = "any"
"""Stands for one node, drawn separately for each occurrence."""

Nodes: TypeAlias = tuple[int, ...] | Literal["any"]

MOST_OCCURRENCES: Final = 10_000
"""Of one fault in one episode; the scenario check refuses what would give more."""

# What a draw of an occurrence is for; the last word of its key.
_WHEN, _LONG, _NODE, _SOURCE, _DESTINATION = range(5)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponentially distributed with this mean."""

    mean: float

    def at(self, u: float) -> float:
        """Return the value for a draw ``u`` in (0, 1)."""
        return -math.log(u) * self.mean


Interval: TypeAlias = Distribution | Exponential


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A fault of a scenario with every value in base units.

    It begins at ``at``, or ``every`` so long after its last end, or in a slot with probability
    ``per_slot``; exactly one of them is given. ``nodes`` is for kinds that act on nodes,
    ``sources`` and ``destinations`` are for those that act on links. ``together`` False: each node
    or link has a timeline of its own.
    """

    kind: str
    duration: Distribution
    at: Distribution | None = None
    every: Interval | None = None
    per_slot: float | None = None
    nodes: Nodes = ()
    sources: Nodes = ()
    destinations: Nodes = ()
    both_ways: bool = False
    together: bool = True
    factor: float = 1.0
    failure_rate: float = 0.0
    mode: str = ""


def links_between(
    sources: tuple[int, ...], destinations: tuple[int, ...], both_ways: bool
) -> tuple[tuple[int, int], ...]:
    """Return the directed links from each source to each destination, without those to itself."""
    links = dict.fromkeys((source, to) for source in sources for to in destinations if source != to)
    if both_ways:
        links.update(dict.fromkeys((to, source) for source, to in tuple(links)))
    return tuple(links)


def draw(
    spec: FaultSpec,
    entry: int,
    *,
    seed: int,
    episode: int,
    size: int,
    slots: int,
    slot: Micros,
) -> list[Fault]:
    """The occurrences of fault number ``entry`` of a scenario in one episode, by their beginning.

    ``size`` is the number of nodes, ``slots`` and ``slot`` number and length of the slots. No
    occurrence begins after the last slot, and all have an end.
    """
    stream = key(seed, Purpose.FAULT, episode, entry)
    if spec.together:
        found = list(_occurrences(spec, stream, size, slots, slot))
    else:
        found = []
        for number, part in enumerate(_parts(spec, size)):
            found.extend(_occurrences(part, extend(stream, number), size, slots, slot))
        found.sort(key=lambda fault: fault.begin)
    return [replace(fault, entry=entry, number=number) for number, fault in enumerate(found)]


def _parts(spec: FaultSpec, size: int) -> Iterator[FaultSpec]:
    """One fault per node or link that it acts on."""
    if KINDS[spec.kind].target == "nodes":
        nodes = range(size) if spec.nodes == ANY else spec.nodes
        for node in nodes:
            assert isinstance(node, int)
            yield replace(spec, nodes=(node,))
        return
    everywhere = tuple(range(size))
    sources = everywhere if spec.sources == ANY else spec.sources
    destinations = everywhere if spec.destinations == ANY else spec.destinations
    assert not isinstance(sources, str)
    assert not isinstance(destinations, str)
    seen: set[tuple[int, int]] = set()
    for link in links_between(sources, destinations, False):
        if spec.both_ways and link[::-1] in seen:
            continue
        seen.add(link)
        yield replace(spec, sources=link[:1], destinations=link[1:])


def _occurrences(
    spec: FaultSpec, stream: int, size: int, slots: int, slot: Micros
) -> Iterator[Fault]:
    horizon = slots * slot
    for number, begin in _beginnings(spec, stream, slots, slot):
        if begin >= horizon:
            return
        drawn = extend(stream, number)
        end = begin + _duration(spec, drawn)
        nodes, links = _target(spec, drawn, size)
        yield Fault(
            kind=spec.kind,
            begin=begin,
            end=end,
            nodes=nodes,
            links=links,
            factor=spec.factor,
            failure_rate=spec.failure_rate,
            mode=spec.mode,
        )


def _beginnings(
    spec: FaultSpec, stream: int, slots: int, slot: Micros
) -> Iterator[tuple[int, Micros]]:
    """Return the number and instant of each occurrence."""
    if spec.at is not None:
        yield 0, round(spec.at.at(to_unit(extend(stream, 0, _WHEN))))
        return
    free: Micros = 0
    if spec.every is not None:
        for number in itertools.count():
            if number == MOST_OCCURRENCES:
                return
            drawn = extend(stream, number)
            begin = free + round(spec.every.at(to_unit(extend(drawn, _WHEN))))
            free = begin + _duration(spec, drawn)
            yield number, begin
        return
    assert spec.per_slot is not None
    for number in range(slots):
        begin = number * slot
        drawn = extend(stream, number)
        if begin >= free and to_unit(extend(drawn, _WHEN)) < spec.per_slot:
            free = begin + _duration(spec, drawn)
            yield number, begin


def _duration(spec: FaultSpec, drawn: int) -> Micros:
    return max(1, round(spec.duration.at(to_unit(extend(drawn, _LONG)))))


def _target(
    spec: FaultSpec, drawn: int, size: int
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    if KINDS[spec.kind].target == "nodes":
        return _nodes(spec.nodes, extend(drawn, _NODE), size), ()
    sources, destinations = spec.sources, spec.destinations
    if sources == ANY and destinations == ANY and size > 1:
        # Two different nodes.
        source = int(to_unit(extend(drawn, _SOURCE)) * size)
        other = int(to_unit(extend(drawn, _DESTINATION)) * (size - 1))
        other += other >= source
        return (), links_between((source,), (other,), spec.both_ways)
    return (), links_between(
        _nodes(sources, extend(drawn, _SOURCE), size),
        _nodes(destinations, extend(drawn, _DESTINATION), size),
        spec.both_ways,
    )


def _nodes(nodes: Nodes, drawn: int, size: int) -> tuple[int, ...]:
    if isinstance(nodes, str):
        return (int(to_unit(drawn) * size),)
    return nodes
