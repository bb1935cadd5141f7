"""Task arrivals: one Bernoulli trial per node and slot (model section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from testbed.model.distributions import Distribution
from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.task import Task
from testbed.model.units import Micros


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals: ``slots`` slots of ``slot`` microseconds, and the distribution of tasks.

    ``size_bytes`` in bytes, ``complexity`` in cycles per bit, ``deadline`` in microseconds.
    """

    slots: int
    slot: Micros
    size_bytes: Distribution
    complexity: Distribution
    deadline: Distribution


ArrivalFactor: TypeAlias = Callable[[int, int], float]
"""Factor of the arrival probability in a slot at a node."""


def tasks_of_episode(
    workload: Workload,
    arrival_probability: tuple[float, ...],
    seed: int,
    episode: int,
    factor: ArrivalFactor | None = None,
) -> list[list[Task]]:
    """All tasks of one episode: a list per slot, in order of the node they arrive at.

    Depends on nothing but its arguments: no scheduler can change a single arrival. The draw of a
    slot does not depend on ``factor``, so a task that comes with one and without is the same task.
    """
    return list(tasks_by_slot(workload, arrival_probability, seed, episode, factor))


def tasks_by_slot(
    workload: Workload,
    arrival_probability: tuple[float, ...],
    seed: int,
    episode: int,
    factor: ArrivalFactor | None = None,
    first: int = 0,
) -> Iterator[list[Task]]:
    """Draw the same slot by slot, from slot ``first`` on, as they are asked for."""
    nodes = len(arrival_probability)
    # The keys of all draws of a node begin alike; each is folded up to the slot once.
    arrivals, sizes, complexities, deadlines = (
        [extend(key(seed, purpose, episode), node) for node in range(nodes)]
        for purpose in (Purpose.ARRIVAL, Purpose.SIZE, Purpose.COMPLEXITY, Purpose.DEADLINE)
    )
    for slot in range(first, workload.slots):
        tasks = []
        for node, probability in enumerate(arrival_probability):
            if factor is not None:
                probability *= factor(slot, node)
            if to_unit(extend(arrivals[node], slot)) >= probability:
                continue
            size_bytes = round(workload.size_bytes.at(to_unit(extend(sizes[node], slot))))
            per_bit = workload.complexity.at(to_unit(extend(complexities[node], slot)))
            tasks.append(
                Task(
                    id=(episode * workload.slots + slot) * nodes + node,
                    episode=episode,
                    slot=slot,
                    source=node,
                    size_bytes=size_bytes,
                    cycles=round(8 * size_bytes * per_bit),
                    deadline=round(workload.deadline.at(to_unit(extend(deadlines[node], slot)))),
                )
            )
        yield tasks
