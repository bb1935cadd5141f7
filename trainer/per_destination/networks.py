"""Random networks to train on, so that the policy learns no network by heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.model.distributions import Constant, Distribution, Uniform
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.model.workload import Workload
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds, identity

_LARGEST_SEED = 2**31


@dataclass(frozen=True, slots=True)
class Family:
    """Networks of one kind: ranges of what is drawn once per network.

    Rates are per second, sizes in bytes, complexity in cycles per bit. A ``..._max`` range is the
    range of the upper bound from which the nodes of one network draw; ``size_max`` likewise bounds
    the sizes of its tasks.
    """

    name: str
    slots: int
    slot: Micros
    cores: tuple[int, ...]
    clock_hz: int
    size_min: float
    size_max: tuple[float, float]
    complexity: tuple[float, float]
    deadline: tuple[Distribution, ...]
    arrival_min: float
    arrival_max: tuple[float, float]
    failure_max: tuple[float, float]
    link_rate: tuple[float, float]
    link_failure_max: float
    overloads: tuple[Overload, ...]

    def draw(self, rng: np.random.Generator, size: int) -> Plan:
        """Return a network of ``size`` nodes with its own seeds, without control delay."""
        cores = rng.choice(self.cores, size)
        off_diagonal = ~np.eye(size, dtype=bool)
        rates = rng.uniform(*self.link_rate, (size, size)).astype(int) * off_diagonal
        failing = rng.uniform(0.0, self.link_failure_max, (size, size)) * off_diagonal
        arrival_max = rng.uniform(*self.arrival_max)
        failure_max = rng.uniform(*self.failure_max)
        topology = Topology(
            cores=tuple(cores.tolist()),
            capacity_hz=tuple((cores * self.clock_hz).tolist()),
            arrival_probability=tuple(
                rng.uniform(self.arrival_min, max(self.arrival_min, arrival_max), size).tolist()
            ),
            execution_failure_rate=tuple(rng.uniform(0.0, failure_max, size).tolist()),
            link_rate=tuple(map(tuple, rates.tolist())),
            link_failure_rate=tuple(map(tuple, failing.tolist())),
        )
        workload = Workload(
            slots=self.slots,
            slot=self.slot,
            size_bytes=Uniform(self.size_min, rng.uniform(*self.size_max)),
            complexity=Uniform(*self.complexity),
            deadline=self.deadline[rng.integers(len(self.deadline))],
        )
        rules = Rules(overload=self.overloads[rng.integers(len(self.overloads))])
        seeds = Seeds(*rng.integers(_LARGEST_SEED, size=4).tolist())
        return Plan(
            name=self.name,
            scenario_hash=identity(topology, workload, rules, seeds),
            topology=topology,
            workload=workload,
            rules=rules,
            seeds=seeds,
            scheduler=SchedulerSpec("local"),
            episodes=1,
        )


def _by(measure: OverloadMeasure, *limits: int) -> tuple[Overload, ...]:
    return tuple(Overload(measure, limit) for limit in limits)


_CORES = (4, 8, 16, 20, 24, 28, 32)

PAPER = Family(
    name="paper-simulation",
    slots=100,
    slot=500 * MILLISECOND,
    cores=_CORES,
    clock_hz=3_000_000_000,
    size_min=1e6,
    size_max=(8e6, 8e6),
    complexity=(800.0, 2400.0),
    deadline=(Constant(4 * SECOND),),
    arrival_min=0.0,
    arrival_max=(1.0, 1.0),
    failure_max=(0.1, 0.1),
    link_rate=(1e7, 4e7),
    link_failure_max=0.03,
    overloads=_by(OverloadMeasure.QUEUE_LENGTH, 2) + _by(OverloadMeasure.BACKLOG, SECOND),
)
"""``paper-simulation`` with both readings of the overload bit."""

PAPER_SWEPT = Family(
    name="paper-simulation-swept",
    slots=100,
    slot=500 * MILLISECOND,
    cores=_CORES,
    clock_hz=3_000_000_000,
    size_min=1e6,
    size_max=(6e6, 10e6),
    complexity=(800.0, 2400.0),
    deadline=(Constant(4 * SECOND), Uniform(2 * SECOND, 6 * SECOND)),
    arrival_min=0.0,
    arrival_max=(0.5, 1.0),
    failure_max=(0.05, 0.3),
    link_rate=(1e7, 4e7),
    link_failure_max=0.03,
    overloads=_by(OverloadMeasure.QUEUE_LENGTH, 2, 3)
    + _by(OverloadMeasure.BACKLOG, SECOND // 2, SECOND, 3 * SECOND // 2),
)
"""The sweeps of the paper's Fig. 5, and deadlines and limits around its values."""

LIGHT = Family(
    name="paper-testbed",
    slots=50,
    slot=100 * MILLISECOND,
    cores=_CORES,
    clock_hz=3_000_000_000,
    size_min=5e5,
    size_max=(1e6, 4e6),
    complexity=(400.0, 800.0),
    deadline=(Constant(SECOND),),
    arrival_min=0.0,
    arrival_max=(0.8, 1.0),
    failure_max=(0.4, 0.4),
    link_rate=(1e7, 4e7),
    link_failure_max=0.03,
    overloads=_by(OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 3, 3)
    + _by(OverloadMeasure.QUEUE_LENGTH, 2),
)
"""``paper-testbed`` with the sizes of the paper's Fig. 8 and larger ones, up to overload."""

SMALL = Family(
    name="quickstart",
    slots=80,
    slot=100 * MILLISECOND,
    cores=(2, 4, 8),
    clock_hz=1_000_000_000,
    size_min=5e4,
    size_max=(1.5e5, 1.5e5),
    complexity=(400.0, 1200.0),
    deadline=(Constant(600 * MILLISECOND),),
    arrival_min=0.3,
    arrival_max=(0.6, 1.0),
    failure_max=(0.4, 0.8),
    link_rate=(2e6, 8e6),
    link_failure_max=0.05,
    overloads=_by(OverloadMeasure.QUEUE_LENGTH, 2),
)
"""``quickstart``: few slow nodes, links that matter, many failures."""
