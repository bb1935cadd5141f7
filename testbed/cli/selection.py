"""Which task log and which runs a command is about, where the user did not say."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.cli import console, home
from testbed.errors import Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.storage.tasklog import Run, TaskLog


def open_log(storage: str | None, name: str | None = None) -> TaskLog:
    """The task log to read: the one asked for, else that of the testbed ``name``, else the home's.

    Raises: PrerequisiteMissing: there is none yet.
    """
    from testbed.storage.tasklog import open_task_log

    url = home.task_log_url(storage, None if storage else _of_testbed(name))
    log = open_task_log(url, create=False)
    _settle(log, url)
    return log


def _settle(log: TaskLog, url: str) -> None:
    """Enter the end of runs whose controller has ended without entering it."""
    from controller.claims import CLAIMS, Claims

    try:
        settled = Claims(home.home() / CLAIMS, url).settle(log)
    except TestbedError as error:
        console.warn(f"a run that was cut short stands as running: {error}")
        return
    for run, state in settled:
        console.warn(f"run {run} was cut short; the task log calls it {state.value}")


def _of_testbed(name: str | None) -> str | None:
    """Where the testbed that is up under this name logs; None if there is none."""
    from testbed.cli.places import runtime

    if name is None:
        return None
    try:
        return runtime(name).find(name).store
    except UsageError:
        # None is up; or left half-made: it has no run that is not in the log of its home.
        return None


def runs_to_look_at(log: TaskLog, given: Sequence[str] | None, *, least: int) -> list[str]:
    """Ids of the runs meant by ``given``; without any, the latest comparable ones.

    Those are the runs of the same scenario and driver as the latest run, of each scheduler (with
    its options and label) the latest, oldest first. If the latest run is a replay, they are the run
    it replays and the latest replays of that run that have all its episodes. Runs whose
    scheduler was changed have to be named.

    Raises: UsageError: fewer than ``least``, or a given one is not known.
    """
    if given:
        return [log.run(each).id for each in given]
    found = _latest_comparable(log)
    if len(found) < least:
        latest = found[-1] if found else None
        seen = "none" if latest is None else f"only {latest.info.scheduler} ({latest.id})"
        raise UsageError(
            "not enough runs",
            [
                Problem(
                    "",
                    f"{seen} of the latest scenario has finished tasks",
                    "run another scheduler on it, or name the runs; `testbed runs list` shows them",
                )
            ],
        )
    return [run.id for run in found]


def _latest_comparable(log: TaskLog) -> list[Run]:
    latest: Run | None = None
    chosen: dict[tuple[str, ...], Run] = {}
    for run in reversed(log.runs()):
        info = run.info
        replayed = None if latest is None else latest.info.replay_of
        key: tuple[str, ...] = (info.scheduler, _options(run), info.label)
        if latest is None:
            alike = not run.changes and not run.faults_by_hand
        elif replayed is not None:
            # What is asked is how they compare with the run they repeat, whoever drove it.
            alike = run.id == replayed or info.replay_of == replayed
            alike = alike and _episodes(latest) <= _episodes(run)
            key = (info.driver, *key)
        else:
            alike = (
                info.scenario_hash == latest.info.scenario_hash
                and info.driver == latest.info.driver
                and info.seeds == latest.info.seeds
                and info.replay_of is None
                # One whose scheduler was changed while it ran is a run of none of them, and no
                # other met what was injected into it by hand.
                and not run.changes
                and not run.faults_by_hand
            )
        if not alike:
            continue
        if key not in chosen and any(log.outcomes(run.id).values()):
            latest = latest or run
            chosen[key] = run
    return list(reversed(chosen.values()))


def _episodes(run: Run) -> set[int]:
    return set(range(run.info.first_episode, run.info.first_episode + run.info.episodes))


def _options(run: Run) -> str:
    # A plan of another version of this toolkit is no reason not to look at the run.
    with suppress(ValueError, TestbedError):
        return str(sorted(run.plan.scheduler.options.items()))
    return ""
