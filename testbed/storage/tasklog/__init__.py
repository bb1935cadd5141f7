"""The task log: every run with its events, decisions and tasks, in a database.

``open_task_log`` is the way in; ``base`` holds the seam, ``sql`` the implementation.
"""

from __future__ import annotations

from testbed.model.run_state import RunState
from testbed.storage.tasklog.base import (
    LATEST,
    TABLES_OF,
    TESTBED,
    Column,
    Driver,
    EpisodeColumns,
    EpisodeLog,
    LogTable,
    Run,
    RunInfo,
    TaskLog,
    current_versions,
    fault_documents,
    label_of_replay,
    new_run_id,
    outcomes_of,
    utc_now,
)
from testbed.storage.tasklog.opening import open_task_log
from testbed.storage.tasklog.serving import RequestRow
from testbed.storage.tasklog.versions import NothingLogged

__all__ = [
    "LATEST",
    "TABLES_OF",
    "TESTBED",
    "Column",
    "Driver",
    "EpisodeColumns",
    "EpisodeLog",
    "LogTable",
    "NothingLogged",
    "RequestRow",
    "Run",
    "RunInfo",
    "RunState",
    "TaskLog",
    "current_versions",
    "fault_documents",
    "label_of_replay",
    "new_run_id",
    "open_task_log",
    "outcomes_of",
    "utc_now",
]
