"""The task log and the runs that a command works on where the user named none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from testbed.api.filters import SEPARATOR, Filter
from testbed.cli import console
from testbed.cli.options import DEFAULT_NAME
from testbed.errors import Problem, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.storage.tasklog import Run, TaskLog


def find_run(
    log: TaskLog,
    given: str,
    name: str | None = None,
    *,
    over: bool = False,
    original: bool = False,
) -> Run:
    """Return the run that ``given`` names: its id, a unique prefix, or ``latest``.

    ``latest:ratc`` and ``latest:scheduler=ratc,state=completed`` are the latest of such runs
    (``Filter``).
    The latest is that of the testbed ``name``, if that has one in this log (the default name means
    any testbed, and what was simulated); with
    ``over`` one that has ended, with ``original`` one that is no replay, if there is any. Which one
    it is, is printed: another shell may have started a run in the same log meanwhile.

    Raises: UsageError: there is none.
    """
    from testbed.storage.tasklog import LATEST

    kind, separator, wanted = given.partition(SEPARATOR)
    if kind != LATEST:
        return log.run(given)
    runs = log.runs()
    if separator:
        only = Filter.of(wanted)
        if runs and not (fitting := only.of_runs(runs)):
            raise UsageError(
                f"no run with {only}", [Problem("run", given, "`testbed runs list` shows all")]
            )
        runs = fitting if runs else runs
    if original:
        runs = [run for run in runs if run.info.replay_of is None] or runs
    found, why = _preferred(runs, name, over=over)
    # Without any, the log says what is missing.
    run = found[-1] if found else log.run(LATEST)
    console.note(f"latest: {_in_words(run)}{why}")
    return run


def find_runs(log: TaskLog, given: Sequence[str] | None, name: str | None = None) -> list[str]:
    """Return the ids of the named runs, each once; of the latest ended one if none is named."""
    from testbed.storage.tasklog import LATEST

    found = (find_run(log, each, name, over=True).id for each in given or [LATEST])
    return list(dict.fromkeys(found))


def _preferred(runs: Sequence[Run], name: str | None, *, over: bool) -> tuple[Sequence[Run], str]:
    """Return those of ``runs`` that may be meant, and which were left out."""
    from testbed.storage.tasklog import RunState

    why = ""
    if name not in (None, DEFAULT_NAME):
        own = [run for run in runs if run.info.testbed == name]
        if not own and runs:
            why = f"; no run of testbed '{name}' is in this log"
        runs = own or runs
    ended = [run for run in runs if run.state is not RunState.RUNNING]
    if over and ended:
        if runs[-1] is not ended[-1]:
            why += f"; {runs[-1].id} is still running"
        runs = ended
    return runs, why


def _in_words(run: Run) -> str:
    info = run.info
    where = "simulated" if info.driver == "simulator" else f"testbed '{info.testbed or 'unknown'}'"
    return (
        f"run {info.id} ({info.scheduler}, {info.name}, {where}, started {_ago(info.started)}, "
        f"{run.state.value})"
    )


def _ago(started: str) -> str:
    """Return how long ago that was, roughly; the time itself where it is no time or lies ahead."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    except (TypeError, ValueError):
        return started
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if seconds >= 2 * length or (unit == "seconds" and seconds >= 0):
            return f"{seconds / length:.0f} {unit} ago"
    return started


def runs_to_look_at(
    log: TaskLog, given: Sequence[str] | None, name: str | None = None, *, least: int
) -> list[str]:
    """Return the ids of the runs in ``given``; without any, the latest comparable ones.

    Those are the runs that have ended, of the testbed ``name`` (as ``find_run`` takes it),
    of the same scenario and driver as the latest run, of each scheduler (with
    its options and label) the latest, oldest first. If the latest run is a replay, they are the run
    it replays and the latest replays of that run that have all its episodes. Runs whose
    scheduler was changed have to be named.

    Raises: UsageError: fewer than ``least``, or a given one is not known.
    """
    if given:
        return [find_run(log, each, name).id for each in given]
    found = _latest_comparable(log, name)
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
    for run in found:
        console.note(f"latest: {_in_words(run)}")
    return [run.id for run in found]


def _latest_comparable(log: TaskLog, name: str | None) -> list[Run]:
    from testbed.experiment.summary import counted

    latest: Run | None = None
    chosen: dict[tuple[str, ...], Run] = {}
    runs, _ = _preferred(log.runs(), name, over=True)
    for run in reversed(runs):
        info = run.info
        replayed = None if latest is None else latest.info.replay_of
        key: tuple[str, ...] = (info.scheduler, _options(run), info.label)
        if latest is None:
            # A replay met what was injected into the run that it repeats.
            alike = not run.changes and (not run.faults_by_hand or info.replay_of is not None)
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
        if key not in chosen and any(counted(log, [run])[run.id].values()):
            latest = latest or run
            chosen[key] = run
    return list(reversed(chosen.values()))


def _episodes(run: Run) -> set[int]:
    return set(range(run.info.first_episode, run.info.first_episode + run.info.episodes))


def _options(run: Run) -> str:
    # A plan of another version of this toolkit is no reason not to look at the run.
    with suppress(ValueError, TestbedError):
        return str(sorted(run.head.scheduler.options.items()))
    return ""
