"""Scores of a scheduler by the objective of a scenario, in the simulator, episode by episode."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from testbed.experiment.measured import NothingToReport
from testbed.experiment.metrics import objective
from testbed.experiment.summary import summary_of
from testbed.policies import shipped
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, SUCCESS_RATE, TASKS, Plan, PlanHead, SchedulerSpec
from testbed.schedulers import registry
from testbed.schedulers.drl import Drl
from testbed.sim.families import SIMULATIONS
from testbed.sim.play import PER_DESTINATION, evaluate
from testbed.sim.record import record_run
from testbed.storage.tasklog import open_task_log

Scoring: TypeAlias = Callable[[Any, str, Mapping[str, Any], int], list[float]]
"""Computes scores from a plan, a method, its options, and how many episodes there are."""


def scores(plan: PlanHead, method: str, options: Mapping[str, Any], episodes: int) -> list[float]:
    """Return the objective of ``plan`` in episodes 0 to ``episodes`` - 1; NaN where it has none.

    ``method`` is the name of a scheduler (``central`` and ``oracle`` included), ``module:Class``,
    or ``per-destination``, the policy that ships with the package. Success rates of tasks come from
    the compiled engine where it supports plan and method. Everything else is played into a task log
    that is removed again, and read as the summary of a run reads it.

    Raises: UsageError: an unknown method, option or objective.
    """
    known: Scoring = AT_ONCE.of(plan).get(objective(plan).name, _logged)
    return known(plan, method, options, episodes)


def _success_rates(
    plan: Plan, method: str, options: Mapping[str, Any], episodes: int
) -> list[float]:
    made = {method: partial(_made, method, options)} if options else None
    found: list[float] = evaluate(plan, [method], episodes, made, threads=1)[method].tolist()
    return found


def _made(method: str, options: Mapping[str, Any], context: Any) -> Any:
    return registry.create(method, context, options)


AT_ONCE: Final[ByModel[Mapping[str, Scoring]]] = ByModel(
    "scoring", {TASKS: {SUCCESS_RATE: _success_rates}, SERVING: {}}
)
"""The objectives that are computed without a task log, by model."""


def _logged(plan: PlanHead, method: str, options: Mapping[str, Any], episodes: int) -> list[float]:
    plan = dataclasses.replace(plan, scheduler=SchedulerSpec(method, dict(options)))
    made = partial(Drl.of, policy=shipped()) if method == PER_DESTINATION else None
    with (
        tempfile.TemporaryDirectory(prefix="testbed-scores-") as folder,
        open_task_log(Path(folder) / "tasklog.sqlite") as log,
    ):
        tasks_only = SIMULATIONS.of(plan).has_tasks
        run_id = record_run(plan, log, scheduler=made, episodes=episodes, tasks_only=tasks_only)
        try:
            found = summary_of(log, run_id).score.by_episode
        except NothingToReport:
            found = {}
    return [found.get(number, math.nan) for number in range(episodes)]
