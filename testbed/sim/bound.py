"""The bound: how many tasks could succeed at all (model section 5)."""

from __future__ import annotations

from testbed.model.task import Task
from testbed.scenario.plan import Plan
from testbed.sim.oracle import Fates


def attainable(plan: Plan, episode: int) -> dict[int, bool]:
    """For each task of the episode, by id, whether it would succeed with the network to itself.

    That is, whether there is a destination at which it would meet no failure and be in time if
    nothing else were going on.
    """
    fates = Fates(plan)
    slots = plan.tasks(episode)
    return {task.id: _attainable(plan, fates, task) for tasks in slots for task in tasks}


def bound(plan: Plan, episode: int) -> float:
    """Share of the tasks of an episode that would succeed if each had the network to itself.

    No scheduler can be above it: fates are keyed by task and unit, and waiting only adds to the
    time. Of faults only the arrivals are reckoned with, so one that makes a unit faster may lift
    schedulers above it. NaN in an episode without a task.
    """
    tasks = attainable(plan, episode)
    return sum(tasks.values()) / len(tasks) if tasks else float("nan")


def _attainable(plan: Plan, fates: Fates, task: Task) -> bool:
    topology = plan.topology
    return any(
        topology.transmission_time(task, task.source, node) + topology.execution_time(task, node)
        <= task.deadline
        and fates.survives(task, node)
        for node in range(topology.size)
    )
