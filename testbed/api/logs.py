"""The task log that a command or a call is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.api import home, notices, places
from testbed.errors import TestbedError, UsageError
from testbed.runtime.directory import RunDirectory

if TYPE_CHECKING:
    from testbed.storage.tasklog import TaskLog


def open_log(storage: str | None, name: str | None = None) -> TaskLog:
    """Open the task log asked for, else that of the testbed ``name``, else that of the home.

    Raises: PrerequisiteMissing: there is none yet.
    """
    from testbed.storage.tasklog import open_task_log

    url = home.choose_task_log(storage, None if storage else _of_testbed(name))
    log = open_task_log(url, create=False)
    _settle(log, url)
    return log


def _settle(log: TaskLog, url: str) -> None:
    """Enter the end of runs whose controller has ended without entering it."""
    from controller.claims import CLAIMS, Claims

    try:
        settled = Claims(home.home() / CLAIMS, url).settle(log)
    except TestbedError as error:
        notices.warn(f"an interrupted run is still marked running: {error}")
        return
    for run, state in settled:
        notices.warn(f"run {run} was interrupted; the task log now has it as {state.value}")


def _of_testbed(name: str | None) -> str | None:
    """Return the URL of the task log of the testbed that is up under this name; None if none is."""
    if name is None or _is_nowhere(name):
        return None
    try:
        return places.runtime(name).find(name).store
    except UsageError as error:
        # None is up; or incomplete: it has no run that is not in the log of its home.
        if name in places.noted():
            notices.warn(f"{error}\nso this is the task log of the home")
        return None


def _is_nowhere(name: str) -> bool:
    """Return whether ``name`` would be a testbed of this machine, and there is none.

    To ask the runtime for it takes as long as all the rest of a command that reads the log.
    """
    if home.controller() or places.place_of(name).runtime != places.LOCAL:
        return False
    return not RunDirectory(home.home(), name).exists
