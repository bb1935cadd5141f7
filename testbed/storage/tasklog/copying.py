"""Runs carried from one task log to another, so that they outlive the one they were made in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from testbed.errors import UsageError
from testbed.model.run_state import RunState
from testbed.storage.tasklog.base import TaskLog

_BATCH: Final = 5_000

_Item = TypeVar("_Item")


def copy_runs(
    source: TaskLog, target: TaskLog, progress: Callable[[str], None] = lambda run: None
) -> tuple[str, ...]:
    """Enter every run of ``source`` in ``target`` with all it has; ids of those that were new.

    Idempotent: what is there already stays as it is, and a copy that was cut short is completed.
    A run that has not ended is ``interrupted`` in the copy. When it ended is when it was copied.
    """
    new = []
    for run in source.runs():
        if _complete(source, target, run.id):
            continue
        progress(run.id)
        target.begin_run(run.info)
        for records in _batches(source.records(run.id)):
            target.append(run.id, records, ())
        for decisions in _batches(source.decisions(run.id)):
            target.append(run.id, (), decisions)
        for rows in _batches(source.tasks(run.id)):
            target.write_tasks(run.id, rows)
        for requests in _batches(source.requests(run.id)):
            target.append_serving(run.id, requests)
        for windows in _batches(source.windows(run.id)):
            target.append_serving(run.id, windows=windows)
        for routings in _batches(source.routings(run.id)):
            target.append_serving(run.id, routings=routings)
        if run.state is RunState.RUNNING:
            target.close_run(run.id, RunState.INTERRUPTED)
        else:
            target.end_run(run.id, run.state, run.certificate)
        if run.tags:
            target.tag_run(run.id, run.tags)
        if run.note:
            target.note_run(run.id, run.note)
        new.append(run.id)
    return tuple(new)


def _complete(source: TaskLog, target: TaskLog, run_id: str) -> bool:
    try:
        there = target.run(run_id)
    except UsageError:
        return False
    if there.state is RunState.RUNNING:
        return False
    # More is there where a copy had to end tasks that had no end.
    found = target.counts(run_id)
    return all(found[table] >= count for table, count in source.counts(run_id).items())


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    waiting = iter(items)
    while batch := list(islice(waiting, _BATCH)):
        yield batch
