"""Runs in virtual time, for `testbed sim`, `testbed replay` and the Python API."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from testbed.api import home, notices
from testbed.api.planning import LoadedPlan, check_objective, plan_of, text_of
from testbed.api.results import Comparison, ReplayResult, RunResult, compared
from testbed.api.store import Store, temporary
from testbed.errors import Problem, UsageError
from testbed.model.decision import Scheduler
from testbed.model.hook import Hook
from testbed.model.hooks import HOOKS
from testbed.model.serving.route import Router
from testbed.scenario.plan import Plan, PlanHead, SchedulerSpec

if TYPE_CHECKING:
    from testbed.experiment.measured import Summary
    from testbed.experiment.replay import Original
    from testbed.storage.tasklog import TaskLog

SchedulerLike: TypeAlias = "str | SchedulerSpec | Scheduler | Router | type[Scheduler | Router]"
"""A registered name or ``module:Class``, a name with options, an instance, or a class.

A router for plans of requests, else a scheduler. Of an instance every node gets a copy; a class is
made for every node with its ``SchedulerContext`` or ``RouterContext``.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to simulate; ``factory`` makes a scheduler that no registry knows."""

    plan: PlanHead
    factory: Callable[[Any], Any] | None = None
    label: str = ""
    first_episode: int = 0
    scenario: str | None = None
    tasks_only: bool = False

    def check(self) -> None:
        """Raise UsageError if scheduler, one of its options, or the objective is not known."""
        from testbed.sim.families import SIMULATIONS

        check_objective(self.plan)
        options = None if self.factory is None else self.plan.scheduler.options
        SIMULATIONS.of(self.plan).make(self.plan, self.factory, options, keep=False)

    def run(
        self,
        log: TaskLog,
        run_id: str | None = None,
        on_episode: Callable[[Any], None] | None = None,
    ) -> str:
        """Simulate into ``log`` and return the id of the run; see ``record_run``."""
        from testbed.sim.record import About, record_run

        return record_run(
            self.plan,
            log,
            scheduler=self.factory,
            first_episode=self.first_episode,
            run_id=run_id,
            about=About(self.label, self.scenario),
            tasks_only=self.tasks_only,
            on_episode=on_episode,
        )


def simulated(
    jobs: Sequence[Job], log: TaskLog, run: Callable[[Job, TaskLog], str] = Job.run
) -> list[Summary]:
    """Simulate ``jobs`` one after another into ``log`` and summarise each run.

    All names and options are checked before the first one is simulated. ``run`` is what simulates
    one, so that a command can show progress.
    """
    from testbed.experiment.summary import summary_of

    for job in jobs:
        job.check()
    ids = [run(job, log) for job in jobs]
    return [summary_of(log, run_id) for run_id in ids]


def simulate(
    plan: LoadedPlan | PlanHead,
    scheduler: SchedulerLike | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    episodes: int | None = None,
    first_episode: int = 0,
    label: str = "",
    log: Store | None = None,
    tasks_only: bool = False,
) -> RunResult:
    """Run a plan in virtual time under one scheduler.

    Args:
        plan: What ``load`` returns, or the plan of a run.
        scheduler: A name, an instance or a class; None: the scenario's.
        options: Options of a scheduler given by name or as a class.
        episodes: Number of episodes; None: the plan's.
        first_episode: Number of the first one; equal numbers meet equal tasks and failures.
        label: Free text to identify the run later.
        log: Task log to store the run in; None: it is stored nowhere.
        tasks_only: Keep how each task ended, without its events and without the decisions: several
            times faster.

    Raises:
        UsageError: unknown scheduler or option.
    """
    job = _job(plan, scheduler, options, episodes)
    job = dataclasses.replace(job, label=label, first_episode=first_episode, tasks_only=tasks_only)
    return _results([job], log)[0]


def compare(
    plan: LoadedPlan | PlanHead,
    schedulers: Sequence[SchedulerLike],
    *,
    episodes: int | None = None,
    first_episode: int = 0,
    label: str = "",
    log: Store | None = None,
) -> Comparison:
    """Run a plan in virtual time under several schedulers, which meet the same tasks and failures.

    Args:
        plan: What ``load`` returns, or the plan of a run.
        schedulers: Two or more; with options as ``SchedulerSpec("drl", {"policy": ...})``.
        episodes: Number of episodes; None: the plan's.
        first_episode: Number of the first one.
        label: Free text by which to find the runs again.
        log: Task log to store the runs in; None: they are stored nowhere.

    Raises:
        UsageError: fewer than two schedulers, or an unknown one or option; nothing is run then.
    """
    if len(schedulers) < 2:
        raise UsageError("a comparison needs two schedulers or more")
    jobs = [_job(plan, each, None, episodes) for each in schedulers]
    names = Counter(job.plan.scheduler.name for job in jobs)
    labelled = []
    for job in jobs:
        own = job.plan.scheduler
        # Two of one name are told apart by their options.
        told = ", ".join(f"{key}={value}" for key, value in own.options.items())
        found = "; ".join(each for each in (label, told if names[own.name] > 1 else "") if each)
        labelled.append(dataclasses.replace(job, label=found, first_episode=first_episode))
    return compared(_results(labelled, log))


def replay(
    run: RunResult,
    scheduler: SchedulerLike | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    episode: int | None = None,
) -> ReplayResult:
    """Simulate the tasks, failures and faults of a logged run once more, under another scheduler.

    Args:
        run: The run, simulated or of a network.
        scheduler: A name, an instance or a class; None: the run's own, which checks whether the run
            can be reproduced.
        options: Options of a scheduler given by name or as a class.
        episode: Only this episode; None: all whose tasks are complete in the log.

    Raises:
        UsageError: no episode can be replayed, or the scheduler is not known.
    """
    from testbed.experiment.replay import compared as paired
    from testbed.experiment.replay import original
    from testbed.experiment.summary import summarise
    from testbed.storage.tasklog import label_of_replay

    log = run.store.task_log
    source = original(log, run.id, episode)
    for line in not_repeated(source):
        notices.warn(line)
    if scheduler is None:
        own = source.scheduler
        scheduler = SchedulerSpec(own.name, {**own.options, **(options or {})})
        options = None
    job = _job(source.plan, scheduler, options, source.count)
    job = dataclasses.replace(
        job,
        plan=replay_plan(source, job.plan.scheduler),
        first_episode=source.first_episode,
        label=label_of_replay(source.run.id),
    )
    before = source.only_replayed(summarise(log, source.run.id))
    [again] = _results([job], None)
    after = source.only_replayed(again.of_tasks)
    return ReplayResult(
        paired(before, after), RunResult(before, run.store), RunResult(after, again.store)
    )


def not_repeated(source: Original) -> list[str]:
    """Return what of a run its replay leaves out, a line each."""
    from testbed.experiment.replay import told

    changed = [
        f"run {source.run.id}: {each}; the replay does not repeat that" for each in source.changed
    ]
    return [*told(source.left_out), *changed]


def replay_plan(source: Original, scheduler: SchedulerSpec) -> Plan:
    """Return the plan of a replay in the simulator."""
    artifacts = home.artifacts_url(None, source.plan.artifacts_url)
    return source.planned(_absolute(scheduler), artifacts)


def _absolute(spec: SchedulerSpec) -> SchedulerSpec:
    """Return the same with a policy's folder as an absolute path, so that logs stay readable."""
    from testbed.policies import CARD

    reference = spec.options.get("policy")
    if spec.name == "drl" and isinstance(reference, str):
        folder = Path(reference).expanduser()
        if (folder / CARD).is_file():
            options = {**spec.options, "policy": str(folder.absolute())}
            return dataclasses.replace(spec, options=options)
    return spec


