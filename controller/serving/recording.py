"""Stores a serving run in the task log: rows of requests when they are complete, all else at once.

A node's batch is stored, and acknowledged, when the rows of all its requests are complete; that is
at once where their client has its answers, and after its patience at the latest. Batches of a node
are stored in order, because an acknowledgement is for all that came before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from controller.link import NodeLink
from controller.recording import Recording
from controller.writer import LogWriter, Pending
from testbed.model.serving.record import RequestRecord, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.rpc.codec import decode_decisions
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.serving import decode_requests, decode_windows
from testbed.scenario.plan import ServingPlan
from testbed.storage.tasklog import RequestRow, TaskLog


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a node's batch; ``ticks`` are how late a router was called, each time.

    ``failures`` say of which node a router failed, and why.
    """

    requests: Sequence[RequestRecord]
    windows: Sequence[WindowRecord]
    routings: Sequence[RoutingRecord]
    ticks: Sequence[int]
    failures: Sequence[tuple[int, str]]


def decode(batch: pb.EventBatch) -> Content:
    """Return the content of a batch. Raises: ValueError: it cannot be read."""
    try:
        decisions = decode_decisions(batch.decisions)
        routings = [each for each in decisions if isinstance(each, RoutingRecord)]
        if len(routings) < len(decisions) or batch.records:
            raise ValueError("records of tasks in a serving run")
        return Content(
            decode_requests(batch.requests),
            decode_windows(batch.windows),
            routings,
            batch.ticks,
            [(failure.node, failure.reason) for failure in batch.failures],
        )
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(repr(error)) from None


@dataclass(frozen=True, slots=True)
class PendingServing(Pending):
    """Rows of a serving run."""

    run: str
    requests: Sequence[RequestRow]
    windows: Sequence[WindowRecord]
    routings: Sequence[RoutingRecord]
    stored: Callable[[], None]
    failed: Callable[[Exception], None]

    @property
    def size(self) -> int:
        """See ``Pending``."""
        return len(self.requests) + len(self.windows) + len(self.routings)

    @classmethod
    def store(cls, log: TaskLog, run: str, entries: Sequence[Self]) -> int:
        """See ``Pending``."""
        return log.append_serving(
            run,
            [row for entry in entries for row in entry.requests],
            [window for entry in entries for window in entry.windows],
            [routing for entry in entries for routing in entry.routings],
        )


def left_behind(
    plan: ServingPlan,
    batch: pb.EventBatch,
    stored: Callable[[], None],
    failed: Callable[[Exception], None],
) -> Pending:
    """Return what a node still has of a run that is over; what its client saw is not known.

    Raises: ValueError: it cannot be read.
    """
    content = decode(batch)
    names = [function.name for function in plan.network.functions]
    try:
        rows = [RequestRow.of(record, names[record.function]) for record in content.requests]
    except IndexError:
        raise ValueError("a request for a function that there is not") from None
    return PendingServing(batch.run, rows, content.windows, content.routings, stored, failed)


@dataclass(slots=True)
class Batch:
    """A batch of a node; ``missing`` of its requests are not complete."""

    link: NodeLink
    number: int
    windows: Sequence[WindowRecord]
    routings: Sequence[RoutingRecord]
    rows: list[RequestRow] = field(default_factory=list)
    missing: int = 0


class ServingRecording(Recording):
    """The log of a serving run; ``requests`` False leaves rows of requests out."""

    def __init__(
        self,
        run: str,
        size: int,
        writer: LogWriter,
        failed: Callable[[str], None],
        *,
        requests: bool,
    ) -> None:
        super().__init__(run, size, writer, failed)
        self._requests = requests
        self._batches: list[deque[Batch]] = [deque() for _ in range(size)]

    def store_batch(self, batch: Batch) -> None:
        """Queue a batch for storage as soon as its rows are complete."""
        self._batches[batch.link.log].append(batch)
        self._flush(batch.link.log)

    def completed(self, batch: Batch, row: RequestRow) -> None:
        """Add a row that a batch has been waiting for."""
        batch.rows.append(row)
        batch.missing -= 1
        if not batch.missing:
            self._flush(batch.link.log)

    def store_own(self, rest: Sequence[RequestRow]) -> None:
        """Queue rows that no batch waits for."""
        if rest:
            self._store(rest, (), (), lambda: None)

    def begin_episode(self) -> None:
        """See ``Recording``."""

    def end_episode(self) -> None:
        """See ``Recording``."""

    def _missing(self, found: Mapping[Any, int]) -> str:
        stored = self._writer.appended[self._run]
        rows = sum(found.values())
        return "" if rows >= stored else f"{rows} of {stored} stored requests, windows and routings"

    def _flush(self, node: int) -> None:
        waiting = self._batches[node]
        while waiting and not waiting[0].missing:
            batch = waiting.popleft()
            stored = self._acknowledging(batch.link, batch.number)
            self._store(batch.rows, batch.windows, batch.routings, stored)

    def _store(
        self,
        rows: Sequence[RequestRow],
        windows: Sequence[WindowRecord],
        routings: Sequence[RoutingRecord],
        stored: Callable[[], None],
    ) -> None:
        kept = rows if self._requests else ()
        self._writer.append(
            PendingServing(self._run, kept, windows, routings, stored, self._failed)
        )
