"""``run``, ``attach`` and ``stop``: a run on a testbed that is up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from testbed.api.places import runtime
from testbed.api.running import (
    client_of,
    complaints,
    follow,
    refuse_failed,
    stopped_by_interrupt,
)
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import (
    AUTO,
    Episodes,
    FirstEpisode,
    Json,
    Label,
    Name,
    SchedulerOptions,
    TimeScale,
    key_values,
    labelled,
    refuse_auto_elsewhere,
    scheduler_of,
)
from testbed.errors import PermanentError, Problem, TestbedError, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.rpc.operator import Progress
    from testbed.runtime.base import Runtime, Testbed

OneRun: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="Run of this testbed, or a unique prefix. Default: the latest."
    ),
]


def run(
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            "-s",
            metavar="NAME[,KEY=VALUE]...",
            help="Scheduler of all nodes, or module:Class of your own, with options of its own. "
            "Default: the scenario's.",
        ),
    ] = "",
    options: SchedulerOptions = None,
    episodes: Episodes = None,
    first_episode: FirstEpisode = 0,
    label: Label = "",
    time_scale: TimeScale = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Run episodes on a testbed that is up, under one scheduler, and watch them.

    Ctrl-C stops the run; what has happened so far is in the task log.
    A degraded or invalid run also ends with exit code 0; its state tells.
    """
    spec, own_options = scheduler_of(scheduler, key_values(options, "--option"))
    place = runtime(name)
    testbed = place.find(name)
    scale = scale_of(time_scale, place, testbed)
    if place.on_this_machine:
        from testbed.api.calibrating import warn_before_run

        warn_before_run(testbed, scale)
    last = watched_run(
        name,
        testbed,
        scheduler=spec.name,
        options=spec.options,
        episodes=episodes or 0,
        first_episode=first_episode,
        label=labelled(label, own_options),
        time_scale=scale or 0.0,
    )
    _tell(last, testbed.store, name, as_json)


def attach(
    run_id: OneRun = "",
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Follow a run that was started elsewhere, to its end; Ctrl-C leaves it running.

    Ends as `testbed run` does; of a run that is over, shows how it ended.
    """
    place = runtime(name)
    testbed = place.find(name)
    with client_of(testbed) as client:
        chosen = _chosen(client.status().runs, run_id, name)
        try:
            last = _watch(follow(client, chosen, place), chosen, testbed.scenario)
        except KeyboardInterrupt:
            console.note(f"run {chosen} goes on")
            console.next_command(with_name(f"testbed attach {chosen}", name))
            raise
    _tell(last, testbed.store, name, as_json)


def stop(
    run_id: OneRun = "",
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """End the run in progress in order; what has happened so far is in the task log.

    What is under way may end first. No-op if the run is over.
    """
    with client_of(runtime(name).find(name)) as client:
        chosen = _chosen(client.status().runs, run_id, name)
        client.stop_run(chosen)
        last = next(client.watch_run(chosen))
    if as_json:
        console.emit(json.loads(last.to_json()))
        return
    episodes = counted(last.episodes, "episode")
    console.out(f"run {chosen} is {last.state}: {last.completed} of {episodes} over")
    console.next_command(f"testbed runs show {chosen}")


def _chosen(runs: Sequence[str], run_id: str, name: str) -> str:
    """Return the run of a testbed that a user names, the latest if none.

    Raises: UsageError: there is none, or several.
    """
    known = [run for run in runs if run.startswith(run_id)]
    if not known or (run_id and len(known) > 1):
        allowed = f"one of {', '.join(runs)}" if runs else "a run that testbed run has begun"
        raise UsageError(
            f"there is no such run on testbed '{name}'",
            [Problem("RUN", repr(run_id or "latest"), allowed)],
        )
    return known[-1]


def scale_of(asked: str | None, place: Runtime, testbed: Testbed) -> float | None:
    """Return the time scale that is asked for; None for the scenario's.

    Raises: UsageError: it cannot be read, or not be found by itself.
    """
    if asked is None:
        return None
    if asked == AUTO:
        from testbed.api.calibrating import forecast_of, told

        refuse_auto_elsewhere(place)
        expected = forecast_of(testbed)
        console.note(told(expected))
        return expected.time_scale
    from testbed.scenario.units import TIME_SCALE, QuantityError

    try:
        return TIME_SCALE.read(asked)
    except QuantityError as error:
        problem = Problem("--time-scale", error.seen, error.allowed)
        raise UsageError("no such time scale", [problem]) from None


def watched_run(name: str, testbed: Testbed, **order: Any) -> Progress:
    """Start a run on the testbed ``name``, show its progress, and return how it ended.

    ``order`` is what ``OperatorClient.start_run`` takes. Ctrl-C ends the run in order.
    """
    from testbed.rpc.repeated import start

    with client_of(testbed) as client, stopped_by_interrupt(client):
        run_id = start(client, **order)
        return _watch(follow(client, run_id, runtime(name)), run_id, testbed.scenario)


def _watch(progress: Iterator[Progress], run_id: str, scenario: str) -> Progress:
    from testbed.cli.progress import ProgressDisplay, snapshot_of

    last = None
    with ProgressDisplay() as display:
        for last in progress:
            display.show(snapshot_of(last, f"run {scenario} · {last.scheduler}"))
    if last is None:
        raise PermanentError(f"the controller reports nothing about run {run_id}")
    return last


def _tell(last: Progress, store: str, name: str, as_json: bool) -> None:
    from testbed.cli.progress import other_scheduler
    from testbed.cli.results import print_runs
    from testbed.experiment.summary import summary_of
    from testbed.storage.tasklog import open_task_log

    summary = None
    if last.state != "failed" and last.ended:
        with open_task_log(store, create=False) as log:
            summary = summary_of(log, last.run)
    if as_json:
        found = {"run": last.run, "state": last.state}
        found |= {} if summary is None else summary.document
        console.emit({**found, "progress": json.loads(last.to_json())})
    elif summary is not None:
        print_runs([summary], None)
    for line in complaints(last):
        console.warn(line)
    refuse_failed(last)
    if last.state == "stopped":
        raise typer.Exit(TestbedError.exit_code)
    console.next_command(
        with_name(f"testbed run --scheduler {other_scheduler(last)}", name),
        with_name("testbed compare", name),
        with_name("testbed report --out report", name),
    )
