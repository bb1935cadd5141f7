"""``replay``: a logged run's tasks, fates and faults once more, under another scheduler."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed import environment
from testbed.cli import console
from testbed.cli.options import (
    DEFAULT_NAME,
    Json,
    Label,
    SchedulerOptions,
    Storage,
    from_log,
    key_values,
    scheduler_of,
)
from testbed.errors import PermanentError, Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.experiment.history import TaskHistory
    from testbed.experiment.replay import Original, Replay
    from testbed.runtime.base import Testbed
    from testbed.scenario.plan import Plan, SchedulerSpec
    from testbed.storage.tasklog import TaskLog


def replay(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="Run id, a unique prefix, or `latest`. Default: the latest that is no replay.",
        ),
    ] = None,
    schedulers: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            "-s",
            metavar="NAME[,KEY=VALUE]...",
            help="Scheduler of the replay, or module:Class of your own, with options of its own. "
            "Repeatable. Default: the run's own scheduler, which checks whether the run can be "
            "reproduced.",
        ),
    ] = None,
    options: SchedulerOptions = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy for drl: key or id, shipped/NAME, or a folder. Default: the policy that "
            "drl uses.",
        ),
    ] = None,
    episode: Annotated[
        int | None,
        typer.Option("--episode", metavar="N", min=0, help="Replay this episode only."),
    ] = None,
    task: Annotated[
        int | None,
        typer.Option(
            "--task",
            metavar="ID",
            min=0,
            help="Replay the episode of this task, and show its history in all runs.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            "-n",
            metavar="NAME",
            help="Replay on this testbed, which is up. Default: in the simulator.",
        ),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Do not store the replay in the task log.")
    ] = False,
    label: Label = "",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Run a logged run's tasks, failures and faults again, under other schedulers or the same.

    Says how each task's outcome changes, and whether the difference in success is real. Only
    episodes whose tasks are complete in the log are replayed.
    """
    from testbed.api.logs import open_log
    from testbed.api.simulating import not_repeated
    from testbed.cli.progress import Pace
    from testbed.cli.selection import find_run
    from testbed.experiment.history import task_history
    from testbed.experiment.replay import compared, judged, original
    from testbed.experiment.summary import summarise
    from testbed.storage.tasklog import LATEST

    if name is not None and no_log:
        raise UsageError(
            "a testbed writes its own task log",
            [Problem("--no-log", "is given with --name", "leave one of them out")],
        )
    with ExitStack() as stack:
        found = stack.enter_context(open_log(storage, name or _default_name()))
        meant = find_run(found, run or LATEST, name, over=True, original=not run)
        histories: list[TaskHistory] = []
        if task is not None:
            histories.append(task_history(found, meant.id, task))
            episode = _episode_of(task, histories[0].task.episode, episode)
        pace = Pace("episodes checked", 1 if episode is not None else meant.info.episodes)
        source = original(found, meant.id, episode, pace.tell)
        for line in not_repeated(source):
            console.warn(line)
        if source.repeated:
            console.note(f"with the faults that were injected by hand: {source.repeated}")
        specs = _specs(source, schedulers, key_values(options, "--option"), policy)
        venue = (
            _simulator(source, specs, label, stack, None if no_log else found)
            if name is None
            else _testbed(source, specs, label, stack, name, policy)
        )
        before = source.only_replayed(summarise(found, source.run.id))
        replays: list[Replay] = []
        for log, run_id in venue():
            replays.append(compared(before, source.only_replayed(summarise(log, run_id))))
            if task is not None:
                histories.append(task_history(log, run_id, task))
        replays = judged(replays)
        # While the log is there: messages are read from it only here, and --no-log removes it.
        if as_json:
            console.emit(_document(source, replays, histories, name, stored=not no_log))
        else:
            _print(source, replays, histories, storage, stored=not no_log)


def _default_name() -> str:
    """Return the testbed whose log is read where none is named, as in commands that only read."""
    return os.environ.get(environment.NAME) or DEFAULT_NAME


