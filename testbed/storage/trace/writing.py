"""Writes the trace of a run as JSON of the Trace Event Format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from testbed.errors import UsageError
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS
from testbed.storage.tasklog.base import LogTable, Run, TaskLog
from testbed.storage.trace import requests, tasks
from testbed.storage.trace.format import Event
from testbed.version import __version__

Tell: TypeAlias = Callable[[int], None]
_Events: TypeAlias = Callable[[TaskLog, Run, Any, Tell], Iterator[Event]]

TRACES: Final[ByModel[tuple[LogTable, _Events]]] = ByModel(
    "a trace", {TASKS: ("events", tasks.events), SERVING: ("requests", requests.events)}
)
"""By model: the table that progress counts the rows of, and what makes the events."""


def write_trace(task_log: TaskLog, run: Run, path: Path, progress: Tell = lambda done: None) -> int:
    """Write the trace of a run to ``path``; return the number of events in it.

    ``progress`` is called with the number of rows read so far. At no time more than one episode is
    in memory.

    Raises: UsageError: its plan cannot be read.
    """
    try:
        plan = run.head
    except ValueError as error:
        raise UsageError(f"no trace can be made of run {run.id}: {error}") from None
    _, events = TRACES.of(plan)
    about = {
        "run": run.id,
        "scenario": run.info.name,
        "scheduler": run.info.scheduler,
        "driver": run.info.driver,
        "edge_testbed": __version__,
    }
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}')
        file.write(', "traceEvents": [\n')
        for event in events(task_log, run, plan, progress):
            file.write(",\n" if count else "")
            file.write(json.dumps(event, separators=(",", ":")))
            count += 1
        file.write("\n]}\n")
    return count
