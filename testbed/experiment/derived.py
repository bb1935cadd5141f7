"""Tables for exports that are made of the log when they are read: messages between nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Column, MetaData, String, Table

from testbed.errors import Problem, UsageError
from testbed.experiment.messages import read_messages
from testbed.scenario.plan import TASKS
from testbed.storage.export import DerivedTable
from testbed.storage.tasklog import Run, TaskLog

_CHUNK: Final = 20_000


def _number(name: str, comment: str, unit: str = "") -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment, info={"unit": unit})


_MESSAGES: Final = Table(
    "messages",
    MetaData(),
    Column("run", String(64), nullable=False),
    _number("episode", "episode"),
    _number("node", "node that counted"),
    _number("slot", "slot of the task that was asked about, from 0"),
    _number("asked", "questions of this node, one for each peer"),
    _number("asked_bytes", "size of these questions", "bytes"),
    _number("heard", "answers that it got before its decision"),
    _number("heard_bytes", "size of these answers", "bytes"),
    _number("answered", "its answers to questions of others"),
    _number("answered_bytes", "size of these answers", "bytes"),
)


def _messages(log: TaskLog, run: Run) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Return the rows of a run. Raises: UsageError: its plan cannot be read."""
    try:
        plan = run.plan
    except ValueError as error:
        raise UsageError(
            f"the messages of run {run.id} cannot be counted, as its plan cannot be read: {error}",
            [Problem("table", "messages", "name the other tables with --table")],
        ) from None
    windows = read_messages(log, run.id, plan)
    for begin in range(0, len(windows), _CHUNK):
        yield [(run.id, *window) for window in windows[begin : begin + _CHUNK]]


DERIVED: Final[Mapping[str, DerivedTable]] = {
    "messages": DerivedTable(_MESSAGES, TASKS, _messages),
}
"""By name; docs/metrics.md says what counts as a message."""
