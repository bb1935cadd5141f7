"""Checks that need several keys of a fault, reported with all other problems of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from testbed.errors import Problem
from testbed.model.distributions import Distribution
from testbed.model.faults import KINDS, Exponential
from testbed.model.faults.seam import FaultKind
from testbed.model.faults.spec import MOST_OCCURRENCES
from testbed.model.units import Micros
from testbed.scenario.schema import FaultPart
from testbed.scenario.units import QuantityError, shown, whole

_WHEN: Final = ("at", "slot", "every", "perSlot")
_TARGETS: Final = {"nodes": ("nodes",), "links": ("from", "to")}
_ONLY_LINKS: Final = "bothWays"
_INDEX: Final = whole(0, 10**9, 0)


def structure(faults: Any, count: int | None, slots: int | None) -> Iterator[Problem]:
    """Problems that need no valid values: which keys stand together, and which nodes there are.

    ``count`` and ``slots`` are the numbers of nodes and slots, None where the file does not say.
    """
    if not isinstance(faults, list):
        return
    for index, entry in enumerate(faults):
        if isinstance(entry, dict):
            yield from problems_of(entry, f"faults[{index}]", count, slots)


def problems_of(
    entry: Mapping[str, Any], path: str, count: int | None, slots: int | None, *, timed: bool = True
) -> Iterator[Problem]:
    """Problems of one fault; ``timed`` False for one that begins at once."""
    given = {key for key, value in entry.items() if value is not None}
    if timed:
        when = [key for key in _WHEN if key in given]
        if len(when) != 1:
            seen = f"{' and '.join(when)} given" if when else "does not say when it begins"
            yield Problem(path, seen, f"allowed: exactly one of {', '.join(_WHEN)}")
    kind = KINDS.get(entry["kind"]) if isinstance(entry.get("kind"), str) else None
    if kind is not None:
        yield from _keys(kind, entry, given, path)
    for key in ("nodes", "from", "to"):
        yield from _places(entry.get(key), f"{path}.{key}", count)
    if "slot" in given and slots is not None:
        try:
            if int(_INDEX.read(entry["slot"])) >= slots:
                yield Problem(
                    f"{path}.slot", shown(entry["slot"]), f"allowed: a slot, 0 to {slots - 1}"
                )
        except QuantityError:
            pass  # Told already.


def _keys(
    kind: FaultKind, entry: Mapping[str, Any], given: set[str], path: str
) -> Iterator[Problem]:
    targets = _TARGETS[kind.target]
    needed = {*targets, *kind.parameters} - ({"mode"} if kind.modes else set())
    for key in sorted(needed - given):
        yield Problem(f"{path}.{key}", "missing", f"needed: {kind.name} takes {_takes(kind)}")
    allowed = {*targets, *kind.parameters, *({_ONLY_LINKS} if kind.target == "links" else ())}
    for key in sorted(given & ({"nodes", "from", "to", "factor", "failureRate", "mode"} - allowed)):
        yield Problem(f"{path}.{key}", "not for this kind", f"{kind.name} takes {_takes(kind)}")
    if kind.target != "links" and entry.get(_ONLY_LINKS):
        yield Problem(
            f"{path}.{_ONLY_LINKS}", "not for this kind", f"{kind.name} takes {_takes(kind)}"
        )
    mode = entry.get("mode")
    if kind.modes and isinstance(mode, str) and mode not in kind.modes:
        yield Problem(f"{path}.mode", shown(mode), f"allowed: {' or '.join(kind.modes)}")
    if "factor" in kind.parameters and kind.name != "arrivals" and entry.get("factor") in (0, "0"):
        other = "partition" if kind.target == "links" else "node-down with mode hung"
        yield Problem(f"{path}.factor", "0", f"allowed: above 0; {other} stops it")


def _takes(kind: FaultKind) -> str:
    return ", ".join((*_TARGETS[kind.target], *kind.parameters))


def _places(value: Any, path: str, count: int | None) -> Iterator[Problem]:
    if count is None or isinstance(value, str) or value is None:
        return
    for entry in value if isinstance(value, list) else [value]:
        try:
            node = int(_INDEX.read(entry))
        except QuantityError:
            return  # Told already.
        if node >= count:
            yield Problem(path, str(node), f"allowed: a node, 0 to {count - 1}")


def timing(faults: Sequence[FaultPart], horizon: Micros, nodes: int) -> Iterator[Problem]:
    """Problems between values that are valid each for itself.

    ``horizon`` is how long an episode of a network of ``nodes`` nodes takes.
    """
    for index, fault in enumerate(faults):
        yield from _timing(fault, f"faults[{index}]", horizon, nodes)


def _timing(fault: FaultPart, path: str, horizon: Micros, nodes: int) -> Iterator[Problem]:
    if fault.at is not None and _least(fault.at) >= horizon:
        yield Problem(
            f"{path}.at",
            f"begins {_least(fault.at) / 1e6:g} s after the beginning of an episode",
            f"allowed: before its last slot is over, {horizon / 1e6:g} s",
        )
    if fault.every is not None:
        apart = _typical(fault.every) + _typical(fault.duration)
        if horizon / apart > MOST_OCCURRENCES / 2:
            yield Problem(
                f"{path}.every",
                f"about {horizon / apart:.0f} times in every episode",
                f"allowed: up to {MOST_OCCURRENCES // 2}",
            )
    targets = (fault.sources, fault.destinations)
    if all(isinstance(each, tuple) and len(each) == 1 for each in targets):
        if targets[0] == targets[1]:
            yield Problem(path, "a link from a node to itself", "allowed: two nodes")
    elif nodes == 1 and fault.sources is not None:
        yield Problem(path, "a network of one node has no links", "allowed: kinds with nodes")


def _least(values: Distribution) -> float:
    return values.at(0.0) if not hasattr(values, "values") else min(values.values)


def _typical(values: Distribution | Exponential) -> float:
    return max(1.0, values.mean if isinstance(values, Exponential) else values.at(0.5))
