"""Testbeds come and go: what `testbed up`, `testbed teardown` and the Python API do alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from testbed.api import home, notices, places, planning
from testbed.errors import PermanentError, PrerequisiteMissing, TestbedError

if TYPE_CHECKING:
    from testbed.runtime.base import Runtime, Teardown, Testbed
    from testbed.scenario.plan import PlanHead
    from testbed.scenario.schema import ScenarioFile


STARTED_S: Final = 120.0
"""Time that a task log gets to answer on a cluster that was started again."""
ASK_AGAIN_S: Final = 2.0


def planned(
    scenario: ScenarioFile,
    place: Runtime,
    *,
    storage: str | None = None,
    artifacts: str | None = None,
    episodes: int | None = None,
) -> PlanHead:
    """Return the plan of a testbed in ``place``, with the stores it writes to.

    On this machine they are those of the home where neither the caller nor the scenario names one;
    a cluster has its own.
    """
    from testbed.scenario.load import draw

    if home.controller() or place.on_this_machine:
        storage = home.choose_task_log(storage, scenario.storage)
        artifacts = home.artifacts_url(artifacts, scenario.artifacts)
    return draw(
        scenario,
        episodes=episodes,
        storage_url=storage or scenario.storage,
        artifacts_url=artifacts or scenario.artifacts,
    )


def bring_up(
    place: Runtime, where: places.Place, plan: PlanHead, name: str, scenario: str | None
) -> Testbed:
    """Start the testbed ``name`` and return it when all its nodes are healthy.

    ``scenario`` is the text of the scenario file, for the task log. When this fails or is
    interrupted, everything that was started is stopped again.

    Raises:
        PrerequisiteMissing: the runtime lacks something.
        UsageError: unknown scheduler, application or option.
        TestbedError: as ``Runtime.up``.
    """
    from edgenode.applications import registry as applications
    from testbed.schedulers import registry

    planning.check_objective(plan)
    registry.check(plan.scheduler.name, plan.scheduler.options, plan.hook)
    applications.check(plan.application.name)
    if lacks := place.check():
        raise PrerequisiteMissing(
            "; ".join(lack.what for lack in lacks), "; ".join(lack.fix for lack in lacks)
        )
    notices.note(f"bringing up {plan.name} as '{name}'")
    # Before: what is left when this is killed is found by teardown.
    places.note(name, where)
    try:
        return place.up(plan, name, scenario=scenario, report=notices.note)
    except BaseException:
        if name not in _quietly(place):
            places.forget(name)
        raise


def _quietly(place: Runtime) -> tuple[str, ...]:
    try:
        return place.names()
    except TestbedError:
        return ()


def take_down(
    place: Runtime, name: str, *, discard: bool = False, verify: bool = False
) -> Teardown:
    """Stop everything of the testbed ``name``; no-op if nothing of it runs.

    A cluster of this home that has stopped is started for it: only there its runs can be had.
    The runs of a task log that is part of the testbed are copied into that of the home first,
    unless ``discard``. ``verify`` looks for anything left on the cluster.

    Raises: PermanentError: the runs cannot be kept, or something could not be ended or is left.
    """
    started = place.start_stopped(report=notices.note)
    if not discard:
        _save_runs(place, name, STARTED_S if started else 0.0)
    done = place.down(name, report=notices.note)
    places.forget(name)
    if verify:
        _verify(place, name)
    return done


def _save_runs(place: Runtime, name: str, wait_s: float) -> None:
    """Copy the runs of a task log that goes with its testbed into that of the home.

    One that does not answer is asked again for ``wait_s`` seconds.
    """
    from testbed.storage.tasklog import NothingLogged

    until = time.monotonic() + wait_s
    try:
        while True:
            try:
                saved = _copy_runs(place, name)
                break
            except NothingLogged:
                raise
            except TestbedError as error:
                if time.monotonic() > until:
                    raise
                notices.note(f"waiting for the task log of '{name}', which is starting: {error}")
                time.sleep(ASK_AGAIN_S)
    except NothingLogged:
        # It has no tables yet: no run either.
        return
    except TestbedError as error:
        if not place.was_up(name):
            notices.note(f"testbed '{name}' never came up, so there is no run to copy")
            return
        raise PermanentError(
            f"the runs of '{name}' cannot be kept, so it stays up: {error}\n"
            "give --discard to take it down without them"
        ) from error
    if saved:
        notices.note(f"{len(saved)} runs are now in {home.choose_task_log(None)}")


def _copy_runs(place: Runtime, name: str) -> Sequence[str]:
    from testbed.storage.tasklog import open_task_log
    from testbed.storage.tasklog.copying import copy_runs

    own = place.own_log(name)
    if own is None:
        return ()
    target = home.choose_task_log(None)
    with open_task_log(own, create=False) as source, open_task_log(target) as log:
        return copy_runs(source, log, lambda run: notices.note(f"keeping run {run}"))


def _verify(place: Runtime, name: str) -> None:
    if left := place.leftovers(name):
        raise PermanentError(f"still there of testbed '{name}': {', '.join(left)}")
    notices.note(f"verified: nothing of '{name}' is left")


def settle(done: Teardown) -> None:
    """Enter the end of a run that its controller, killed, could not enter."""
    from controller.marker import RunMarker
    from testbed.storage.tasklog import open_task_log

    if done.kept is None or done.store is None:
        return
    marker = RunMarker(done.kept)
    if not marker.exists:
        return
    try:
        with open_task_log(done.store, create=False) as log:
            settled = marker.settle(log)
    except PrerequisiteMissing:
        # Without its log there is no run to end.
        marker.end()
        notices.warn(
            f"the task log {done.store} is gone, and the last run of '{done.name}' with it"
        )
        return
    except TestbedError as error:
        notices.warn(f"a run of '{done.name}' is still marked running in the task log: {error}")
        return
    if settled is not None:
        run, state = settled
        notices.warn(f"run {run} was interrupted; the task log now has it as {state.value}")


def settle_abandoned() -> None:
    """Enter the end of runs whose marker went with the folder of their testbed."""
    from controller.claims import CLAIMS, Claims
    from testbed.storage.tasklog import open_task_log

    folder = home.home() / CLAIMS
    for store in sorted(set(Claims(folder).abandoned().values())):
        try:
            with open_task_log(store, create=False) as log:
                settled = Claims(folder, store).settle(log)
        except TestbedError as error:
            notices.warn(f"an interrupted run is still marked running: {error}")
            continue
        for run, state in settled:
            notices.warn(f"run {run} was interrupted; the task log now has it as {state.value}")
