"""``priced``: the best chance of success, less the price of the work where it is done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from testbed.errors import Problem, UsageError
from testbed.model.decision import Ask, Decision, Observation, Refuse, SchedulerContext
from testbed.model.scarcity import mean_cycles
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.model.work_price import LEARNED, WorkPrice, work_price
from testbed.schedulers.estimates import time_left
from testbed.schedulers.probing import Prober, task_of


class _Place(NamedTuple):
    """A destination: the time that it needs for other work and for the task, and until it is done.

    ``exposure`` as in ``estimates.Candidate``.
    """

    destination: int
    queue: Micros
    execution: Micros
    completion: Micros
    exposure: float


class Priced(Prober):
    """Ask everyone; take the best chance of success, less the price of the work there."""

    name: str = "priced"
    OPTIONS: ClassVar[Mapping[str, str]] = {
        "queue": "weight of a queue in a full network, in the price of work",
        "crowd": "weight of a queue in a crowded network",
        "execution": "weight of the task's own time in a crowded network",
    }

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        self._price = _price_of(context.options)
        self._mean_cycles = mean_cycles(context.workload)

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        """Of equals the own node, then the first that answered; the silent are left out.

        Where no node is in time, or none is worth the price, refuse the task if the scenario
        allows that; else take the node that would be done first, or the best in spite of the price.
        """
        task = task_of(observation)
        if observation.round == 0 and self._peers:
            return Ask(self._peers)
        places = list(self._places(observation, task))
        left = self._time_left(observation, task)
        fill = self._fill(places) / task.deadline
        best, most = -1, -math.inf
        for place in places:
            if place.completion <= left:
                queue, execution = place.queue / task.deadline, place.execution / task.deadline
                price = work_price(queue, execution, fill, self._price)
                value = math.exp(-place.exposure) - price * (task.cycles / self._mean_cycles)
                if value > most:
                    best, most = place.destination, value
        if self._context.rules.reject and most <= 0.0:
            return Refuse()
        if best < 0:
            best = min(places, key=lambda place: place.completion).destination
        return Decision(best)

    def _time_left(self, observation: Observation, task: Task) -> Micros:
        rules = self._context.rules
        left = time_left(observation, task, rules.turn(self._node))
        # Where nobody has answered, it was waited for that all the same.
        return left if observation.answers or not observation.round else left - rules.probe_timeout

    def _places(self, observation: Observation, task: Task) -> Iterator[_Place]:
        """Yield the own node, then the peers that answered, in order of arrival."""
        yield self._place(
            observation, task, self._node, observation.backlog + observation.inbound_work
        )
        for answer in observation.answers:
            if (state := answer.state) is not None:
                queue = state.backlog + state.inbound_work
                yield self._place(observation, task, answer.peer, queue)

    def _place(
        self, observation: Observation, task: Task, destination: int, queue: Micros
    ) -> _Place:
        """Return a destination; the queue gets shorter while the task is on its way there."""
        alone = self._estimator.candidate(observation, task, destination, 0)
        execution = self._context.topology.execution_time(task, destination)
        completion = max(queue + execution, alone.completion)
        return _Place(destination, queue, execution, completion, alone.exposure)

    def _fill(self, places: list[_Place]) -> float:
        """Return the mean queue of the nodes that are known, weighted by capacity."""
        work = capacity = 0.0
        for place in places:
            hertz = self._context.topology.capacity_hz[place.destination]
            work += float(place.queue) * hertz
            capacity += hertz
        return work / capacity


def _price_of(options: Mapping[str, object]) -> WorkPrice:
    """Return the price by the options of the scheduler; what is not given is as learned."""
    given = {name: options.get(name, default) for name, default in LEARNED._asdict().items()}
    numbers = {
        name: float(value)
        for name, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    problems = [
        Problem(name, repr(value), "a number")
        for name, value in given.items()
        if name not in numbers
    ]
    if problems:
        raise UsageError("scheduler 'priced' has invalid options", problems)
    return WorkPrice(**numbers)