def _episode_of(task: int, of_task: int, asked: int | None) -> int:
    if asked not in (None, of_task):
        raise UsageError(
            f"task {task} is not in episode {asked}",
            [Problem("--episode", str(asked), f"the task is in episode {of_task}")],
        )
    return of_task


def _specs(
    source: Original, names: Sequence[str] | None, options: dict[str, Any], policy: str | None
) -> list[SchedulerSpec]:
    """Return the schedulers to replay under, in the order given, each once."""
    from testbed.scenario.plan import SchedulerSpec

    if not names and policy is not None:
        names = ["drl"]
    given = [scheduler_of(each, options)[0] for each in dict.fromkeys(names or ())]
    if policy is not None and "drl" not in [spec.name for spec in given]:
        raise UsageError(
            "only the scheduler drl uses a policy",
            [Problem("--policy", policy, "add --scheduler drl, or leave it out")],
        )
    if not names:
        own = source.scheduler
        return [SchedulerSpec(own.name, {**own.options, **options})]
    return [
        SchedulerSpec(spec.name, {"policy": policy, **spec.options})
        if spec.name == "drl" and policy
        else spec
        for spec in given
    ]


Venue = Callable[[], "Iterator[tuple[TaskLog, str]]"]
"""Runs the replays one after another; yields the log and the id of each when it is done."""


def _simulator(
    source: Original, specs: list[SchedulerSpec], label: str, stack: ExitStack, log: TaskLog | None
) -> Venue:
    """Return what replays in the simulator, into ``log`` or one that goes with ``stack``."""
    from testbed.api.simulating import Job, replay_plan
    from testbed.cli.sim import shown_run
    from testbed.storage.tasklog import label_of_replay, open_task_log

    jobs = [
        Job(
            replay_plan(source, spec),
            label=label_of_replay(source.run.id, label),
            first_episode=source.first_episode,
            scenario=source.run.info.scenario,
        )
        for spec in specs
    ]
    for job in jobs:
        # All names, options and policies are checked before the first one is simulated.
        job.check()
    if log is None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-replay-"))
        log = stack.enter_context(open_task_log(Path(folder) / "tasklog.sqlite"))
    target = log

    def runs() -> Iterator[tuple[TaskLog, str]]:
        for job in jobs:
            yield target, shown_run(job, target, "replay")

    return runs


def _testbed(
    source: Original,
    specs: list[SchedulerSpec],
    label: str,
    stack: ExitStack,
    name: str,
    policy: str | None,
) -> Venue:
    """Return what replays on the testbed ``name``, which has to emulate the run's network.

    Raises: UsageError: it does not; names what differs.
    """
    from testbed.api.places import runtime
    from testbed.api.policies import imported
    from testbed.api.running import client_of
    from testbed.cli.run import watched_run
    from testbed.schedulers import registry
    from testbed.storage.tasklog import label_of_replay, open_task_log

    testbed = runtime(name).find(name)
    log = stack.enter_context(open_task_log(testbed.store, create=False))
    try:
        log.run(source.run.id)
    except UsageError:
        console.warn(
            f"testbed '{name}' logs into {testbed.store}, which does not have run "
            f"{source.run.id}: this comparison cannot be repeated later"
        )
    with client_of(testbed) as client:
        status = client.status()
        _check_same(source, testbed, status.scenario_hash, status.runs, log)
        if policy is not None:
            # Nodes fetch it from the testbed's store.
            key = imported(policy, testbed.artifacts or status.artifacts)
            specs = [
                dataclasses.replace(each, options={**each.options, "policy": key})
                if each.name == "drl"
                else each
                for each in specs
            ]
    for spec in specs:
        if ":" not in spec.name:
            registry.check(spec.name, spec.options)
    text = label_of_replay(source.run.id, label)

    def runs() -> Iterator[tuple[TaskLog, str]]:
        for spec in specs:
            last = watched_run(
                name,
                testbed,
                scheduler=spec.name,
                options=spec.options,
                episodes=source.count,
                first_episode=source.first_episode,
                label=text,
                faults=source.faults_by_hand,
            )
            if last.state == "failed":
                raise PermanentError(f"run {last.run} failed: {last.reason or 'see its log'}")
            if last.state == "stopped":
                console.warn(f"run {last.run} was stopped before its end")
                raise typer.Exit(TestbedError.exit_code)
            yield log, last.run

    return runs


