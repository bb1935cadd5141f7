"""The only writer of the task log: one thread, one queue, one commit for all that has piled up.

The event loop never waits for the database. A batch is acknowledged to its node by the callback
``stored``, which runs on the event loop after the commit; a batch that could not be stored is
never acknowledged, so the node keeps it in its spool.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import structlog

from testbed.model.events import Record
from testbed.model.hook import Decided
from testbed.storage.tasklog import TaskLog

_Result = TypeVar("_Result")
_log = structlog.get_logger("controller.writer")

BATCH: Final = 5_000
"""Records and decisions of one commit, about."""

GATHER_S: Final = 0.05
"""Seconds that a commit waits for more to come. Nodes deliver in small batches; a commit for each
would cost the event loop its share of the interpreter."""

BACKLOG: Final = 20_000
"""Records and decisions waiting to be stored above which nothing more is taken from the nodes."""


class Pending(ABC):
    """Something of one run to be stored; exactly one of the callbacks is called.

    All that is pending of a run is of one class, so that it can be stored together.
    """

    __slots__ = ()

    run: str
    stored: Callable[[], None]
    failed: Callable[[Exception], None]

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of rows, about."""

    @classmethod
    @abstractmethod
    def store(cls, log: TaskLog, run: str, entries: Sequence[Self]) -> int:
        """Store ``entries``, all of ``run``; return how many rows were new."""


@dataclass(frozen=True, slots=True)
class PendingRecords(Pending):
    """Records of tasks and decisions.

    ``late`` are records of tasks whose episode is over, ``final`` as in ``TaskLog.hand_in``; None
    is for a run that is over with all its episodes.
    """

    run: str
    records: Sequence[Record]
    decisions: Sequence[Decided]
    stored: Callable[[], None]
    failed: Callable[[Exception], None]
    late: Sequence[Record] = ()
    final: bool | None = True

    @property
    def size(self) -> int:
        """Records and decisions in it."""
        return len(self.records) + len(self.decisions) + len(self.late)

    @classmethod
    def store(cls, log: TaskLog, run: str, entries: Sequence[Self]) -> int:
        """See ``Pending``."""
        new = log.append(
            run,
            [record for entry in entries for record in entry.records],
            [decision for entry in entries for decision in entry.decisions],
        )
        for entry in entries:
            if entry.late or entry.final is None:
                entry._hand_in(log)
        return new

    def _hand_in(self, log: TaskLog) -> None:
        over = {record.task.episode for record in self.late}
        decisions = [
            decision
            for decision in self.decisions
            if self.final is None or decision.episode in over
        ]
        refused = log.hand_in(self.run, self.late, decisions, final=self.final)
        if refused:
            _log.warning(
                "records refused",
                run=self.run,
                refused=refused,
                of=len(self.late),
                problem="they came after the run had ended their tasks, which stays as it was told",
            )


_Job = Callable[[], None]


class LogWriter:
    """Writes to ``log`` from its own thread; all methods belong to the event loop's thread.

    ``appended`` counts the rows that were new, by run; it belongs to the
    writer's thread. ``observer`` is told what was stored, and in how many seconds.
    """

    observer: Callable[[Sequence[Pending], float], None] | None = None

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Pending | _Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self.appended: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._room.set()
        self._thread = threading.Thread(target=self._work, name="task-log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait to be stored, about."""
        return self._waiting

    @property
    def rows(self) -> int:
        """Rows that were new so far, of all runs."""
        return sum(list(self.appended.values()))

    @property
    def has_room(self) -> bool:
        """Whether there is room for more now."""
        return self._room.is_set()

    async def room(self) -> None:
        """Return when there is room for more; the back-pressure on the nodes."""
        await self._room.wait()

    def append(self, entry: Pending) -> None:
        """Queue an entry for storage; return at once."""
        self._waiting += entry.size
        if self._waiting > BACKLOG:
            self._room.clear()
        self._queue.put(entry)

    async def call(self, function: Callable[[TaskLog], _Result]) -> _Result:
        """Run ``function`` on the writer's thread after all that was given before it."""
        future: asyncio.Future[_Result] = self._loop.create_future()

        def job() -> None:
            try:
                result = function(self._log)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                self._tell(_fail, future, error)
            else:
                self._tell(_succeed, future, result)

        self._queue.put(job)
        return await future

    async def close(self, timeout: float) -> None:
        """Store what is queued and end the thread, in at most ``timeout`` seconds."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout)
        if self._thread.is_alive():
            _log.error("the task log is still busy; what it has not stored stays with the nodes")

    # --- on the writer's thread -------------------------------------------------------------

    def _work(self) -> None:
        held: Pending | _Job | None = None
        while True:
            item = self._queue.get() if held is None else held
            held = None
            if item is None:
                return
            if not isinstance(item, Pending):
                item()
                continue
            entries, size = [item], item.size
            until = time.monotonic() + GATHER_S
            while size < BATCH:
                try:
                    following = self._queue.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if not isinstance(following, Pending) or following.run != item.run:
                    if following is None:
                        self._queue.put(None)
                    held = following
                    break
                entries.append(following)
                size += following.size
            self._store(entries)

    def _store(self, entries: list[Pending]) -> None:
        began = time.monotonic()
        try:
            run = entries[0].run
            self.appended[run] += type(entries[0]).store(self._log, run, entries)
        except Exception as error:  # noqa: BLE001 - whatever the database says, the run ends with it
            self._tell(self._done, entries, error)
        else:
            self._tell(self._done, entries, None, time.monotonic() - began)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        # The loop may be gone when the process ends while the database is busy.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- back on the event loop -------------------------------------------------------------

    def _done(self, entries: list[Pending], error: Exception | None, took_s: float = 0.0) -> None:
        self._waiting -= sum(entry.size for entry in entries)
        if self._waiting <= BACKLOG // 2:
            self._room.set()
        if error is None and self.observer is not None:
            self.observer(entries, took_s)
        for entry in entries:
            if error is None:
                entry.stored()
            else:
                entry.failed(error)


def _succeed(future: asyncio.Future[_Result], result: _Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
