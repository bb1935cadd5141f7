"""``sim``: the same scenario and schedulers in virtual time, into the same task log."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.api import home
from testbed.cli import console
from testbed.cli.options import (
    Episodes,
    FirstEpisode,
    Json,
    Label,
    ScenarioName,
    SchedulerOptions,
    Settings,
    Storage,
    from_log,
    key_values,
    labelled,
    quoted,
    scheduler_of,
)
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.api.simulating import Job
    from testbed.storage.tasklog import TaskLog


def sim(
    scenario: ScenarioName,
    schedulers: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            "-s",
            metavar="NAME[,KEY=VALUE]...",
            help="Scheduler to simulate, with options of its own; repeat it to compare several. "
            "Default: the scenario's.",
        ),
    ] = None,
    options: SchedulerOptions = None,
    episodes: Episodes = None,
    first_episode: FirstEpisode = 0,
    label: Label = "",
    settings: Settings = None,
    storage: Storage = None,
    tasks_only: Annotated[
        bool,
        typer.Option(
            "--tasks-only",
            help="Store how each task ended, without its events and without the decisions: several "
            "times faster, and a fifth of the space.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a scenario in virtual time: seconds instead of minutes, no processes, same results."""
    from testbed.api.simulating import Job, simulated
    from testbed.cli.results import comparison_or_none, print_runs, print_tables, warn_if_doubtful
    from testbed.scenario.load import draw, dumps, load, warnings
    from testbed.scenario.plan import SchedulerSpec
    from testbed.storage.tasklog import open_task_log

    loaded = load(scenario, settings or ())
    chosen = key_values(options, "--option")
    for line in warnings(loaded):
        console.warn(line)
    plan = draw(loaded, episodes=episodes, artifacts_url=home.artifacts_url(None, loaded.artifacts))
    specs = [scheduler_of(given, chosen) for given in dict.fromkeys(schedulers or ())]
    if not specs:
        own = plan.scheduler
        specs = [(SchedulerSpec(own.name, {**own.options, **chosen}), "")]
    text = dumps(loaded)
    jobs = [
        Job(
            dataclasses.replace(plan, scheduler=spec),
            label=labelled(label, own_options),
            first_episode=first_episode,
            scenario=text,
            tasks_only=tasks_only,
        )
        for spec, own_options in specs
    ]
    for job in jobs:
        # Before the log is opened, which would create it.
        job.check()
    with open_task_log(home.choose_task_log(storage, loaded.storage)) as log:
        runs = simulated(jobs, log, shown_run)
    ids = [run.run.id for run in runs]
    comparison = comparison_or_none(runs)
    if as_json:
        console.emit(
            {
                "runs": [run.document for run in runs],
                "comparison": None if comparison is None else comparison.document,
            }
        )
        return
    print_runs(runs, comparison)
    if len(runs) == 1:
        print_tables(runs[0].in_short())
    for run in runs:
        warn_if_doubtful(run.run)
    console.next_command(
        from_log(f"testbed report {' '.join(ids)} --out report", storage),
        f"testbed up {quoted(scenario)}",
    )


def shown_run(job: Job, log: TaskLog, what: str = "sim") -> str:
    """Simulate ``job`` into ``log`` and show its progress; returns the id of the run."""
    from testbed.cli.progress import ProgressDisplay, Snapshot
    from testbed.storage.tasklog import new_run_id

    plan = job.plan
    run_id = new_run_id()
    outcomes: Counter[str] = Counter()
    completed = 0
    title = f"{what} {plan.name} · {plan.scheduler.name}"
    with ProgressDisplay() as display:

        def show(result: Any | None) -> None:
            nonlocal completed
            if result is not None:
                completed += 1
                outcomes.update({o.value: n for o, n in result.counts.items()})
            display.show(
                Snapshot(
                    *(title, plan.episodes, completed, dict(outcomes), dict(outcomes)),
                    work=plan.work,
                    success=plan.success,
                    objective=plan.objective,
                )
            )

        show(None)
        try:
            return job.run(log, run_id, show)
        except KeyboardInterrupt:
            told = f"stopped after {completed} of {counted(plan.episodes, 'episode')}"
            console.note(f"{told}; they are in the task log as run {run_id}" if completed else told)
            raise
