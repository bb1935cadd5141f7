"""The task log of the pages, opened for as long as something is read or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from testbed.api.logs import open_log
from testbed.storage.tasklog import TaskLog
from testbed.ui.context import Context

_R = TypeVar("_R")


async def with_log(context: Context, function: Callable[[TaskLog], _R]) -> _R:
    """Return what ``function`` returns of the task log, beside the event loop.

    Raises: PrerequisiteMissing: there is none yet. TestbedError: as ``function`` does.
    """

    def work() -> _R:
        with open_log(context.settings.task_log) as log:
            return function(log)

    return await context.work(work)
