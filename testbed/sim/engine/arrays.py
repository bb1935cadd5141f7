"""From plans to the arrays of the compiled engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from testbed.errors import Problem, UsageError
from testbed.model.distributions import Choice, Constant, Distribution, Uniform, mean
from testbed.model.encoders import Scales
from testbed.model.topology import OverloadMeasure
from testbed.model.units import SECOND, duration
from testbed.model.workload import Workload
from testbed.scenario.plan import Plan
from testbed.sim.engine.compiled import (
    BY_BACKLOG,
    BY_QUEUE_LENGTH,
    EPISODE,
    EVENT,
    LINK,
    NODE,
    TASK,
    Batch,
)

_LARGEST: Final = 2**62 // SECOND
"""Amounts above this would overflow 64 bits when they are divided by a rate."""
_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF


def problems_of(plan: Plan) -> list[Problem]:
    """Return the reasons why the compiled engine cannot run ``plan``; empty if it can."""
    problems = []
    rules, workload = plan.rules, plan.workload
    if rules.control_delay != 0:
        problems.append(Problem("rules.control_delay", f"{rules.control_delay} us", "0"))
    if plan.faults or plan.by_hand:
        count = len(plan.faults) + sum(map(len, plan.by_hand.values()))
        problems.append(Problem("faults", _faults(count), "none"))
    if rules.execution_queue_limit is not None:
        problems.append(
            Problem("rules.execution_queue_limit", str(rules.execution_queue_limit), "no limit")
        )
    largest = 8 * workload.size_bytes.maximum * workload.complexity.maximum
    if largest > _LARGEST:
        problems.append(Problem("workload", f"tasks of {largest:.3g} cycles", f"<= {_LARGEST}"))
    if _minimum(workload.deadline) < 1:
        problems.append(Problem("workload.deadline", "0 us", "at least 1 us"))
    # Work that takes no time would end between two decisions of the same instant.
    smallest = int(_minimum(workload.size_bytes))
    fastest = max((max(row) for row in plan.topology.link_rate), default=0)
    if plan.topology.size > 1 and duration(smallest, fastest) < 1:
        problems.append(Problem("workload.size_bytes", "transmission times of 0 us", "1 us"))
    cycles = int(8 * _minimum(workload.size_bytes) * _minimum(workload.complexity))
    if duration(cycles, max(plan.topology.capacity_hz)) < 1:
        problems.append(Problem("workload.complexity", "execution times of 0 us", "1 us"))
    return problems


def _faults(count: int) -> str:
    return "1 fault" if count == 1 else f"{count} faults"


def without_control_delay(plan: Plan) -> Plan:
    """``plan`` with control messages that take no time; nothing else changes.

    The hash stays that of the given plan, because arrivals, tasks and fates are the same.
    """
    rules = dataclasses.replace(plan.rules, control_delay=0)
    return dataclasses.replace(plan, rules=rules)


def check(plan: Plan) -> None:
    """Refuse a plan the compiled engine does not cover.

    Raises:
        UsageError: with every reason; ``testbed.sim.simulator`` runs all plans.
    """
    problems = problems_of(plan)
    if problems:
        raise UsageError(f"the compiled engine cannot run scenario '{plan.name}'", problems)


def pack(plans: Sequence[Plan]) -> Batch:
    """One row per plan; the same plan may stand in several rows.

    Raises:
        UsageError: a plan that is not covered, or plans that differ in nodes or slots.
    """
    for distinct in {id(plan): plan for plan in plans}.values():
        check(distinct)
    sizes = {(plan.topology.size, plan.workload.slots) for plan in plans}
    if len(sizes) != 1:
        raise UsageError(
            "episodes that run side by side must have as many nodes and slots as one another; "
            f"these have {sorted(sizes)}"
        )
    ((size, slots),) = sizes
    rows, task_count = len(plans), slots * size
    widest = max(len(d.values) if isinstance(d, Choice) else 1 for p in plans for d in _drawn(p))
    batch = Batch(
        episodes=np.zeros(rows, EPISODE),
        nodes=np.zeros((rows, size), NODE),
        links=np.zeros((rows, size, size), LINK),
        tasks=np.zeros((rows, task_count), TASK),
        events=np.zeros((rows, 4 * task_count + 1), EVENT),
        choices=np.zeros((rows, 3, widest)),
        rewards=np.zeros((rows, slots), np.float32),
    )
    first: dict[int, int] = {}
    for row, plan in enumerate(plans):
        same = first.setdefault(id(plan), row)
        if same == row:
            _fill(batch, row, plan)
            continue
        for array in (batch.episodes, batch.nodes, batch.links, batch.choices):
            array[row] = array[same]
    return batch


def _fill(batch: Batch, row: int, plan: Plan) -> None:
    topology, workload, rules = plan.topology, plan.workload, plan.rules
    episode, nodes, links = batch.episodes[row], batch.nodes[row], batch.links[row]
    by_backlog = rules.overload.measure is OverloadMeasure.BACKLOG
    episode["nodes"] = topology.size
    episode["slots"] = workload.slots
    episode["slot_length"] = workload.slot
    episode["measure"] = BY_BACKLOG if by_backlog else BY_QUEUE_LENGTH
    episode["drop_hopeless"] = rules.drop_hopeless
    episode["workload_seed"] = plan.seeds.workload & _WORD
    episode["faults_seed"] = plan.seeds.faults & _WORD
    episode["schedulers_seed"] = plan.seeds.schedulers & _WORD
    for which, distribution in enumerate(_drawn(plan)):
        match distribution:
            case Constant(value):
                episode["low"][which] = value
            case Uniform(low, high):
                episode["low"][which] = low
                episode["span"][which] = high - low
            case Choice(values):
                episode["distribution"][which] = len(values)
                batch.choices[row, which, : len(values)] = values
    nodes["cores"] = topology.cores
    nodes["capacity"] = topology.capacity_hz
    nodes["limit"] = [rules.overload.limit_for(cores) for cores in topology.cores]
    nodes["arrival"] = topology.arrival_probability
    nodes["failure"] = topology.execution_failure_rate
    links["rate"] = topology.link_rate
    links["failure"] = topology.link_failure_rate
    scales = Scales.of(plan)
    episode["max_size"] = scales.size_bytes
    episode["max_cycles"] = scales.cycles
    episode["max_deadline"] = scales.deadline
    episode["max_capacity"] = scales.capacity_hz
    episode["max_rate"] = scales.link_rate
    episode["max_arrival"] = scales.arrival_probability
    episode["max_failure"] = scales.execution_failure_rate
    episode["queue_scale"] = scales.queue_length
    episode["total_capacity"] = sum(topology.capacity_hz)
    episode["mean_cycles"] = _mean_cycles(workload)


def offered_load(plan: Plan) -> float:
    """rho: mean work that arrives, over all capacity; above 1 some tasks must fail."""
    workload, topology = plan.workload, plan.topology
    per_second = sum(topology.arrival_probability) * SECOND / workload.slot
    return _mean_cycles(workload) * per_second / sum(topology.capacity_hz)


def _mean_cycles(workload: Workload) -> float:
    return 8.0 * mean(workload.size_bytes) * mean(workload.complexity)


def _drawn(plan: Plan) -> tuple[Distribution, Distribution, Distribution]:
    return plan.workload.size_bytes, plan.workload.complexity, plan.workload.deadline


def _minimum(distribution: Distribution) -> float:
    match distribution:
        case Constant(value):
            return value
        case Uniform(low, _):
            return low
        case Choice(values):
            return min(values)
