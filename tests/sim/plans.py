"""Small random plans for the tests of the simulators."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.model.workload import Workload
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds, identity


def random_plan(
    seed: int,
    *,
    size: int = 20,
    slots: int = 100,
    overload: Overload | None = None,
    drop_hopeless: bool = True,
    deadline: Distribution | None = None,
    slot: Micros = SECOND // 2,
    failures: float = 1.0,
    delay: tuple[Micros, Micros] = (0, SECOND),
    queue_limit: int | None = None,
    stagger: Micros = 0,
) -> Plan:
    """A network drawn as ``paper-simulation`` draws its own; ``failures`` scales the rates.

    ``delay`` is the time of control messages, and how long answers are waited for; ``stagger`` the
    time between the turns of two nodes.
    """
    draw = random.Random(seed)
    cores = tuple(draw.choice([4, 8, 16, 20, 24, 28, 32]) for _ in range(size))
    topology = Topology(
        cores=cores,
        capacity_hz=tuple(count * 3_000_000_000 for count in cores),
        arrival_probability=tuple(draw.random() for _ in range(size)),
        execution_failure_rate=tuple(failures * draw.uniform(0, 0.1) for _ in range(size)),
        link_rate=tuple(
            tuple(0 if i == j else draw.randint(10**7, 4 * 10**7) for j in range(size))
            for i in range(size)
        ),
        link_failure_rate=tuple(
            tuple(0.0 if i == j else failures * draw.uniform(0, 0.03) for j in range(size))
            for i in range(size)
        ),
    )
    workload = Workload(
        slots=slots,
        slot=slot,
        size_bytes=Uniform(1e6, 8e6),
        complexity=Uniform(800, 2400),
        deadline=deadline or Constant(4 * SECOND),
    )
    rules = Rules(
        overload=overload or Overload(OverloadMeasure.QUEUE_LENGTH, 2),
        drop_hopeless=drop_hopeless,
        execution_queue_limit=queue_limit,
        control_delay=delay[0],
        probe_timeout=delay[1],
        stagger=stagger,
        reject=True,
    )
    seeds = Seeds(topology=seed, workload=seed + 1, faults=seed + 2, schedulers=seed + 3)
    return Plan(
        name=f"random-{seed}",
        scenario_hash=identity(topology, workload, rules, seeds),
        topology=topology,
        workload=workload,
        rules=rules,
        seeds=seeds,
        scheduler=SchedulerSpec("ratc"),
        episodes=1,
    )


OVERLOADS = (
    Overload(OverloadMeasure.QUEUE_LENGTH, 2),
    Overload(OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 1),
    Overload(OverloadMeasure.BACKLOG, SECOND),
)
DELAYS = (
    (0, SECOND),
    (1, SECOND),
    (MILLISECOND, 250 * MILLISECOND),
    (25 * MILLISECOND, 250 * MILLISECOND),  # answers of a short slot as the next one begins
    (300 * MILLISECOND, 10 * SECOND),  # decisions of many slots side by side
    (500 * MILLISECOND, SECOND),  # as long as a slot
    (200 * MILLISECOND, 250 * MILLISECOND),  # answers that would come too late
    (MILLISECOND, 0),
)
"""Times of control messages, and how long answers are waited for."""
STAGGERS = (0, 0, 1, 2001, 7 * MILLISECOND)
"""Times between the turns of two nodes of a slot; 0: all decide at once."""
DEADLINES = (
    Constant(4 * SECOND),
    Uniform(0.2 * SECOND, 3 * SECOND),
    Choice((0.5 * SECOND, 1.0 * SECOND, 2.5 * SECOND)),
)


def small_plans() -> st.SearchStrategy[Plan]:
    """Plans of few nodes and slots, with all rules that the engine plays."""
    return st.builds(
        random_plan,
        st.integers(0, 2**40),
        size=st.integers(1, 6),
        slots=st.integers(1, 12),
        overload=st.sampled_from(OVERLOADS),
        deadline=st.sampled_from(DEADLINES),
        drop_hopeless=st.booleans(),
        slot=st.sampled_from([50 * MILLISECOND, 500 * MILLISECOND]),
        failures=st.sampled_from([0.0, 1.0, 20.0, 1e5]),
        delay=st.sampled_from(DELAYS),
        queue_limit=st.sampled_from([None, None, 0, 1, 3]),
        stagger=st.sampled_from(STAGGERS),
    )
