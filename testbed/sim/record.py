"""Runs a simulation into the task log: the same rows as a network run, driver ``simulator``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from testbed.errors import PermanentError, TestbedError
from testbed.model.failures import Failures
from testbed.model.history import fold_all
from testbed.model.run_state import RunState
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.families import SIMULATIONS
from testbed.sim.simulator import EpisodeResult, SchedulerChoice
from testbed.storage.tasklog import RunInfo, TaskLog, fault_documents


def record_run(
    plan: Plan,
    task_log: TaskLog,
    *,
    scheduler: SchedulerSpec | SchedulerChoice | None = None,
    episodes: int | None = None,
    first_episode: int = 0,
    run_id: str | None = None,
    label: str = "",
    scenario: str | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> str:
    """Simulate ``plan`` and log all of it; returns the id of the run.

    A name alone stands for the scheduler without options; what makes one gets the plan's options.
    What is None is taken from the plan or, the id, made up; the log holds the plan as used. An
    episode is in the log, complete, before ``on_episode`` is called and the next one begins. A
    run that is interrupted ends as ``stopped``, one that breaks as ``failed``, with the episodes
    that were done. One whose scheduler failed at tasks, which are lost, ends as ``degraded``; why
    stands in its certificate under ``code_failures``. The faults of a plan that repeats such by
    hand stand there under ``faults``, of the episodes that were done.

    Raises:
        UsageError: unknown scheduler or option; nothing has been logged then.
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
    simulation = SIMULATIONS.of(plan)(plan, scheduler, options)
    if scheduler is not None:
        made = SchedulerSpec(simulation.scheduler_name, options)
        plan = dataclasses.replace(plan, scheduler=made)
    info = RunInfo.of(
        plan, "simulator", id=run_id, first_episode=first_episode, label=label, scenario=scenario
    )
    task_log.begin_run(info)
    state = RunState.FAILED
    failures = Failures()
    done = first_episode
    try:
        for episode in range(first_episode, first_episode + plan.episodes):
            result = simulation.episode(episode)
            _log(task_log, info.id, result)
            for record in result.failed:
                failures.add(record)
            done += 1
            if on_episode is not None:
                on_episode(result)
        state = RunState.DEGRADED if failures else RunState.COMPLETED
    except KeyboardInterrupt:
        state = RunState.STOPPED
        raise
    finally:
        noted: dict[str, Any] = {}
        if failures:
            noted["code_failures"] = list(failures.lines)
        if plan.by_hand:
            noted["faults"] = fault_documents(plan, range(first_episode, done))
        document = noted or None
        if state in (RunState.COMPLETED, RunState.DEGRADED):
            task_log.end_run(info.id, state, document)
        else:
            # What broke the run is what the user has to hear, not that saying so broke too.
            with suppress(TestbedError):
                task_log.end_run(info.id, state, document)
    return info.id


def _log(task_log: TaskLog, run_id: str, result: EpisodeResult) -> None:
    rows, illegal = fold_all((), result.records, result.decisions)
    if illegal:
        raise PermanentError(
            f"the simulator made a contradictory history; this is a defect: {illegal[0]}"
        )
    task_log.append(run_id, result.records, result.decisions)
    task_log.write_tasks(run_id, rows)