def _check_same(
    source: Original, testbed: Testbed, scenario_hash: str, runs: Sequence[str], log: TaskLog
) -> None:
    """Refuse a testbed that does not emulate what the run emulated."""
    from testbed.experiment.replay import differences

    there = _plan_of_testbed(testbed, runs, log)
    found = [] if there is None else differences(source.plan, there)
    if not found and scenario_hash != source.run.info.scenario_hash:
        found = [
            Problem(
                "scenario",
                f"{source.run.info.name} [{source.run.info.scenario_hash[:12]}] in the run",
                f"{testbed.scenario} [{scenario_hash[:12]}] on the testbed",
            )
        ]
    if found:
        raise UsageError(
            f"testbed '{testbed.name}' emulates a different network than run {source.run.id}; "
            "replay in "
            "the simulator (without --name), or bring up the run's scenario: "
            f"testbed runs show {source.run.id} --scenario > again.yaml",
            found,
        )


def _plan_of_testbed(testbed: Testbed, runs: Sequence[str], log: TaskLog) -> Plan | None:
    """Return the testbed's plan, from its folder or else a run of it; None if neither."""
    from testbed.runtime.directory import RunDirectory
    from testbed.scenario.plan import Plan

    folder = RunDirectory(testbed.directory.parent, testbed.directory.name)
    try:
        return Plan.from_json(folder.plan.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    for run_id in reversed(runs):
        try:
            return log.run(run_id).plan
        except (ValueError, TestbedError):
            continue
    return None


def _document(
    source: Original,
    replays: Sequence[Replay],
    histories: Sequence[TaskHistory],
    name: str | None,
    *,
    stored: bool,
) -> dict[str, Any]:
    return {
        "original": replays[0].original.document,
        "venue": "simulator" if name is None else name,
        "stored": stored,
        "episodes": list(source.episodes),
        "left_out": [dataclasses.asdict(each) for each in source.left_out],
        "not_repeated": list(source.changed),
        "repeated_by_hand": source.repeated,
        "replays": [each.document for each in replays],
        "histories": [each.document for each in histories],
    }


def _print(
    source: Original,
    replays: Sequence[Replay],
    histories: Sequence[TaskHistory],
    storage: str | None,
    *,
    stored: bool,
) -> None:
    from testbed.cli.results import print_runs, warn_if_doubtful
    from testbed.experiment.statistics import adjustment

    summaries = [replays[0].original, *(each.summary for each in replays)]
    print_runs(summaries, None)
    for each in replays:
        console.out("")
        style = "bold" if each.comparison.real else "default"
        console.show(console.mark(each.verdict, style))
        for line in each.changes.lines():
            console.out(f"  {line}")
    if how := adjustment(each.comparison for each in replays):
        console.out("")
        console.out(how)
    if histories:
        console.out("")
        print_histories(histories)
    for summary in summaries:
        warn_if_doubtful(summary.run)
    ids = " ".join(summary.run.id for summary in summaries)
    if stored:
        console.next_command(
            from_log(f"testbed compare {ids}", storage),
            from_log(f"testbed report {ids} --out report", storage),
        )
    else:
        console.note("not stored in the task log")


def print_histories(histories: Sequence[TaskHistory]) -> None:
    """Print one task's history in one run or several, side by side."""
    from testbed.experiment.history import arrival, rows

    first = histories[0]
    console.out(f"task {first.task.id} {arrival(first.task)}")
    table = console.Rows(
        [
            "RUN",
            *("~" + console.mark(history.run.id, "cyan") for history in histories),
        ]
    )
    table.add("driver", *(history.run.info.driver for history in histories))
    for label, *cells in rows(histories):
        table.add(label, *(console.plain(cell) for cell in cells))
    console.show(table)
