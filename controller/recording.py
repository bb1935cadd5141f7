"""Stores a run in the task log: batches as they come, rows of tasks some time after their ends.

A batch is acknowledged once it is stored, and never after something could not be: an
acknowledgement is for everything before it too.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from controller.ledger import TaskSet
from controller.link import NodeLink
from controller.writer import LogWriter, PendingRecords
from testbed.errors import PermanentError, TestbedError
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import fold_all
from testbed.model.hook import Decided
from testbed.model.task import Task
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
        """Return whether this batch of a log has not been here; from now on it has."""
        log = link.log
        if number > self._received[log]:
            self._received[log] = number
            return True
        # Sent again after a reconnect. If it is not stored yet, it is in the writer's queue.
        link.acknowledge(self._run, self._stored[log])
        return False

    @property
    def broken(self) -> bool:
        """Whether something could not be stored; from then on nothing more is."""
        return self._broken

    def has(self, log: int, number: int) -> bool:
        """Return whether all batches of a log up to ``number`` have come."""
        return self._received[log] >= number

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
                self._stored[link.log] = max(self._stored[link.log], number)
                link.acknowledge(self._run, number)

        return stored

    def _failed(self, error: Exception) -> None:
        self._broken = True
        self._on_failed(f"the task log cannot be written: {error}")


FOLD_TASKS: Final = 2_000
"""Tasks whose rows are made together. A task waits for that many others after its last record: its
decision may come a batch later."""


class _Told:
    """Records of one task that have come; ``last`` is the number of its last one, once known."""

    __slots__ = ("decision", "last", "records", "task")

    def __init__(self, task: Task | None = None) -> None:
        self.task = task
        self.records: list[Record] = []
        self.decision: DecisionRecord | None = None
        self.last: int | None = None


class TaskRecording(Recording):
    """The log of a run of tasks; ``illegal`` counts histories that cannot be.

    Of tasks that have ended the rows are made, and their records are forgotten, while the episode
    goes on: memory does not grow with its length.
    """

    def __init__(
        self, run: str, size: int, writer: LogWriter, failed: Callable[[str], None]
    ) -> None:
        super().__init__(run, size, writer, failed)
        self.illegal = 0
        self._rows = 0
        self._told: dict[int, _Told] = {}
        self._complete: list[int] = []
        self._earlier: list[int] = []
        """Complete tasks that have waited for others."""
        self._folded = TaskSet()
        self._contradicted: dict[int, _Told] = {}
        """Tasks of which more has come after their rows were made."""
        self._folding: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        """Number of tasks whose records are kept."""
        return len(self._told)

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
        self._told, self._contradicted = {}, {}
        self._complete, self._earlier = [], []
        self._folded = TaskSet()

    def end_episode(self) -> None:
        """Queue the rows of the episode's other tasks; all its records have come."""
        self._start_folding(list(self._told.values()), list(self._contradicted.values()))
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
        for record in records:
            self._keep(record)
        for decision in decisions:
            if isinstance(decision, DecisionRecord) and decision.task_id is not None:
                told = self._of(decision.task_id)
                if told is not None:
                    told.decision = decision
        self._writer.append(
            PendingRecords(self._run, records, decisions, stored, self._failed, late, final=True)
        )
        if len(self._complete) >= FOLD_TASKS:
            # After what they are made from.
            self._start_folding([self._told.pop(task_id) for task_id in self._earlier])
            for task_id in self._earlier:
                self._folded.add(task_id)
            self._earlier, self._complete = self._complete, []

    def _of(self, task_id: int) -> _Told | None:
        """Return what has come of a task; None if its row is made."""
        told = self._told.get(task_id)
        if told is None and task_id not in self._folded:
            told = self._told[task_id] = _Told()
        return told

    def _keep(self, record: Record) -> None:
        task = record.task
        told = self._of(task.id)
        if told is None:
            told = self._contradicted.setdefault(task.id, _Told(task))
            told.records.append(record)
            return
        told.task = task
        told.records.append(record)
        if record.kind is RecordKind.ENDED:
            told.last = record.seq
        if told.last is not None and len(told.records) == told.last + 1:
            self._complete.append(task.id)

    def _start_folding(self, tasks: Sequence[_Told], contradicted: Sequence[_Told] = ()) -> None:
        folding = asyncio.get_running_loop().create_task(self._fold(tasks, contradicted))
        self._folding.add(folding)
        folding.add_done_callback(self._folding.discard)

    async def _fold(self, tasks: Sequence[_Told], contradicted: Sequence[_Told]) -> None:
        def write(log: TaskLog) -> int:
            folded = fold_all(
                (),
                (record for told in tasks for record in told.records),
                (told.decision for told in tasks if told.decision is not None),
            )
            log.write_tasks(self._run, folded.rows)
            self._rows += len(folded.rows)
            for history in folded.illegal:
                _log.error("illegal history", run=self._run, history=str(history))
            for told in contradicted:
                what = [str(record) for record in told.records]
                _log.error("illegal history", run=self._run, came_after_its_end=what)
            # Nothing in them can be trusted, as in any illegal history.
            lost = [told.task for told in contradicted if told.task is not None]
            log.write_tasks(self._run, fold_all(lost, ()).rows)
            return len(folded.illegal) + len(contradicted)

        try:
            self.illegal += await self._writer.call(write)
        except TestbedError as error:
            self._failed(error)
