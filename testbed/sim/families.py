"""Families of work in the simulator: what plays the episodes of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from testbed.scenario.families import ByModel
from testbed.scenario.plan import TASKS, Plan
from testbed.sim.simulator import EpisodeResult, SchedulerChoice, Simulation

WORTHWHILE: Final = 30_000
"""Expected tasks from which on the compiled engine, which takes a second to load, is faster."""


class Simulated(Protocol):
    """A plan under one scheduler, episode by episode."""

    @property
    def scheduler_name(self) -> str:
        """Name of the scheduler in the task log."""
        ...

    def episode(self, episode: int) -> EpisodeResult:
        """Run one episode."""
        ...


def tasks_simulation(
    plan: Plan,
    scheduler: SchedulerChoice | None = None,
    options: Mapping[str, object] | None = None,
) -> Simulated:
    """Return what plays the episodes of ``plan``, with records.

    The compiled engine where it covers plan and scheduler and as many tasks are expected as are
    worth its loading, else the heap simulator: the results are equal.

    Raises:
        UsageError: unknown scheduler or option.
    """
    name, given = scheduler, options
    if scheduler is None:
        name = plan.scheduler.name
        given = plan.scheduler.options if options is None else options
    per_slot = sum(plan.topology.arrival_probability)
    if per_slot * plan.workload.slots * plan.episodes >= WORTHWHILE and not given:
        # Loading the compiler takes longer than most simulations.
        from testbed.sim.compiled import NAMES, CompiledSimulation
        from testbed.sim.engine.arrays import problems_of

        if isinstance(name, str) and name in NAMES and not problems_of(plan):
            return CompiledSimulation(plan, name)
    return Simulation(plan, scheduler, options)


SIMULATIONS: Final = ByModel("the simulator", {TASKS: tasks_simulation})
"""By the model of the plan; made with a plan, a scheduler (None: the plan's) and its options."""
