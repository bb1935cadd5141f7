"""Stores a run in the task log: batches as they come, rows of tasks when an episode is over.

A batch is acknowledged once it is stored, and never after something could not be: an
acknowledgement is for everything before it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from controller.link import NodeLink
from controller.writer import LogWriter, PendingRecords
from testbed.errors import PermanentError, TestbedError
from testbed.model.events import DecisionRecord, Record
from testbed.model.history import fold_all
from testbed.model.hook import Decided
from testbed.rpc.codec import decode_decisions, decode_records
from testbed.rpc.generated import edge_pb2 as pb
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


class Recording:
    """The log of run ``run`` of ``size`` nodes; ``failed`` is told why it cannot be written."""

    def __init__(
        self, run: str, size: int, writer: LogWriter, failed: Callable[[str], None]
    ) -> None:
        self.illegal = 0
        self._run = run
        self._writer = writer
        self._on_failed = failed
        self._broken = False
        self._rows = 0
        self._received = [0] * size
        self._stored = [0] * size
        self._records: list[Record] = []
        self._decisions: list[DecisionRecord] = []
        self._folding: set[asyncio.Task[None]] = set()

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

        def stored() -> None:
            if not self._broken:
                self._stored[link.node] = max(self._stored[link.node], number)
                link.acknowledge(self._run, number)

        self._store(records, decisions, stored, late)

    def store_own(self, records: Sequence[Record]) -> None:
        """Queue records that the controller made for storage."""
        if records:
            self._store(records, (), lambda: None)

    def begin_episode(self) -> None:
        """Begin the next episode: records that come from now on belong to it."""
        self._records, self._decisions = [], []

    def end_episode(self) -> None:
        """Queue the rows of the episode's tasks; all its records have come."""
        folding = asyncio.get_running_loop().create_task(self._fold(self._records, self._decisions))
        self._folding.add(folding)
        folding.add_done_callback(self._folding.discard)
        self.begin_episode()

    async def complete(self) -> None:
        """Return when everything given so far is stored and found in the log, or could not be."""
        await asyncio.gather(*self._folding)
        if not self._broken:
            try:
                await self._writer.call(self._look)
            except TestbedError as error:
                self._failed(error)

    def _look(self, log: TaskLog) -> None:
        """See with new connections whether what was stored is there; on the writer's thread."""
        log.close()
        found = log.counts(self._run)
        stored = self._writer.appended[self._run]
        rows = found["events"] + found["decisions"]
        if rows < stored or found["tasks"] < self._rows:
            raise PermanentError(
                f"the task log has only {rows} of {stored} stored events and decisions, and "
                f"{found['tasks']} of {self._rows} tasks: another program changed or replaced it"
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

    def _failed(self, error: Exception) -> None:
        self._broken = True
        self._on_failed(f"the task log cannot be written: {error}")
