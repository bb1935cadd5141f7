"""The history of a task: its records, checked for contradictions and folded into one row.

Nothing is measured across hosts: waiting for and duration of a transmission come from the clock of
the node of origin, waiting for and duration of an execution from the clock of the node that
executed. Records may be missing where a node died; the times they would have given are None. A
history without an end is a task that was lost. Where the controller closed a history that nobody
else did (``FIRST_OF_CONTROLLER``), its end holds until the node's own end comes in after all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Outcome, Task
from testbed.model.units import Micros

FIRST_OF_CONTROLLER: Final = 1_000_000
"""Records numbered from here are the controller's: its records of tasks that it declares lost."""


class TaskRow(NamedTuple):
    """Outcome of one task; the row that reports, comparisons and data sets start from.

    All durations in microseconds, None where the task never came so far or no record has them. The
    measured ones are differences of one host's clock. ``nominal_transmission`` and
    ``nominal_execution`` are the model's full times ``s / r`` and ``c / F``, of failed and dropped
    tasks too; the nominal waiting times are what the model's own instants give.
    ``scheduler`` names what decided (for a learned policy with its id), ``stage`` where the task
    ended; ``elapsed`` counts from generated to ended.
    """

    task_id: int
    episode: int
    slot: int
    source: int
    destination: int | None
    outcome: Outcome
    size_bytes: int
    cycles: int
    deadline: Micros
    scheduler: str | None
    stage: str | None
    elapsed: Micros | None
    transmission_waiting: Micros | None
    transmission: Micros | None
    execution_waiting: Micros | None
    execution: Micros | None
    nominal_transmission_waiting: Micros | None
    nominal_transmission: Micros | None
    nominal_execution_waiting: Micros | None
    nominal_execution: Micros | None

    @property
    def task(self) -> Task:
        """Return the task as it was generated."""
        return Task(
            self.task_id,
            self.episode,
            self.slot,
            self.source,
            self.size_bytes,
            self.cycles,
            self.deadline,
        )


class Choice(NamedTuple):
    """The part of a decision that the row of its task tells."""

    scheduler: str
    destination: int | None


class IllegalHistory(ValueError):
    """Records of one task that cannot all be true: a defect of a driver. Lists the records."""

    def __init__(self, task: Task, problems: Sequence[str], records: Sequence[Record]) -> None:
        self.task = task
        self.problems = tuple(problems)
        told = "\n".join(f"  {tell(record)}" for record in records)
        super().__init__(f"task {task.id}: {'; '.join(problems)}\n{told}")


def tell(record: Record) -> str:
    """One line for people about one record."""
    data = " ".join(f"{name}={value}" for name, value in record.data.items())
    return f"{record.seq:>2} {record.at:>10} us node {record.node} {record.kind} {data}".rstrip()


