"""The offered load of a network: work that arrives, relative to its capacity."""

from __future__ import annotations

from testbed.model.distributions import mean
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
