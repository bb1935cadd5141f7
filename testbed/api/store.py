"""An open task log that closes itself when nothing refers to it any more."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from testbed.storage.tasklog import TaskLog


class Store:
    """An open task log, and where it is; usable as a context manager, which closes it."""

    def __init__(self, task_log: TaskLog, where: str, folder: Path | None = None) -> None:
        self.task_log = task_log
        self.where = where
        weakref.finalize(self, _end, task_log, folder)

    def close(self) -> None:
        """Close the log's files or connections; a later call opens them again."""
        self.task_log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def temporary() -> Store:
    """Open a task log in a folder that is removed with it."""
    from testbed.storage.tasklog import open_task_log

    folder = Path(tempfile.mkdtemp(prefix="testbed-runs-"))
    try:
        return Store(open_task_log(folder / "tasklog.sqlite"), "memory", folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _end(task_log: TaskLog, folder: Path | None) -> None:
    task_log.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
