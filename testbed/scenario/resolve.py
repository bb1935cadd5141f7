"""From what a scenario file says to the ``Plan`` of a run: everything random about it is drawn.

Every value is drawn under the key of its purpose and its node (or its two nodes), so it does not
change when the number of nodes or any other value changes.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from testbed.errors import Problem, UsageError
from testbed.model.distributions import Constant, Uniform
from testbed.model.draws import Purpose, uniform
from testbed.model.faults import KINDS, FaultSpec
from testbed.model.topology import (
    LinkDelays,
    Overload,
    OverloadMeasure,
    Rules,
    Topology,
    usual_stagger,
)
from testbed.model.units import Micros
from testbed.model.workload import Workload
from testbed.scenario.plan import (
    TASKS,
    ApplicationSpec,
    FidelityLimits,
    Plan,
    SchedulerSpec,
    Seeds,
    identity,
)
from testbed.scenario.schema import (
    ALL,
    ON,
    FaultPart,
    Links,
    Named,
    OverloadRule,
    PerLink,
    PerNode,
    PlacesOrName,
    Scenario,
    ScenarioFile,
)


def plan(
    scenario: ScenarioFile,
    *,
    scheduler: SchedulerSpec | None = None,
    episodes: int | None = None,
    time_scale: float | None = None,
    storage_url: str | None = None,
    artifacts_url: str | None = None,
) -> Plan:
    """Return the plan of a run of ``scenario``; arguments go before what the file says.

    For what works with tasks alone; ``testbed.scenario.load.draw`` takes scenarios of any model.

    Raises: UsageError: the scenario is of another model.
    """
    if not isinstance(scenario, Scenario):
        raise UsageError(
            f"scenario {scenario.metadata.name} cannot be used here",
            [Problem("model", repr(scenario.model), f"needed: a scenario with model: {TASKS}")],
        )
    topology = draw_topology(scenario)
    slowest, link_delays = control_delays(scenario)
    workload = Workload(
        slots=scenario.slots.count,
        slot=scenario.slots.length,
        size_bytes=scenario.tasks.size,
        complexity=scenario.tasks.complexity,
        deadline=scenario.tasks.deadline,
    )
    rules = Rules(
        overload=_overload(scenario.rules.overload),
        drop_hopeless=scenario.rules.drop_hopeless,
        execution_queue_limit=scenario.rules.execution_queue_limit,
        control_delay=slowest,
        probe_timeout=scenario.rules.probe_timeout,
        stagger=stagger(scenario, slowest),
        reject=scenario.rules.reject,
        link_delays=link_delays,
    )
    seeds = Seeds(**scenario.seeds.model_dump())
    limits = scenario.fidelity
    faults = tuple(
        fault_spec(fault, topology.size, scenario.slots.length) for fault in scenario.faults
    )
    return Plan(
        name=scenario.metadata.name,
        scenario_hash=identity(topology, workload, rules, seeds, faults),
        topology=topology,
        workload=workload,
        rules=rules,
        seeds=seeds,
        scheduler=scheduler or SchedulerSpec(**named(scenario.scheduler)),
        objective=scenario.objective,
        episodes=scenario.episodes if episodes is None else episodes,
        time_scale=scenario.time_scale if time_scale is None else time_scale,
        payload=scenario.payload.mode,
        chunk_bytes=scenario.payload.chunk,
        application=ApplicationSpec(**named(scenario.application)),
        log_idle_slots=scenario.log.idle_slots,
        storage_url=storage_url or scenario.storage,
        artifacts_url=artifacts_url or scenario.artifacts,
        limits=FidelityLimits(
            transmission_error=limits.transmission.error,
            transmission_error_share=limits.transmission.share,
            execution_error=limits.execution.error,
            execution_error_share=limits.execution.share,
            generator_lateness=limits.generator_lateness,
            lost_tasks=limits.lost_tasks,
        ),
        faults=faults,
    )


def stagger(scenario: Scenario, control_delay: Micros) -> Micros:
    """Return the time between the turns of two nodes in a slot; 0 if all decide at once.

    ``control_delay`` is that of the slowest link.
    """
    given = scenario.rules.stagger
    return usual_stagger(control_delay) if given == ON else given


def control_delays(scenario: Scenario) -> tuple[Micros, LinkDelays | None]:
    """Return the longest time of a control message over a link, and the time over each link.

    None instead of the times [N, N] where all links have the same.
    """
    links, count = scenario.links, scenario.nodes.count
    overridden = any(entry.control_delay is not None for entry in links.overrides)
    if isinstance(links.control_delay, Constant) and not overridden:
        return round(links.control_delay.value), None
    drawn = _per_link(links, "control_delay", count, scenario.seeds.topology)
    delays = tuple(tuple(map(round, row)) for row in drawn)
    between = {delays[i][j] for i in range(count) for j in range(count) if i != j}
    return max(between, default=0), delays if len(between) > 1 else None


def fault_spec(fault: FaultPart, size: int, slot: int) -> FaultSpec:
    """Return a fault with nodes by number and its slot as an instant; ``slot`` is its length."""
    kind = KINDS[fault.kind]
    at = fault.at if fault.slot is None else Constant(float(fault.slot * slot))
    return FaultSpec(
        kind=kind.name,
        duration=fault.duration,
        at=at,
        every=fault.every,
        per_slot=fault.per_slot,
        nodes=_places(fault.nodes, size),
        sources=_places(fault.sources, size),
        destinations=_places(fault.destinations, size),
        both_ways=fault.both_ways,
        together=fault.together,
        factor=1.0 if fault.factor is None else fault.factor,
        failure_rate=fault.failure_rate or 0.0,
        mode=fault.mode or next(iter(kind.modes), ""),
    )


def _places(places: PlacesOrName | None, size: int) -> tuple[int, ...] | Literal["any"]:
    if isinstance(places, str):
        return tuple(range(size)) if places == ALL else "any"
    return places or ()


def draw_topology(scenario: Scenario) -> Topology:
    """Return the nodes and links of ``scenario``, drawn with its topology seed."""
    seed = scenario.seeds.topology
    nodes = scenario.nodes
    count = nodes.count
    if nodes.cores is None:
        cores = (1,) * count
    else:
        cores = tuple(
            _whole(nodes.cores, i, uniform(seed, Purpose.CAPACITY, i, 0)) for i in range(count)
        )
    speed = nodes.capacity if nodes.capacity is not None else nodes.clock
    assert speed is not None
    speeds = per_node(speed, count, seed, Purpose.CAPACITY, 1)
    by_core = nodes.capacity is None
    return Topology(
        cores=cores,
        capacity_hz=tuple(
            round(each * own if by_core else each) for each, own in zip(speeds, cores, strict=True)
        ),
        arrival_probability=per_node(
            nodes.arrival_probability, count, seed, Purpose.ARRIVAL_PROBABILITY
        ),
        execution_failure_rate=per_node(
            nodes.failure_rate, count, seed, Purpose.EXECUTION_FAILURE_RATE
        ),
        link_rate=tuple(
            tuple(map(round, row)) for row in _per_link(scenario.links, "rate", count, seed)
        ),
        link_failure_rate=_per_link(scenario.links, "failure_rate", count, seed),
    )


def per_node(
    values: PerNode, count: int, seed: int, purpose: Purpose, *part: int
) -> tuple[float, ...]:
    """Return a value for each of ``count`` nodes, drawn under the key of its purpose and node."""
    if isinstance(values, tuple):
        return tuple(map(float, values))
    return tuple(values.at(uniform(seed, purpose, node, *part)) for node in range(count))


def _whole(values: PerNode, node: int, u: float) -> int:
    if isinstance(values, tuple):
        return int(values[node])
    if isinstance(values, Uniform):
        # Whole numbers from low to high, each equally likely.
        return int(values.low) + int(u * (int(values.high) - int(values.low) + 1))
    return int(values.at(u))


_PER_LINK: Final = {
    "rate": Purpose.LINK_RATE,
    "failure_rate": Purpose.LINK_FAILURE_RATE,
    "control_delay": Purpose.LINK_CONTROL_DELAY,
}


def _per_link(links: Links, name: str, count: int, seed: int) -> tuple[tuple[float, ...], ...]:
    purpose = _PER_LINK[name]
    values: PerLink = getattr(links, name)
    matrix = [
        [0.0 if i == j else _link(values, i, j, seed, purpose) for j in range(count)]
        for i in range(count)
    ]
    for entry in links.overrides:
        value = getattr(entry, name)
        if value is not None:
            matrix[entry.source][entry.destination] = float(value)
    return tuple(map(tuple, matrix))


def _link(values: PerLink, i: int, j: int, seed: int, purpose: Purpose) -> float:
    if isinstance(values, tuple):
        cell = values[i][j]
        assert cell is not None
        return float(cell)
    return values.at(uniform(seed, purpose, i, j))


def _overload(rule: OverloadRule) -> Overload:
    if rule.queue_length is not None:
        return Overload(OverloadMeasure.QUEUE_LENGTH, rule.queue_length)
    if rule.queue_length_per_4_cores is not None:
        return Overload(OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, rule.queue_length_per_4_cores)
    assert rule.backlog is not None
    return Overload(OverloadMeasure.BACKLOG, rule.backlog)


def named(entry: Named) -> dict[str, Any]:
    """Return the fields of something registered under a name."""
    return {"name": entry.name, "options": dict(entry.options)}
