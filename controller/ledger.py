"""Bookkeeping of an episode's tasks: their holders and their endings, from the records received.

Pure bookkeeping: no clock, no I/O. A task whose holder died is *presumed* lost: the episode does
not wait for it, but its real ending still counts if it comes before the episode is closed.
``close`` makes the endings of all that never came, so that every task ends exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from testbed.model.events import Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER
from testbed.model.task import Outcome, Task
from testbed.model.units import Micros

LOST_STAGE: Final = "lost"
"""The ``stage`` of an ending made by the controller: where the task was is not known."""

_UNHELD: Final = -1


_PAGE_BYTES: Final = 512


class TaskSet:
    """Numbers of tasks, in a bit each where they are dense."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, task_id: int) -> None:
        """Add a task."""
        page, bit = divmod(task_id, 8 * _PAGE_BYTES)
        bits = self._pages.get(page)
        if bits is None:
            bits = self._pages[page] = bytearray(_PAGE_BYTES)
        bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, task_id: int) -> bool:
        page, bit = divmod(task_id, 8 * _PAGE_BYTES)
        bits = self._pages.get(page)
        return bits is not None and bool(bits[bit >> 3] & 1 << (bit & 7))


class _History:
    """The known history of one task; ``holder`` has it, or ``receiver`` is being sent it."""

    __slots__ = ("generated_at", "holder", "latest", "receiver", "seq", "task")

    def __init__(self, task: Task, holder: int, generated_at: Micros) -> None:
        self.task = task
        self.holder = holder
        self.receiver = _UNHELD
        self.seq = -1
        self.generated_at = generated_at
        self.latest: Micros = 0


class Ledger:
    """The tasks of one episode.

    ``lost`` collects the tasks that ``close`` ended; hand in one set for all episodes of a run, so
    that what comes late about a closed one is known too.
    """

    def __init__(self, lost: set[int] | None = None) -> None:
        self._open: dict[int, _History] = {}
        self._presumed: set[int] = set()
        self._lost: set[int] = set() if lost is None else lost
        self._ended = TaskSet()
        self._dead: set[int] = set()
        self.generated = 0
        self.outcomes: dict[str, int] = {outcome.value: 0 for outcome in Outcome}

    @property
    def settled(self) -> bool:
        """Whether every task generated so far has ended or is presumed lost."""
        return len(self._open) == len(self._presumed)

    @property
    def presumed_lost(self) -> int:
        """Tasks presumed lost whose real ending may still come."""
        return len(self._presumed)

    @property
    def unfinished(self) -> int:
        """Tasks that have not ended, those presumed lost included."""
        return len(self._open)

    def generate(self, task: Task, at: Micros) -> None:
        """Enter a task that arrived at its source at ``at`` on the episode's clock."""
        if task.id in self._open or task.id in self._ended:
            return
        self.generated += 1
        self._open[task.id] = _History(task, task.source, at)
        if task.source in self._dead:
            self._presumed.add(task.id)

    def add(self, record: Record) -> bool:
        """Take a record of a node; False if it must not be stored.

        That is so only for a task the closed episode has ended as lost: a second ending, or a step
        after the ending, would contradict what is logged.
        """
        task = record.task
        if task.id in self._lost:
            return False
        history = self._open.get(task.id)
        if history is None:
            if task.id in self._ended:
                # Another node's earlier step, which took longer to come here than the ending.
                return record.kind is not RecordKind.ENDED
            self.generated += 1
            history = self._open[task.id] = _History(task, task.source, record.at)
        history.latest = max(history.latest, record.at)
        if record.kind is RecordKind.ENDED:
            del self._open[task.id]
            self._presumed.discard(task.id)
            self._ended.add(task.id)
            self.outcomes[str(record.data["outcome"])] += 1
            return True
        if record.seq > history.seq:
            history.seq = record.seq
            history.receiver = _UNHELD
            history.holder = record.node
            if record.kind is RecordKind.SENT:
                history.holder = int(record.data["peer"])
            elif record.kind is RecordKind.TRANSMISSION_STARTED:
                history.receiver = int(record.data["peer"])
            self._presume(task.id, history)
        return True

    def node_died(self, node: int) -> None:
        """Presume all tasks of a node lost, for the rest of the episode."""
        self._dead.add(node)
        for task_id, history in self._open.items():
            self._presume(task_id, history)

    def not_begun(self) -> list[Task]:
        """Tasks that have not ended and of which their nodes have said nothing."""
        return [history.task for history in self._open.values() if history.seq < 0]

    def close(self, at: Micros) -> list[Record]:
        """End every task that has not ended as lost, and say so in records, in order of task.

        ``at`` is the instant on the controller's episode clock. A task whose node never logged it
        gets its ``generated`` record here too.
        """
        records = [
            record for task_id in sorted(self._open) for record in _lose(self._open[task_id], at)
        ]
        self.outcomes[Outcome.LOST.value] += len(self._open)
        self._lost.update(self._open)
        self._open.clear()
        self._presumed.clear()
        return records

    def _presume(self, task_id: int, history: _History) -> None:
        if history.holder in self._dead or history.receiver in self._dead:
            self._presumed.add(task_id)
        else:
            self._presumed.discard(task_id)


def _lose(history: _History, at: Micros) -> Iterable[Record]:
    task, begun = history.task, history.generated_at
    if history.seq < 0:
        # The record its node would have made, so that it can never be there twice.
        yield Record(RecordKind.GENERATED, task, 0, task.source, begun, begun, {})
    data: dict[str, int | str] = {
        "outcome": Outcome.LOST.value,
        "elapsed": max(0, at - begun),
        "stage": LOST_STAGE,
    }
    # Clocks of nodes may be ahead of the controller's by milliseconds; a history does not run back.
    at = max(at, begun, history.latest)
    yield Record(RecordKind.ENDED, task, FIRST_OF_CONTROLLER, history.holder, at, at, data)
