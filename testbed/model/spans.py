"""The stages of a task as spans of time at nodes, from its records, to be drawn on time lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from testbed.model.events import Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER
from testbed.model.task import Outcome, Task
from testbed.model.units import Micros

DECIDING: Final = "deciding"
QUEUED: Final = "waiting to be sent"
SENDING: Final = "sending"
RECEIVING: Final = "receiving"
WAITING: Final = "waiting for execution"
EXECUTING: Final = "executing"

STAGES: Final = (DECIDING, QUEUED, SENDING, RECEIVING, WAITING, EXECUTING)
"""All stages, in the order in which a task goes through them."""


class Span(NamedTuple):
    """One stage of a task at one node, from ``begin`` to ``end`` of the model's clock.

    Instants are microseconds since the start of the episode. ``peer`` is the other node of a
    transfer. A task is received while it is sent: both are spans of the same transfer, one at each
    node.
    """

    stage: str
    node: int
    begin: Micros
    end: Micros
    peer: int | None = None


class Course(NamedTuple):
    """All spans of one task in order, and its end; the outcome is ``lost`` where there is none."""

    task: Task
    spans: tuple[Span, ...]
    outcome: Outcome
    end: Micros


_AFTER: Final[Mapping[RecordKind, str]] = {
    RecordKind.GENERATED: DECIDING,
    RecordKind.TRANSMISSION_STARTED: SENDING,
    RecordKind.RECEIVED: WAITING,
    RecordKind.EXECUTION_STARTED: EXECUTING,
}


def courses(records: Iterable[Record]) -> Iterator[Course]:
    """Return the course of each task of ``records``, which are ordered by (task, seq)."""
    for task, told in groupby(records, key=lambda record: record.task):
        yield course(task, list(told))


def course(task: Task, records: Sequence[Record]) -> Course:
    """Return the course of ``task`` from all its records, in order of ``seq``.

    A stage whose end no node recorded, because it died, lasts to the deadline at most.
    """
    found: list[Span] = []
    begin = records[0].at
    # An end that the controller gave is of no node's clock.
    own = [record for record in records if record.seq < FIRST_OF_CONTROLLER]
    latest = max(begin + task.deadline, *(record.at for record in own), begin)
    started: Record | None = None
    for record, following in zip(own, [*own[1:], None], strict=True):
        end = latest if following is None else following.at
        if record.kind is RecordKind.RECEIVED:
            sender = int(record.data["sender"])
            since = record.at if started is None else min(started.at, record.at)
            found.append(Span(RECEIVING, record.node, since, record.at, sender))
        stage = _AFTER.get(record.kind)
        peer = None
        if record.kind is RecordKind.DECIDED:
            stage = WAITING if record.data["destination"] == task.source else QUEUED
        elif record.kind is RecordKind.TRANSMISSION_STARTED:
            started, peer = record, int(record.data["peer"])
        elif record.kind is RecordKind.ADMITTED and found and found[-1].stage == WAITING:
            # Admission ends no waiting: it goes on in the queue.
            found[-1] = found[-1]._replace(end=max(found[-1].begin, end))
        if stage is not None:
            found.append(Span(stage, record.node, record.at, max(record.at, end), peer))
    last = own[-1] if own else records[-1]
    outcome = Outcome.LOST
    if records[-1].kind is RecordKind.ENDED:
        outcome = Outcome(str(records[-1].data["outcome"]))
    ended = last.at if last.kind is RecordKind.ENDED else latest
    return Course(task, tuple(found), outcome, ended)
