"""The network of a testbed as its plan has it: what does not change while one watches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from testbed.model.distributions import mean
from testbed.model.topology import OverloadMeasure, Topology
from testbed.model.units import SECOND, Micros
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan, PlanHead, ServingPlan

MANY: Final = 30
"""Nodes from which on the picture has to save room."""

INSIDE: Final = 0.84
"""Radius of the inner circle."""

Link: TypeAlias = tuple[int, int]
"""Source and destination."""


@dataclass(frozen=True, slots=True)
class Network:
    """Nodes and links of a testbed, and how full a node may be.

    ``capacities`` are the relative sizes of the nodes, ``descriptions`` what they are in words.
    ``links`` has a description of each link that there is, ``link_rates`` how many bytes it carries
    in an emulated second (none where bytes are not counted). ``limits`` is by node the load from
    which on it is overloaded; in ``limit_unit`` (``load``: in what ``load`` counts, ``backlog``: in
    emulated microseconds). ``full`` is the fill that is drawn as the fullest, in the unit of
    ``fill_unit``. ``load_name`` says what a load counts. A slot lasts ``slot`` emulated
    microseconds; an emulated second takes ``time_scale`` real ones.
    """

    scenario: str
    hook: str
    work: str
    capacities: tuple[float, ...]
    descriptions: tuple[str, ...]
    links: dict[Link, str]
    link_rates: dict[Link, float]
    limits: tuple[float, ...]
    limit_unit: str
    full: tuple[float, ...]
    fill_unit: str
    load_name: str
    slots: int
    slot: Micros
    slot_name: str
    episodes: int
    time_scale: float
    scheduler: str

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.capacities)

    def overloaded(self, node: int, load: int | None, backlog: Micros | None) -> bool:
        """Return whether a node with this load and backlog is overloaded."""
        measured = backlog if self.limit_unit == "backlog" else load
        return measured is not None and measured >= self.limits[node]

    def fill(self, node: int, load: int | None, backlog: Micros | None) -> float:
        """Return how full a node is, from 0 to 1 at ``full`` and above."""
        measured = backlog if self.fill_unit == "backlog" else load
        if measured is None or not self.full[node]:
            return 0.0
        return min(1.0, measured / self.full[node])


def network_of(plan: PlanHead) -> Network:
    """Return the network of a plan."""
    return _NETWORKS.of(plan)(plan)


def positions(size: int) -> list[tuple[float, float]]:
    """Return a place for each node on a circle, the first one at the top, within -1 and 1.

    In a network of many nodes every second one is further inside, so that they have room.
    """
    turns = [2 * math.pi * node / max(1, size) for node in range(size)]
    inside = INSIDE if size > MANY else 1.0
    radii = [inside if node % 2 else 1.0 for node in range(size)]
    return [
        (radius * math.sin(turn), -radius * math.cos(turn))
        for turn, radius in zip(turns, radii, strict=True)
    ]


def _of_tasks(plan: PlanHead) -> Network:
    assert isinstance(plan, Plan)
    topology, overload = plan.topology, plan.rules.overload
    by_backlog = overload.measure is OverloadMeasure.BACKLOG
    # A task that waits for so long ends too late.
    deadline = mean(plan.workload.deadline)
    return Network(
        scenario=plan.name,
        hook=plan.hook,
        work=plan.work,
        capacities=tuple(map(float, topology.capacity_hz)),
        descriptions=tuple(_node(topology, node) for node in range(topology.size)),
        links=_links(plan),
        link_rates={link: float(topology.link_rate[link[0]][link[1]]) for link in _pairs(topology)},
        limits=tuple(float(overload.limit_for(cores)) for cores in topology.cores),
        limit_unit="backlog" if by_backlog else "load",
        full=(deadline,) * topology.size,
        fill_unit="backlog",
        load_name="tasks in the queue",
        slots=plan.workload.slots,
        slot=plan.workload.slot,
        slot_name="slot",
        episodes=plan.episodes,
        time_scale=plan.time_scale,
        scheduler=plan.scheduler.name,
    )


def _node(topology: Topology, node: int) -> str:
    cores, capacity = topology.cores[node], topology.capacity_hz[node]
    return (
        f"{cores} cores, {capacity / 1e9:.3g} GHz together; "
        f"{topology.arrival_probability[node]:.2g} tasks per slot; "
        f"{topology.execution_failure_rate[node]:.2g} failures per second"
    )


def _links(plan: Plan) -> dict[Link, str]:
    topology, rules = plan.topology, plan.rules
    return {
        (source, destination): (
            f"{topology.link_rate[source][destination] / 1e6:.3g} MB/s; "
            f"{topology.link_failure_rate[source][destination]:.2g} failures per second"
        )
        + (
            f"; control messages take {rules.delay(source, destination) / 1000:.3g} ms"
            if rules.link_delays is not None
            else ""
        )
        for source, destination in _pairs(topology)
    }


def _pairs(topology: Topology) -> Iterator[Link]:
    for source, rates in enumerate(topology.link_rate):
        for destination, rate in enumerate(rates):
            if source != destination and rate > 0:
                yield source, destination


def _of_requests(plan: PlanHead) -> Network:
    assert isinstance(plan, ServingPlan)
    network = plan.network
    nodes = range(network.size)
    most = tuple(sum(function.max_rate[node] for function in network.functions) for node in nodes)
    functions = [
        ", ".join(f"{each.name} {each.max_rate[node]}" for each in network.functions)
        for node in nodes
    ]
    return Network(
        scenario=plan.name,
        hook=plan.hook,
        work=plan.work,
        capacities=tuple(map(float, most)),
        descriptions=tuple(f"meant to serve per window: {each}" for each in functions),
        links={(node, peer): "neighbours" for node in nodes for peer in network.neighbours[node]},
        link_rates={},
        limits=tuple(map(float, most)),
        limit_unit="load",
        full=tuple(map(float, most)),
        fill_unit="load",
        load_name="requests served in a window",
        slots=plan.windows,
        slot=network.window,
        slot_name="window",
        episodes=plan.episodes,
        time_scale=plan.time_scale,
        scheduler=plan.scheduler.name,
    )


_NETWORKS: Final[ByModel[Callable[[PlanHead], Network]]] = ByModel(
    "the live page", {TASKS: _of_tasks, SERVING: _of_requests}
)


def full_text(network: Network) -> str:
    """Return what the colour of a node says, in words."""
    if network.fill_unit == "backlog":
        most = max(network.full) / SECOND
        return f"backlog, in the strongest colour at {most:.3g} s, a mean deadline"
    return "requests served, in the strongest colour at what the node is meant to serve"