def _job(
    plan: LoadedPlan | PlanHead,
    scheduler: SchedulerLike | None,
    options: Mapping[str, Any] | None,
    episodes: int | None,
) -> Job:
    drawn = plan_of(plan)
    factory: Callable[[Any], Any] | None = None
    given = dict(options or {})
    if scheduler is None:
        spec = dataclasses.replace(drawn.scheduler, options={**drawn.scheduler.options, **given})
    elif isinstance(scheduler, SchedulerSpec):
        spec = dataclasses.replace(scheduler, options={**scheduler.options, **given})
    elif isinstance(scheduler, str):
        spec = SchedulerSpec(scheduler, given)
    else:
        name, factory = _own(scheduler, given, HOOKS[drawn.hook])
        spec = SchedulerSpec(name, given)
    count = drawn.episodes if episodes is None else episodes
    if count < 1:
        raise UsageError("nothing to run", [Problem("episodes", str(count), "1 or more")])
    job = dataclasses.replace(drawn, scheduler=spec, episodes=count)
    return Job(job, factory, scenario=text_of(plan))


def _own(
    scheduler: Any, options: Mapping[str, Any], hook: Hook[Any]
) -> tuple[str, Callable[[Any], Any]]:
    """Return the name of a scheduler given as an instance or a class, and what makes it."""
    from testbed.schedulers import registry

    if isinstance(scheduler, type):
        kind = scheduler
        known_as = getattr(scheduler, "name", None)
        called = known_as if isinstance(known_as, str) else scheduler.__name__
        return called, lambda context: registry.made_by(kind, called, context)
    problem = ""
    name = getattr(scheduler, "name", None)
    if not isinstance(scheduler, hook.protocol) or not isinstance(name, str):
        problem = f"{scheduler!r:.80} is no {hook.noun}"
    elif options:
        problem = "an instance takes no options"
    if problem:
        raise UsageError(
            f"this {hook.noun} cannot be used",
            [
                Problem(
                    "scheduler",
                    problem,
                    "a name, or an instance or class with an attribute `name`, a text, and a "
                    f"method `{hook.method}`",
                )
            ],
        )

    def copied(_context: Any) -> Any:
        # Every node decides for itself: what one remembers is not the others' to read.
        return copy.deepcopy(scheduler)

    return str(name), copied


def _results(jobs: Sequence[Job], log: Store | None) -> list[RunResult]:
    store = temporary() if log is None else log
    return [RunResult(each, store) for each in simulated(jobs, store.task_log)]
