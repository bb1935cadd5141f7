"""Stores a run in the task log: batches as they come, rows of tasks when an episode is over.

A batch is acknowledged once it is stored, and never after something could not be: an
acknowledgement is for everything before it too.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from controller.link import NodeLink
from controller.writer import LogWriter, PendingRecords
from testbed.errors import PermanentError, TestbedError
from testbed.model.events import DecisionRecord, Record
from testbed.model.history import fold_all
from testbed.model.hook import Decided
from testbed.rpc.codec import decode_decisions, decode_records
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import PlanHead
from testbed.storage.tasklog import TaskLog

_log = structlog.get_logger("controller.recording")


def decode(batch: pb.EventBatch) -> tuple[list[Record], list[Decided]]:
    """Return the records and decisions of a batch. Raises: ValueError: it cannot be read."""
    try:
        return (
            decode_records(batch.records),
            decode_decisions(batch.decisions),
        )
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(repr(error)) from None


def left_behind(
    _plan: PlanHead,
    batch: pb.EventBatch,
    stored: Callable[[], None],
    failed: Callable[[Exception], None],
) -> PendingRecords:
    """Return what a node still has of a run that is over, for instance of an earlier controller's.

    Raises: ValueError: it cannot be read.
    """
    records, decisions = decode(batch)
    return PendingRecords(
        batch.run, (), decisions, late=records, final=None, stored=stored, failed=failed
    )


class Recording(ABC):
    """The log of run ``run`` of ``size`` nodes; ``failed`` is told why it cannot be written.

    Each family of work adds what it stores.
    """

    def __init__(
        self, run: str, size: int, writer: LogWriter, failed: Callable[[str], None]
    ) -> None:
        self._run = run
        self._writer = writer
        self._on_failed = failed
        self._broken = False
        self._received = [0] * size
        self._stored = [0] * size

    def is_new(self, link: NodeLink, number: int) -> bool:
        """Return whether this batch of a node has not been here; from now on it has."""
        node = link.node
        if number > self._received[node]:
            self._received[node] = number
            return True
        # Sent again after a reconnect. If it is not stored yet, it is in the writer's queue.
        link.acknowledge(self._run, self._stored[node])
        return False

    @property
    def broken(self) -> bool:
        """Whether something could not be stored; from then on nothing more is."""
        return self._broken

    def has(self, node: int, number: int) -> bool:
        """Return whether all batches of a node up to ``number`` have come."""
        return self._received[node] >= number

    @abstractmethod
    def store_own(self, rest: Sequence[Any]) -> None:
        """Queue what the controller has made itself for storage."""

    @abstractmethod
    def begin_episode(self) -> None:
        """Begin the next episode: what comes from now on belongs to it."""

    @abstractmethod
    def end_episode(self) -> None:
        """Queue what can be worked out now that all of the episode has come."""

    async def complete(self) -> None:
        """Return when everything given so far is stored and found in the log, or could not be."""
        if not self._broken:
            try:
                await self._writer.call(self._look)
            except TestbedError as error:
                self._failed(error)

    def _look(self, log: TaskLog) -> None:
        """See with new connections whether what was stored is there; on the writer's thread."""
        log.close()
        if missing := self._missing(log.counts(self._run)):
            raise PermanentError(
                f"the task log has only {missing}: another program changed or replaced it"
            )

    @abstractmethod
    def _missing(self, found: Mapping[Any, int]) -> str:
        """Return what the log lacks, given its numbers of rows; empty if nothing."""

    def _acknowledging(self, link: NodeLink, number: int) -> Callable[[], None]:
        """Return what acknowledges a batch of a node once it is stored."""

        def stored() -> None:
            if not self._broken:
                self._stored[link.node] = max(self._stored[link.node], number)
                link.acknowledge(self._run, number)

        return stored

    def _failed(self, error: Exception) -> None:
        self._broken = True
        self._on_failed(f"the task log cannot be written: {error}")


class TaskRecording(Recording):
    """The log of a run of tasks; ``illegal`` counts histories that cannot be."""

    def __init__(
        self, run: str, size: int, writer: LogWriter, failed: Callable[[str], None]
    ) -> None:
        super().__init__(run, size, writer, failed)
        self.illegal = 0
        self._rows = 0
        self._records: list[Record] = []
        self._decisions: list[DecisionRecord] = []
        self._folding: set[asyncio.Task[None]] = set()

    def store_batch(
        self,
        link: NodeLink,
        number: int,
        records: Sequence[Record],
        decisions: Sequence[Decided],
        late: Sequence[Record] = (),
    ) -> None:
        """Queue a node's batch for storage, and acknowledge it then.

        ``late`` are records of tasks whose episode is over: they change no end that was told.
        """
        self._store(records, decisions, self._acknowledging(link, number), late)

    def store_own(self, records: Sequence[Record]) -> None:
        """Queue records that the controller made for storage."""
        if records:
            self._store(records, (), lambda: None)

    def begin_episode(self) -> None:
        """See ``Recording``."""
        self._records, self._decisions = [], []

    def end_episode(self) -> None:
        """Queue the rows of the episode's tasks; all its records have come."""
        folding = asyncio.get_running_loop().create_task(self._fold(self._records, self._decisions))
        self._folding.add(folding)
        folding.add_done_callback(self._folding.discard)
        self.begin_episode()

    async def complete(self) -> None:
        """See ``Recording``."""
        await asyncio.gather(*self._folding)
        await super().complete()

    def _missing(self, found: Mapping[Any, int]) -> str:
        stored = self._writer.appended[self._run]
        rows = found["events"] + found["decisions"]
        if rows >= stored and found["tasks"] >= self._rows:
            return ""
        return (
            f"{rows} of {stored} stored events and decisions, and {found['tasks']} of "
            f"{self._rows} tasks"
        )

    def _store(
        self,
        records: Sequence[Record],
        decisions: Sequence[Decided],
        stored: Callable[[], None],
        late: Sequence[Record] = (),
    ) -> None:
        self._records += records
        self._decisions += [
            decision
            for decision in decisions
            if isinstance(decision, DecisionRecord) and decision.task_id is not None
        ]
        self._writer.append(
            PendingRecords(self._run, records, decisions, stored, self._failed, late, final=True)
        )

    async def _fold(self, records: list[Record], decisions: list[DecisionRecord]) -> None:
        def write(log: TaskLog) -> int:
            folded = fold_all((), records, decisions)
            log.write_tasks(self._run, folded.rows)
            self._rows += len(folded.rows)
            for history in folded.illegal:
                _log.error("illegal history", run=self._run, history=str(history))
            return len(folded.illegal)

        try:
            self.illegal += await self._writer.call(write)
        except TestbedError as error:
            self._failed(error)
