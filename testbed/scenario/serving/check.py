"""Checks of a scenario of requests that need several of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from testbed.errors import Problem
from testbed.model.distributions import Choice, Constant
from testbed.model.faults import KINDS as ALL_KINDS
from testbed.model.units import SECOND, Micros
from testbed.scenario import check_faults
from testbed.scenario.serving.resolve import neighbours, trace
from testbed.scenario.serving.schema import FunctionPart, ServingScenario
from testbed.scenario.units import DURATION, POSITIVE_DURATION, QuantityError, integer, shown

MOST_REQUESTS: Final = 5_000_000
"""Of an episode; the log has a row for each."""
MOST_CALLS: Final = 100_000
"""Periods of an episode, in each of which every node calls its router."""
MOST_WINDOWS: Final = 1_000_000
"""Of an episode, over all nodes."""
KINDS: Final = ("node-down",)
"""Kinds of faults that serving networks know."""


def structure(data: dict[str, Any]) -> Iterator[Problem]:
    """Checks across keys that need no valid values, so that they are reported with the others."""
    nodes, functions = _mapping(data.get("nodes")), _mapping(data.get("functions"))
    overlay, horizon = _mapping(data.get("overlay")), _mapping(data.get("horizon"))
    count = integer(nodes.get("count")) if nodes else None
    yield from check_faults.structure(data.get("faults"), count, _windows(horizon))
    yield from _kinds(data.get("faults"))
    users = data.get("users")
    for index, entry in enumerate(users if isinstance(users, list) else ()):
        name = entry.get("function") if isinstance(entry, dict) else None
        if isinstance(name, str) and functions and name not in functions:
            known = ", ".join(map(str, functions))
            yield Problem(f"users[{index}].function", shown(name), f"allowed: {known}")
    if not count:
        # Told already; against it nothing else can be said.
        return
    for index, entry in enumerate(users if isinstance(users, list) else ()):
        node = integer(entry.get("node")) if isinstance(entry, dict) else None
        if node is not None and node >= count:
            yield Problem(f"users[{index}].node", str(node), f"allowed: a node, 0 to {count - 1}")
    for name, function in functions.items():
        rates = function.get("maxRate") if isinstance(function, dict) else None
        if isinstance(rates, list) and len(rates) != count:
            yield Problem(
                f"functions.{name}.maxRate",
                f"{len(rates)} values for {count} nodes",
                f"allowed: {count} values, one per node, or nodes.count={len(rates)}",
            )
    if isinstance(overlay.get("neighbours"), list):
        yield from _overlay(overlay["neighbours"], count)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _windows(horizon: dict[str, Any]) -> int | None:
    """Return the number of windows of an episode, None where the file does not say."""
    try:
        length = POSITIVE_DURATION.read(horizon.get("length"))
        window = POSITIVE_DURATION.read(horizon.get("window", "1s"))
    except QuantityError:
        return None
    return int(-(-length // window))


def _kinds(faults: Any) -> Iterator[Problem]:
    for index, entry in enumerate(faults if isinstance(faults, list) else ()):
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if isinstance(kind, str) and kind in ALL_KINDS and kind not in KINDS:
            yield Problem(
                f"faults[{index}].kind",
                f"{shown(kind)} is a fault of scenarios with model: tasks",
                f"allowed: {', '.join(KINDS)}",
            )


def _overlay(rows: list[Any], count: int) -> Iterator[Problem]:
    path = "overlay.neighbours"
    if len(rows) != count:
        yield Problem(path, f"{len(rows)} lists for {count} nodes", f"allowed: {count} lists")
    for node, row in enumerate(rows):
        known: set[int] = set()
        for place, entry in enumerate(row if isinstance(row, list) else ()):
            peer = integer(entry)
            if peer is None:
                continue
            if peer >= count:
                allowed = f"allowed: a node, 0 to {count - 1}"
                yield Problem(f"{path}[{node}][{place}]", f"{peer} is no node", allowed)
            elif peer == node:
                yield Problem(
                    f"{path}[{node}][{place}]", f"node {node} itself", "allowed: other nodes"
                )
            elif peer in known:
                yield Problem(
                    f"{path}[{node}][{place}]", f"node {peer} a second time", "allowed: once"
                )
            known.add(peer)


def consistency(scenario: ServingScenario) -> Iterator[Problem]:
    """Checks between values; called with a scenario whose values are valid each for itself."""
    horizon, routing, overlay = scenario.horizon, scenario.routing, scenario.overlay
    yield from check_faults.timing(scenario.faults, horizon.length, scenario.nodes.count)
    for name, function in scenario.functions.items():
        yield from _function(name, function, scenario)
    if overlay.expiry < routing.period:
        yield Problem(
            "overlay.expiry",
            f"{_text(overlay.expiry)} is shorter than routing.period, {_text(routing.period)}: "
            "what neighbours said is forgotten before they say something new",
            f"allowed: {_text(routing.period)} or more",
        )
    if routing.offset >= horizon.length:
        yield Problem(
            "routing.offset",
            f"routers are called first at {_text(routing.offset)}, when the episode of "
            f"{_text(horizon.length)} is over",
            "allowed: less than horizon.length",
        )
    if horizon.length // routing.period > MOST_CALLS:
        yield Problem(
            "routing.period",
            f"{horizon.length // routing.period} periods in an episode",
            f"allowed: up to {MOST_CALLS}, with horizon.length={_text(horizon.length)} a period of "
            f"{_text(-(-horizon.length // MOST_CALLS))} or more",
        )
    windows = -(-horizon.length // horizon.window) * scenario.nodes.count
    if windows > MOST_WINDOWS:
        yield Problem(
            "horizon.window",
            f"{windows} windows in an episode, of all nodes",
            f"allowed: up to {MOST_WINDOWS}",
        )
    requests = sum(trace(users.rate).total(horizon.length) for users in scenario.users)
    if requests > MOST_REQUESTS:
        yield Problem(
            "users", f"{requests:.0f} requests in an episode", f"allowed: up to {MOST_REQUESTS}"
        )


def _function(name: str, function: FunctionPart, scenario: ServingScenario) -> Iterator[Problem]:
    horizon, path = scenario.horizon, f"functions.{name}"
    values = function.max_rate
    rates: tuple[float, ...] = ()
    if isinstance(values, tuple):
        rates = values
    elif isinstance(values, Choice):
        rates = values.values
    elif isinstance(values, Constant):
        rates = (values.value,)
    for rate in rates:
        in_window = rate * horizon.window / SECOND
        if abs(in_window - round(in_window)) > 1e-9:
            yield Problem(
                f"{path}.maxRate",
                f"{rate:g}/s is {in_window:g} requests in a window of {_text(horizon.window)}",
                "allowed: a whole number of requests in a window",
            )
    longest = function.time + 2 * scenario.overlay.delay
    if longest > horizon.drain:
        yield Problem(
            "horizon.drain",
            f"{_text(horizon.drain)} is shorter than a request for {name} takes at a neighbour, "
            f"{_text(longest)}",
            f"allowed: {_text(longest)} or more",
        )


def warnings(scenario: ServingScenario) -> Iterator[str]:
    """Return what is allowed, but perhaps not meant."""
    parts = _parts(neighbours(scenario.overlay.neighbours, scenario.nodes.count))
    if len(parts) > 1:
        shown_parts = "; ".join(_nodes(part) for part in parts[:4])
        more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
        yield (
            f"overlay.neighbours: the overlay is in {len(parts)} parts that never hear of each "
            f"other: {shown_parts}{more}"
        )
    if scenario.overlay.loss == 1.0:
        yield "overlay.loss: every message is lost, so no node ever hears of another"
    first = scenario.routing.offset + scenario.routing.period
    if first > scenario.horizon.length:
        yield (
            f"routing: the first period ends at {_text(first)}, after the episode of "
            f"{_text(scenario.horizon.length)}"
        )


def _parts(known: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    """Return the parts of an overlay between which there is no neighbour, in order."""
    beside: list[set[int]] = [set(row) for row in known]
    for node, row in enumerate(known):
        for peer in row:
            beside[peer].add(node)
    parts, seen = [], set[int]()
    for node in range(len(known)):
        if node in seen:
            continue
        part, waiting = [], [node]
        seen.add(node)
        while waiting:
            here = waiting.pop()
            part.append(here)
            waiting.extend(beside[here] - seen)
            seen |= beside[here]
        parts.append(sorted(part))
    return parts


def _nodes(part: list[int]) -> str:
    listed = ", ".join(map(str, part[:6]))
    return f"nodes {listed}{', ...' if len(part) > 6 else ''}"


def _text(duration: Micros) -> str:
    return str(DURATION.write(duration))
