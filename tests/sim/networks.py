"""Plans for tests: tiny ones with round numbers, and the paper's parameter sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from testbed.model.distributions import Constant, Distribution
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import SECOND, Micros
from testbed.model.workload import Workload
from testbed.scenario.load import load
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds, identity
from testbed.scenario.resolve import plan

MEGA = 1_000_000
GIGA = 1_000_000_000


def tiny_plan(
    arrival: Sequence[float],
    *,
    capacity_hz: Sequence[int] | None = None,
    slots: int = 1,
    slot: Micros = SECOND,
    deadline: Micros = 4 * SECOND,
    alpha: float = 0.0,
    beta: float = 0.0,
    rules: Rules | None = None,
    scheduler: str = "local",
) -> Plan:
    """Tasks of 1 MB and 8 G cycles; nodes of 8 GHz and links of 10 MB/s.

    So, where not said otherwise, execution takes 1 s and transmission 100 ms.
    """
    size = len(arrival)
    topology = Topology(
        cores=(4,) * size,
        capacity_hz=tuple(capacity_hz or (8 * GIGA,) * size),
        arrival_probability=tuple(arrival),
        execution_failure_rate=(alpha,) * size,
        link_rate=tuple(
            tuple(0 if i == j else 10 * MEGA for j in range(size)) for i in range(size)
        ),
        link_failure_rate=tuple(
            tuple(0.0 if i == j else beta for j in range(size)) for i in range(size)
        ),
    )
    workload = Workload(slots, slot, Constant(MEGA), Constant(1000), Constant(deadline))
    rules = rules or Rules(Overload(OverloadMeasure.QUEUE_LENGTH, 2))
    seeds = Seeds(1, 1, 1, 1)
    return Plan(
        name="tiny",
        scenario_hash=identity(topology, workload, rules, seeds),
        topology=topology,
        workload=workload,
        rules=rules,
        seeds=seeds,
        scheduler=SchedulerSpec(scheduler),
        episodes=1,
    )


def paper_simulation(size: int = 20, *, slots: int = 100, seed: int = 1) -> Plan:
    """The parameters of section V-A, of another size if need be."""
    return plan(
        load("paper-simulation", [f"nodes.count={size}", f"slots.count={slots}", f"seeds={seed}"])
    )


def paper_testbed(seed: int = 1) -> Plan:
    """The parameters of section VI-C, with a control delay."""
    return plan(load("paper-testbed", [f"seeds={seed}"]))


def replaced(
    plan: Plan,
    *,
    execution_failure_rate: tuple[float, ...] | None = None,
    link_failure_rate: float | None = None,
    deadline: Distribution | None = None,
    rules: Rules | None = None,
    episodes: int | None = None,
) -> Plan:
    """``plan`` with what is given in place of what it has."""
    topology = plan.topology
    if execution_failure_rate is not None:
        topology = replace(topology, execution_failure_rate=execution_failure_rate)
    if link_failure_rate is not None:
        rates = tuple(
            tuple(0.0 if i == j else link_failure_rate for j in range(topology.size))
            for i in range(topology.size)
        )
        topology = replace(topology, link_failure_rate=rates)
    workload = plan.workload
    if deadline is not None:
        workload = replace(workload, deadline=deadline)
    rules = rules or plan.rules
    return replace(
        plan,
        topology=topology,
        workload=workload,
        rules=rules,
        scenario_hash=identity(topology, workload, rules, plan.seeds),
        episodes=plan.episodes if episodes is None else episodes,
    )
