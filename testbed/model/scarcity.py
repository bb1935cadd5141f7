"""The offered load of a network: work that arrives, relative to its capacity."""

from __future__ import annotations

import dataclasses

from testbed.model.distributions import Choice, Constant, Distribution, Uniform, mean
from testbed.model.topology import Topology
from testbed.model.units import SECOND
from testbed.model.workload import Workload


def offered_load(topology: Topology, workload: Workload) -> float:
    """rho: mean work that arrives, over all capacity; above 1 some tasks must fail."""
    per_second = sum(topology.arrival_probability) * SECOND / workload.slot
    return mean_cycles(workload) * per_second / sum(topology.capacity_hz)


def mean_cycles(workload: Workload) -> float:
    """Return the mean work of a task."""
    return 8.0 * mean(workload.size_bytes) * mean(workload.complexity)


def workload_at(load: float, topology: Topology, workload: Workload) -> Workload:
    """Return ``workload`` with tasks as complex as an offered load of ``load`` needs."""
    factor = load / offered_load(topology, workload)
    return dataclasses.replace(workload, complexity=_scaled(workload.complexity, factor))


def _scaled(values: Distribution, factor: float) -> Distribution:
    match values:
        case Constant(value):
            return Constant(value * factor)
        case Uniform(low, high):
            return Uniform(low * factor, high * factor)
        case Choice(each):
            return Choice(tuple(value * factor for value in each))
