"""Runs a simulation into the task log: the same rows as a network run, driver ``simulator``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from testbed.errors import Problem, TestbedError, UsageError
from testbed.model.run_state import RunState
from testbed.scenario.plan import PlanHead, SchedulerSpec
from testbed.sim.families import SIMULATIONS
from testbed.sim.serving import RouterChoice
from testbed.sim.simulator import SchedulerChoice
from testbed.storage.tasklog import RunInfo, TaskLog


class About(NamedTuple):
    """What the log says of a run besides: the user's label, and the scenario file as written."""

    label: str = ""
    scenario: str | None = None


_NOTHING: Final = About()


def record_run(
    plan: PlanHead,
    task_log: TaskLog,
    *,
    scheduler: SchedulerSpec | SchedulerChoice | RouterChoice | None = None,
    episodes: int | None = None,
    first_episode: int = 0,
    run_id: str | None = None,
    about: About = _NOTHING,
    tasks_only: bool = False,
    on_episode: Callable[[Any], None] | None = None,
) -> str:
    """Simulate ``plan`` and log all of it; returns the id of the run.

    ``tasks_only``: log how each task ended, and neither its events nor the decisions.

    A name alone stands for the scheduler without options; what makes one gets the plan's options.
    What is None is taken from the plan or, the id, made up; the log holds the plan as used. An
    episode is in the log, complete, before ``on_episode`` is called with its result; where the
    compiled engine plays, some are stored at once. A run that is interrupted ends as ``stopped``,
    one that breaks as ``failed``, with the episodes that were stored. One whose scheduler failed,
    at tasks, which are lost, or at a routing, ends as ``degraded``; why stands in its certificate
    under ``code_failures``. The faults of a plan that repeats such by hand stand there under
    ``faults``, of the episodes that were stored.

    Raises:
        UsageError: unknown scheduler or option, or ``tasks_only`` of a plan without tasks; nothing
            has been logged then.
        TestbedError: what the task log raises.
    """
    if episodes is not None:
        plan = dataclasses.replace(plan, episodes=episodes)
    if isinstance(scheduler, str):
        scheduler = SchedulerSpec(scheduler)
    if isinstance(scheduler, SchedulerSpec):
        plan = dataclasses.replace(plan, scheduler=scheduler)
        scheduler = None
    options = plan.scheduler.options
    family = SIMULATIONS.of(plan)
    if tasks_only and not family.has_tasks:
        problem = Problem("scenario", f"{plan.name} has no tasks", "leave the option out")
        raise UsageError("no tasks to store alone", [problem])
    simulation = family.make(plan, scheduler, options)
    if scheduler is not None:
        made = SchedulerSpec(simulation.scheduler_name, options)
        plan = dataclasses.replace(plan, scheduler=made)
    info = RunInfo.of(plan, "simulator", id=run_id, first_episode=first_episode, **about._asdict())
    task_log.begin_run(info)
    state = RunState.FAILED
    failures = family.failures()
    done = first_episode
    try:
        numbers = range(first_episode, first_episode + plan.episodes)
        for result in family.log(simulation, plan, numbers, task_log, info.id, tasks_only):
            for failure in result.failed:
                failures.add(failure)
            done += 1
            if on_episode is not None:
                on_episode(result)
        state = RunState.DEGRADED if failures.lines else RunState.COMPLETED
    except KeyboardInterrupt:
        state = RunState.STOPPED
        raise
    finally:
        noted = family.notes(plan, range(first_episode, done))
        if failures.lines:
            noted = {"code_failures": list(failures.lines), **noted}
        document = noted or None
        if state in (RunState.COMPLETED, RunState.DEGRADED):
            task_log.end_run(info.id, state, document)
        else:
            # What broke the run is what the user has to hear, not that saying so broke too.
            with suppress(TestbedError):
                task_log.end_run(info.id, state, document)
    return info.id