_FOLLOWS: Final[dict[RecordKind, frozenset[RecordKind]]] = {
    RecordKind.GENERATED: frozenset({RecordKind.DECIDED, RecordKind.ENDED}),
    RecordKind.DECIDED: frozenset(
        {RecordKind.TRANSMISSION_STARTED, RecordKind.ADMITTED, RecordKind.ENDED}
    ),
    RecordKind.TRANSMISSION_STARTED: frozenset({RecordKind.SENT, RecordKind.ENDED}),
    RecordKind.SENT: frozenset({RecordKind.RECEIVED}),
    RecordKind.RECEIVED: frozenset({RecordKind.ADMITTED, RecordKind.ENDED}),
    RecordKind.ADMITTED: frozenset({RecordKind.EXECUTION_STARTED, RecordKind.ENDED}),
    RecordKind.EXECUTION_STARTED: frozenset({RecordKind.ENDED}),
    RecordKind.ENDED: frozenset(),
}
_AT_ORIGIN: Final = frozenset(
    {
        RecordKind.GENERATED,
        RecordKind.DECIDED,
        RecordKind.TRANSMISSION_STARTED,
        RecordKind.SENT,
    }
)
_AT_DESTINATION: Final = frozenset(
    {RecordKind.RECEIVED, RecordKind.ADMITTED, RecordKind.EXECUTION_STARTED}
)
_STAGES: Final[dict[RecordKind, frozenset[str]]] = {
    RecordKind.GENERATED: frozenset({"deciding"}),
    RecordKind.DECIDED: frozenset({"sending", "receiving"}),
    RecordKind.TRANSMISSION_STARTED: frozenset({"transmission", "handing_over"}),
    RecordKind.RECEIVED: frozenset({"receiving"}),
    RecordKind.ADMITTED: frozenset({"waiting"}),
    RecordKind.EXECUTION_STARTED: frozenset({"execution"}),
}
_ENDS_ONLY_IN: Final[dict[str, str]] = {
    Outcome.SUCCEEDED: "execution",
    Outcome.EXECUTION_FAILED: "execution",
    Outcome.TRANSMISSION_FAILED: "transmission",
    Outcome.REFUSED: "deciding",
}


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Records by ``seq``; one that was delivered twice counts once."""
    ordered: list[Record] = []
    for record in sorted(records, key=lambda record: record.seq):
        if not ordered or record != ordered[-1]:
            ordered.append(record)
    nodes = [record for record in ordered if record.seq < FIRST_OF_CONTROLLER]
    told = {record.kind for record in nodes}
    if RecordKind.ENDED in told:
        return nodes
    return nodes + [record for record in ordered[len(nodes) :] if record.kind not in told]


def problems(task: Task, records: Sequence[Record]) -> list[str]:
    """Return the contradictions in this history; missing records are none.

    ``records`` in order of ``seq``, as all of one task.
    """
    found: list[str] = []
    by_kind: dict[RecordKind, Record] = {}
    previous: Record | None = None
    latest: dict[int, Record] = {}
    for record in records:
        kind = record.kind
        if record.task != task:
            found.append(f"record {record.seq} is about another task: {record.task}")
        if kind in by_kind:
            found.append(f"{kind} twice")
        if kind in _AT_ORIGIN and record.node != task.source:
            found.append(f"{kind} at node {record.node} instead of its origin {task.source}")
        if previous is not None:
            if record.seq == previous.seq:
                found.append(f"two records have number {record.seq}")
            elif record.seq == previous.seq + 1 and kind not in _FOLLOWS[previous.kind]:
                found.append(f"{kind} after {previous.kind}")
        elif record.seq == 0 and kind is not RecordKind.GENERATED:
            found.append(f"begins with {kind}")
        if record.seq < FIRST_OF_CONTROLLER:
            before = latest.get(record.node)
            if before is not None and record.at < before.at:
                found.append(f"{kind} at {record.at} us, before {before.kind} at {before.at} us")
            latest[record.node] = record
        by_kind[kind] = record
        previous = record
    found.extend(_wrong_places(task, by_kind))
    end = by_kind.get(RecordKind.ENDED)
    if end is not None:
        found.extend(_wrong_end(task, records, end))
    return found


def _usual_shapes() -> Iterator[tuple[RecordKind, ...]]:
    """Return the kinds of records of every complete history, in their order."""
    local = (RecordKind.ADMITTED, RecordKind.EXECUTION_STARTED)
    sent = (RecordKind.TRANSMISSION_STARTED, RecordKind.SENT, RecordKind.RECEIVED)
    for steps in (local, (*sent, *local)):
        history = [RecordKind.GENERATED, RecordKind.DECIDED, *steps]
        for count in range(1, len(history) + 1):
            if RecordKind.ENDED in _FOLLOWS[history[count - 1]]:
                yield (*history[:count], RecordKind.ENDED)


_USUAL: Final = frozenset(_usual_shapes())


def _is_usual(task: Task, records: Sequence[Record]) -> bool:
    """Return whether this is a complete history in order that is beyond doubt.

    Nearly all are, and this finds it in a fraction of the time of ``problems``, which says of the
    others what is wrong with them, if anything.
    """
    if tuple([record[0] for record in records]) not in _USUAL:
        return False
    source, destination = task[3], None
    origin_at = elsewhere_at = -1
    for number, (kind, about, seq, node, at, _, data) in enumerate(records):
        if seq != number or (about is not task and about != task):
            return False
        if kind is RecordKind.DECIDED:
            destination = data["destination"]
        elif kind is RecordKind.TRANSMISSION_STARTED and (
            data["peer"] != destination or destination == source
        ):
            return False
        if node == source:
            if at < origin_at or (kind in _AT_DESTINATION and destination != source):
                return False
            origin_at = at
        elif node != destination or kind in _AT_ORIGIN or at < elsewhere_at:
            return False
        else:
            elsewhere_at = at
    return not _wrong_end(task, records, records[-1])


def _wrong_places(task: Task, by_kind: dict[RecordKind, Record]) -> list[str]:
    decided = by_kind.get(RecordKind.DECIDED)
    if decided is None:
        return []
    destination = decided.data["destination"]
    found = []
    started = by_kind.get(RecordKind.TRANSMISSION_STARTED)
    if started is not None and started.data["peer"] != destination:
        found.append(f"sent to node {started.data['peer']}, decided was {destination}")
    for kind in (RecordKind.RECEIVED, RecordKind.ADMITTED, RecordKind.EXECUTION_STARTED):
        record = by_kind.get(kind)
        if record is not None and record.node != destination:
            found.append(f"{kind} at node {record.node}, decided was {destination}")
    if destination == task.source and (started is not None or RecordKind.RECEIVED in by_kind):
        found.append("sent although it was to stay at its origin")
    return found


def _wrong_end(task: Task, records: Sequence[Record], end: Record) -> list[str]:
    found = []
    if records[-1] is not end:
        found.append(f"{records[-1].kind} after its end")
    outcome, stage, elapsed = end.data["outcome"], end.data["stage"], end.data["elapsed"]
    if end.seq >= FIRST_OF_CONTROLLER:
        if outcome != Outcome.LOST:
            found.append(f"{outcome} by the controller, which can only call a task lost")
    elif len(records) > 1 and records[-1] is end and records[-2].seq == end.seq - 1:
        before = records[-2].kind
        if before in _STAGES and stage not in _STAGES[before]:
            found.append(f"ended in stage {stage} after {before}")
    only = _ENDS_ONLY_IN.get(str(outcome))
    if only is not None and stage != only:
        found.append(f"{outcome} in stage {stage}")
    if outcome == Outcome.SUCCEEDED and isinstance(elapsed, int) and elapsed > task.deadline:
        found.append(f"succeeded after {elapsed} us with a deadline of {task.deadline} us")
    return found


class _Interval(NamedTuple):
    measured: Micros | None
    nominal: Micros | None


_NOTHING: Final = _Interval(None, None)


def _between(begin: Record | None, finish: Record | None) -> _Interval:
    """From one record to another of the same host."""
    if begin is None or finish is None or begin.node != finish.node:
        return _NOTHING
    if finish.seq >= FIRST_OF_CONTROLLER:
        return _NOTHING
    return _Interval(finish.clock - begin.clock, finish.at - begin.at)


def _nominal(started: Record | None) -> Micros | None:
    return None if started is None else int(started.data["nominal"])


def fold(
    task: Task, records: Iterable[Record], decision: DecisionRecord | Choice | None = None
) -> TaskRow:
    """Return the row of ``task`` from all records of it (any order) and the decision about it.

    Raises:
        IllegalHistory: the records contradict each other.
    """
    history = list(records)
    if not _is_usual(task, history):
        history = _in_order(history)
        if wrong := problems(task, history):
            raise IllegalHistory(task, wrong, history)
    at = {record.kind: record for record in history}
    decided = at.get(RecordKind.DECIDED)
    sending = at.get(RecordKind.TRANSMISSION_STARTED)
    received = at.get(RecordKind.RECEIVED)
    started = at.get(RecordKind.EXECUTION_STARTED)
    end = at.get(RecordKind.ENDED)

    destination: int | None = None
    if decided is not None:
        destination = int(decided.data["destination"])
    elif decision is not None:
        destination = decision.destination
    elif received is not None:
        destination = received.node

    # The record that closes an interval is the next step, or the end where there was none.
    remote = destination is not None and destination != task.source
    transmission_waiting = _between(decided, sending or end) if remote else _NOTHING
    transmission = _between(sending, at.get(RecordKind.SENT) or end)
    execution_waiting = _between(received if remote else decided, started or end)
    execution = _between(started, end)
    return TaskRow(
        task_id=task.id,
        episode=task.episode,
        slot=task.slot,
        source=task.source,
        destination=destination,
        outcome=Outcome.LOST if end is None else Outcome(str(end.data["outcome"])),
        size_bytes=task.size_bytes,
        cycles=task.cycles,
        deadline=task.deadline,
        scheduler=None if decision is None else decision.scheduler,
        stage=None if end is None else str(end.data["stage"]),
        elapsed=None if end is None else int(end.data["elapsed"]),
        transmission_waiting=transmission_waiting.measured,
        transmission=transmission.measured,
        execution_waiting=execution_waiting.measured,
        execution=execution.measured,
        nominal_transmission_waiting=transmission_waiting.nominal,
        nominal_transmission=_nominal(sending),
        nominal_execution_waiting=execution_waiting.nominal,
        nominal_execution=_nominal(started),
    )


class Folded(NamedTuple):
    """The rows of all tasks in order of their id, and the histories that could not be true."""

    rows: list[TaskRow]
    illegal: list[IllegalHistory]


def fold_all(
    tasks: Iterable[Task], records: Iterable[Record], decisions: Iterable[DecisionRecord] = ()
) -> Folded:
    """One row per task: of ``tasks`` and of every task that a record names.

    A task that nobody recorded was lost. So counts one whose history is illegal, because nothing in
    it can be trusted: that is a failure of the testbed, never a simulated outcome.
    """
    histories: defaultdict[int, list[Record]] = defaultdict(list)
    known = {task.id: task for task in tasks}
    for record in records:
        histories[record.task.id].append(record)
        known.setdefault(record.task.id, record.task)
    decided = {decision.task_id: decision for decision in decisions}
    rows: list[TaskRow] = []
    illegal: list[IllegalHistory] = []
    for task_id in sorted(known):
        task, decision = known[task_id], decided.get(task_id)
        try:
            rows.append(fold(task, histories[task_id], decision))
        except IllegalHistory as error:
            illegal.append(error)
            rows.append(fold(task, (), decision))
    return Folded(rows, illegal)
