"""Counts what a user's own code failed at, from the records that end tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.model.events import Record, RecordKind


class Failures:
    """Counts the tasks that a user's own code failed at, and keeps the first of each kind.

    Give it every record that ends a task, or all records.
    """

    __slots__ = ("_counts", "_first")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, Record] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, record: Record) -> None:
        """Take the next record; those without a reason do not count."""
        if record.kind is not RecordKind.ENDED or "reason" not in record.data:
            return
        stage = str(record.data["stage"])
        self._counts[stage] = self._counts.get(stage, 0) + 1
        self._first.setdefault(stage, record)

    @property
    def lines(self) -> tuple[str, ...]:
        """One sentence per kind: how many tasks, then the first with its node and reason."""
        return tuple(
            f"{_WHAT.get(stage, 'own code')} failed at {_tasks(count)}; the first: episode "
            f"{first.task.episode}, node {first.node}, task {first.task.id}: {first.data['reason']}"
            for stage, count in self._counts.items()
            for first in (self._first[stage],)
        )


_WHAT: Final[Mapping[str, str]] = {"deciding": "the scheduler", "execution": "the application"}


def _tasks(count: int) -> str:
    return "1 task, which is lost" if count == 1 else f"{count} tasks, which are lost"
